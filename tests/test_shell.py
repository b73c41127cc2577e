"""What every command can do beside its own work: --quiet, --log, --json, and completion."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from nucleate import cli, shell


@pytest.fixture
def run(capfd):
    def run(*arguments):
        code = 0
        try:
            cli.main([str(one) for one in arguments])
        except SystemExit as end:
            code = end.code or 0
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def labels(tmp_path):
    values = np.zeros((40, 40), np.uint16)
    values[5:15, 5:15], values[20:34, 20:30] = 1, 2
    tifffile.imwrite(tmp_path / "labels.tif", values)
    tifffile.imwrite(tmp_path / "true.tif", values)
    return tmp_path / "labels.tif"


def test_the_summary_is_a_file_or_printed(run, labels, tmp_path):
    code, printed, err = run("evaluate", labels, labels.with_name("true.tif"), "--json", tmp_path / "a.json")
    assert (code, err) == (0, "") and "panoptic quality" in printed and "Wrote" in printed
    written = json.loads((tmp_path / "a.json").read_text())
    code, out, err = run("evaluate", labels, labels.with_name("true.tif"), "--json", "-")
    assert code == 0 and "panoptic quality" in err, "what is said goes to standard error"
    assert json.loads(out) == written and written["scores"]["images"] == 1
    assert (written["kind"], written["command"]) == ("nucleate summary", "evaluate")


def test_quiet_says_nothing_but_what_is_wrong(run, labels, tmp_path):
    assert run("evaluate", labels, labels.with_name("true.tif"), "--quiet") == (0, "", "")
    code, out, err = run("evaluate", labels, labels.with_name("true.tif"), "--quiet", "--json", "-")
    assert (code, err) == (0, "") and json.loads(out)["failed"] == []
    code, out, err = run("evaluate", tmp_path / "none.tif", labels.with_name("true.tif"), "--quiet")
    assert (code, out) == (2, "") and err.startswith("nucleate: ") and err.count("\n") == 1


def test_the_log_holds_all_with_the_time_and_keeps_what_was_there(run, labels, tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("mine\n")
    code, shown, _ = run("evaluate", labels, labels.with_name("true.tif"), "--log", log)
    assert code == 0 and "panoptic quality" in shown
    assert run("evaluate", labels, labels.with_name("true.tif"), "--log", log, "--quiet") == (0, "", "")
    assert run("evaluate", tmp_path / "none.tif", labels.with_name("true.tif"), "--log", log)[0] == 2
    first, *lines = log.read_text().splitlines()
    assert first == "mine" and all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d .", line) for line in lines)
    assert sum("panoptic quality" in line for line in lines) == 2
    assert "none.tif" in lines[-1] and " nucleate: " in lines[-1], "the sentence of an error, too"
    code, _, err = run("evaluate", labels, labels.with_name("true.tif"), "--log", tmp_path / "no" / "log.txt")
    assert code == 2 and "log.txt cannot be written" in err


def test_a_summary_of_some_failures_is_written(run, labels, tmp_path):
    for folder in ("true", "found"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            (tmp_path / folder / f"{name}.tif").write_bytes(labels.read_bytes())
    (tmp_path / "found" / "b.tif").write_bytes(b"II*\0 nothing")
    code, _, err = run("evaluate", tmp_path / "found", tmp_path / "true", "--json", tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert code == 1 and "b.tif" in err and len(found["failed"]) == 1 and len(found["images"]) == 1


def test_a_summary_replaces_no_file_of_a_person(run, labels, tmp_path):
    path = tmp_path / "notes.json"
    path.write_text("mine")
    code, _, err = run("check", tmp_path, "--json", path)
    assert code == 2 and "did not write it" in err and path.read_text() == "mine"


def test_values_become_those_that_json_knows(tmp_path):
    values = {"a": float("nan"), "b": tmp_path, "c": (1, np.float64(0.5)), 3: {"d": None}}
    assert shell._plain(values) == {"a": None, "b": str(tmp_path), "c": [1, 0.5], "3": {"d": None}}


@pytest.mark.parametrize("name", ["losses", "doctor", "info", "curves"])
def test_each_kind_of_command_sums_up(name, run, tmp_path):
    (tmp_path / "run.csv").write_text("\n".join(["epoch,train,valid", *(f"{n},{1 / n},{1 / n}" for n in range(1, 9))]))
    more = {"info": ["fluorescence"], "curves": [tmp_path / "run.csv"]}.get(name, [])
    code, out, _ = run(name, *more, "--json", "-", "--quiet")
    found = json.loads(out)
    assert code == 0 and found["command"] == name
    key = {"losses": "losses", "doctor": "facts", "info": "model", "curves": "runs"}[name]
    assert len(found[key]) > 0


def test_the_shell_completes_commands_and_options():
    def complete(words):
        asked = {"_NUCLEATE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        command = [sys.executable, "-c", "from nucleate.cli import main; main()"]
        return subprocess.run(command, env=os.environ | asked, capture_output=True, text=True).stdout.split()

    assert complete("nucleate pre") == ["pretrain", "predict"]
    assert "--overwrite" in complete("nucleate predict --over")
