"""Every command that is printed works as it is printed: a shell takes it apart, and the program does it."""

import os
import re
import shlex
import subprocess
import textwrap
from pathlib import Path

import pytest
import tifffile
import typer
from tests.ranks import mpirun

from nucleate.cli import app, main
from nucleate.data.augment import AugmentationConfig
from nucleate.data.synthetic import fluorescence, write_folder
from nucleate.networks import store
from nucleate.report.card import card
from nucleate.report.model_files import model_files
from nucleate.training.config import TrainingConfig
from nucleate.training.fit import fit
from nucleate.training.online import OnlineConfig
from nucleate.web.gallery import Gallery

ROOT = Path(__file__).parents[1]
NAMES = ("my model", 'o\'clock "x"', "-model", "$HOME & co", "ümläut;", "fluorescence demo")
SMALL = TrainingConfig(epochs=1, samples=8, batch=4, widths=(8, 8), variation=AugmentationConfig(crop=64))


def words(line):
    """The words that a shell makes of a command."""
    script = 'nucleate() { printf "%s\\0" "$@"; }\n' + line
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


def run(line):
    """Do what a printed command says."""
    name, *arguments = words(line)
    if name == "view":  # it would go on until Ctrl-C
        assert Gallery(Path(arguments[0])).notes == []
        return
    with pytest.raises(SystemExit) as end:
        main([name, *arguments])
    assert not end.value.code, line


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert not end.value.code, printed.err
    return printed.out


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data set, and a model of it."""
    folder = tmp_path_factory.mktemp("data")
    write_folder(folder / "cells", "fluorescence", 2, seed=3, height=96, width=96)
    fit(folder / "cells", folder / "model", SMALL, extra_files=model_files)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_what_predict_names_next_works(trained, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    out = call(capsys, "predict", trained / "model", trained / "cells", "--out", f"./{name}")
    run(re.search(r"Next: (nucleate view .*)$", out, re.MULTILINE)[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_command_of_a_card_works_where_the_model_was_trained(trained, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "IMAGES").symlink_to(trained / "cells" / "images")
    (tmp_path / name).symlink_to(trained / "model")
    text = card(store.read_manifest(Path(name)), Path(name))
    run(re.search(r"^ {4}(nucleate .*)$", text, re.MULTILINE)[1])
    assert list((tmp_path / "DIR").glob("*.csv"))


@pytest.mark.parametrize("name", ["my model", "-model"])
def test_what_train_names_next_works(trained, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nucleate.training.config.TrainingConfig.steps", 2)
    (tmp_path / "-cells").symlink_to(trained / "cells")
    out = call(capsys, "train", "./-cells", "--out", f"./{name}", "--epochs", "1")
    line = re.search(r"Next: (nucleate .*)$", out, re.MULTILINE)[1]
    run(f"{line} --epochs 1" if words(line)[0] == "train" else line)


def test_what_the_demo_names_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nucleate.demo.write_folder", lambda out, style, count, seed: write_folder(
        out, style, 2, seed=seed, height=96, width=96
    ))  # fmt: skip
    out = call(capsys, "demo", "--out", "my demo", "--minutes", "0.05")
    run(re.search(r"Next: (nucleate .*)$", out, re.MULTILINE)[1])
    (tmp_path / "IMAGES").symlink_to(tmp_path / "my demo" / "test" / "images")
    text = (tmp_path / "my demo" / "model" / store.CARD).read_text()
    run(re.search(r"^ {4}(nucleate .*)$", text, re.MULTILINE)[1])


def test_the_commands_of_the_readme_work_in_their_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nucleate.training.config.TrainingConfig.steps", 2)
    write_folder(tmp_path / "cells", "fluorescence", 2, seed=3, height=96, width=96)
    monkeypatch.setattr("nucleate.training.online.OnlineConfig", lambda: OnlineConfig(steps=1))
    write_folder(tmp_path / "test", "fluorescence", 2, seed=5, height=96, width=96)
    (tmp_path / "images").symlink_to(tmp_path / "cells" / "images")
    tifffile.imwrite("slide.svs", fluorescence(seed=1)[0].pixels[..., 0])
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in textwrap.dedent(block).splitlines()]
    assert len(lines) >= 6
    (tmp_path / "slides").symlink_to(tmp_path / "cells" / "images")
    for line in lines:
        if line.startswith("pip "):
            continue  # it is installed
        if line.startswith("mpirun "):
            asked = shlex.split(line, comments=True)
            done = mpirun(2, ["-m", *asked[asked.index("nucleate") :], "--overwrite"])
            assert done.returncode == 0, done.stderr
            continue
        run(line.replace("--out model", "--out model --epochs 1") if " train " in line else line)
    assert (tmp_path / "report.html").exists()


COMMANDS = typer.main.get_command(app).commands
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
SHOWN = [
    pytest.param(found[1], id=f"{page.name}: {found[1][:60]}")
    for page in PAGES
    for found in re.finditer(r"^ *(?:\$ )?(nucleate [a-z].*)$", page.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("line", SHOWN)
def test_every_command_of_the_documentation_is_understood(line):
    name, *arguments = words(line)
    COMMANDS[name].make_context(name, arguments)


def test_every_option_that_is_named_exists():
    options = {option for command in COMMANDS.values() for one in command.params for option in one.opts}
    options |= {"--help", "--version", "--nproc-per-node"}  # the last one is torchrun's
    options |= {"--install-completion", "--show-completion"}  # of all commands together
    # Those of mpirun, srun and pip.
    options |= {"--mpi", "--with-ft", "--bind-to", "--map-by", "--cpus-per-task", "--no-binary"}
    # Those of Cellpose, beside which its page puts what does the same here.
    options |= {"--dir", "--train", "--pretrained_model", "--save_tif", "--diameter", "--chan"}
    options |= {"--flow_threshold", "--cellprob_threshold"}
    # Names of colours in a style sheet begin with two dashes, too; pages name options of benchmarks in their calls.
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py") if path.name != "plots.py"}
    texts |= {page: re.sub(r".*benchmarks/.*", "", page.read_text(encoding="utf-8")) for page in PAGES}
    option = re.compile(r"(?<![\w-])(?<!var\()--[a-z][\w-]*")
    named = {found: path.name for path, text in texts.items() for found in option.findall(text)}
    assert {name: where for name, where in named.items() if name not in options} == {}
