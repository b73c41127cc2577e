"""The documents tell the truth: every example runs, every command exists, every link leads somewhere."""

import contextlib
import doctest
import io
import re
import shlex
import textwrap
import tomllib
from pathlib import Path

import pytest
import typer

from nucleate import losses
from nucleate.cli import app, main

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [path for path in DOCS if "log" not in path.parts]
ROOT_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
FENCE = re.compile(r"^ *```(python|console|sh)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def name_of(path):
    return str(path.relative_to(ROOT))


def blocks(path, *kinds):
    """The fenced blocks of these kinds in a page, in order: the kind, the line of its first line, the text."""
    text = path.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if found[1] in kinds:
            yield found[1], text.count("\n", 0, found.start(2)) + 1, textwrap.dedent(found[2])


def run_python(text, line, page, names):
    """Run the >>> examples of a block; `names` are what the blocks before it have defined."""
    test = doctest.DocTestParser().get_doctest(text, names, name_of(page), str(page), line - 1)
    said = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    failed = runner.run(test, out=said.append, clear_globs=False).failed
    names.update(test.globs)
    assert not failed, "".join(said)


def run_console(text):
    """Run each `$ nucleate ...` line of a block; what follows it is what it prints, where the page says so."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, wanted = part.partition("\n")
        program, *arguments = shlex.split(command)
        assert program == "nucleate", command
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            try:
                main(arguments)
            except SystemExit as end:
                assert not end.code, f"{command}\n{printed.getvalue()}"
        if wanted.strip():
            assert doctest.OutputChecker().check_output(wanted, printed.getvalue(), OPTIONS), printed.getvalue()


WITH_EXAMPLES = [page for page in (*PAGES, ROOT / "README.md") if any(blocks(page, "python", "console"))]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name_of)
def test_every_example_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for kind, line, text in blocks(page, "python", "console"):
        if kind == "python":
            run_python(text, line, page, names)
        else:
            run_console(text)


def test_the_pages_with_examples_are_found():
    names = {name_of(page) for page in WITH_EXAMPLES}
    assert {"README.md", "docs/tutorial.md", "docs/losses.md", "docs/how-to/evaluate.md"} <= names
    assert sum(len(list(blocks(page, "python", "console"))) for page in WITH_EXAMPLES) >= 25


@pytest.mark.parametrize("text", [">>> 1 + 1\n3\n", ">>> 1 / 0\n"])
def test_an_example_that_is_wrong_is_found(text):
    with pytest.raises(AssertionError):
        run_python(text, 1, ROOT / "README.md", {})


@pytest.mark.parametrize("text", ["$ nucleate losses\nnothing\n", "$ nucleate check nowhere\n"])
def test_a_command_that_does_something_else_is_found(text):
    with pytest.raises(AssertionError):
        run_console(text)


def commands(page):
    """The `nucleate` commands of a page that are shown and not run."""
    for _, _, text in blocks(page, "sh"):
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            if "nucleate" in words:
                yield words[words.index("nucleate") + 1 :]


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=name_of)
def test_the_commands_that_are_shown_exist(page):
    known = typer.main.get_command(app).commands
    for name, *arguments in commands(page):
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= options, (name, arguments)


def test_the_readme_shows_what_there_is_to_do():
    assert {name for name, *_ in commands(ROOT / "README.md")} >= {"predict", "view", "train", "evaluate"}


def slug(heading):
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [*DOCS, *ROOT_PAGES], ids=name_of)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), link


def test_every_page_is_in_the_contents():
    listed = set()
    for page in DOCS:
        for content in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            listed |= {(page.parent / f"{line}.md") for line in content.splitlines() if line and line[0] != ":"}
    assert listed | {ROOT / "docs" / "index.md"} == set(DOCS)


def test_every_section_of_the_log_is_in_its_table():
    log = ROOT / "docs" / "log"
    links = re.findall(r"\]\(([^)]+)\)", (log / "index.md").read_text(encoding="utf-8"))
    sections = {
        f"{page.relative_to(log)}#{slug(heading)}"
        for page in log.rglob("????-??-??.md")
        for heading in re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert set(links) == sections and len(links) == len(sections) >= 38


def test_the_make_targets_in_the_documents_exist():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    named = set()
    for document in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        named |= set(re.findall(r"(?:^ {4}|`|^)make ([a-z]+)", (ROOT / document).read_text(), re.MULTILINE))
    assert {"demo", "test", "check", "docs"} <= named <= set(targets)


def test_the_description_is_what_the_readme_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all("/" in url for url in project.get("urls", {}).values())
    assert project["readme"] == "README.md" and "nuclei" in project["description"]


def test_every_loss_is_in_the_table_of_its_family():
    page = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    rows = dict(line.strip("| ").split(" | ") for line in page.splitlines() if "| `" in line)
    for entry in losses.catalogue():
        assert f"`{entry.name}`" in rows[entry.kind]
