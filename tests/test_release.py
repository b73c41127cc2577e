"""What a release is made of says the same everywhere, and its wheel is for every system."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Names of packages that conda-forge calls otherwise."""


def field(path, name):
    return re.search(rf'^ *{name}: "?([^"\n]+?)"?$', (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)[1]


def test_the_version_is_the_same_everywhere():
    for path in ("CITATION.cff", "packaging/conda/recipe.yaml"):
        assert field(path, "version") == PROJECT["version"], path
    assert field("CITATION.cff", "license") == field("packaging/conda/recipe.yaml", "license") == PROJECT["license"]


def test_the_recipe_needs_what_the_project_needs():
    text = (ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    run = text[text.index("  run:\n") : text.index("\ntests:")]
    found = dict(re.findall(r"- ([a-z0-9-]+) (>=[^\n]+)", run))
    wanted = {}
    for one in PROJECT["dependencies"]:
        name, least = re.fullmatch(r"([a-z0-9-]+)(>=.+)", one).groups()
        wanted[CONDA.get(name, name)] = least
    assert found.pop("python") == ">=${{ python_min }}" and found == wanted
    assert PROJECT["requires-python"] == f">={field('packaging/conda/recipe.yaml', 'python_min')}"
    [(name, call)] = PROJECT["scripts"].items()
    assert f"- {name} = {call}\n" in text


def test_the_checklist_names_what_is_there():
    text = (ROOT / "docs" / "releasing.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"`make ([a-z-]+)`", text)
    assert targets and all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in targets)
    files = re.findall(r"`([\w./-]+\.(?:py|toml|cff|yaml|md))`", text)
    assert files and all((ROOT / name).exists() for name in files)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the wheel is built from a clone")
def test_the_wheel_is_for_every_system_and_holds_what_it_needs(tmp_path):
    pytest.importorskip("hatchling", reason="the wheel is built where hatchling is installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.iterdir()
    assert wheel.name == f"nucleate-{PROJECT['version']}-py3-none-any.whl" and wheel.stat().st_size < 12e6
    with zipfile.ZipFile(wheel) as file:
        held = {name.removeprefix("nucleate/") for name in file.namelist()}
    source = ROOT / "src" / "nucleate"
    tracked = subprocess.run(["git", "ls-files", "."], cwd=source, capture_output=True, text=True, check=True)
    assert set(tracked.stdout.split()) <= held
    assert not [name for name in held if name.endswith((".so", ".pyd", ".pyc"))]
