"""The command itself: it says where the page is, shows it, and ends with Ctrl-C."""

import signal
import socket
import subprocess
import sys

import httpx
import numpy as np
import pytest

from nucleate.annotating import learning_folder
from nucleate.cli import main
from nucleate.errors import ModelError
from nucleate.web import app as serving


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["view", *map(str, arguments)])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_it_says_where_shows_and_ends_with_an_interrupt(shown, tmp_path):
    (tmp_path / "errors").touch()
    with (
        (tmp_path / "errors").open("r+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "nucleate", "view", str(shown)], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            address = process.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:") and "/?token=" in address
            with httpx.Client(timeout=60, follow_redirects=True) as client:
                assert client.get(address).status_code == 200
                origin = address.partition("/?")[0]
                assert client.get(f"{origin}/api/images").json() == ["squares", "tissue"]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert (tmp_path / "errors").read_text() == ""


def test_only_this_machine_is_listened_to():
    with serving._listening(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_the_browser_is_opened_only_when_asked(shown, monkeypatch):
    opened = []
    monkeypatch.setattr(serving.webbrowser, "open", opened.append)
    monkeypatch.setattr(serving.uvicorn.Server, "run", lambda self, sockets: None)
    said = []
    for browser in (False, True):
        serving.serve(serving.Gallery(shown), browser=browser, announce=said.append)
    assert len(opened) == 1 and opened[0].partition("?")[0] == said[1].partition("?")[0]
    assert opened[0] != said[1]  # as every user of the machine sees with what a program is started


def test_a_port_that_is_taken_is_named(shown, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused(capsys, shown, "--port", port)
    assert said == f"nucleate: Port {port} cannot be used (Address already in use): choose another --port.\n"


def test_a_folder_without_predictions_is_refused(tmp_path, capsys):
    assert refused(capsys, tmp_path).startswith(f"nucleate: {tmp_path} holds no prediction")


def test_a_record_that_cannot_be_used_is_said(tmp_path, predicted, monkeypatch, capsys):
    predicted(tmp_path, "cells", np.ones((9, 9), np.uint8), np.eye(9, dtype=np.int32))
    (tmp_path / "broken.json").write_text("{")
    monkeypatch.setattr(serving.uvicorn.Server, "run", lambda self, sockets: None)
    with pytest.raises(SystemExit) as end:
        main(["view", str(tmp_path)])
    assert not end.value.code
    printed = capsys.readouterr()
    assert "broken.json is not JSON" in printed.err and printed.out.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("name", ["two words", 'it\'s "here"', "-folder", "--port"])
def test_folders_of_any_name_are_shown(tmp_path, predicted, monkeypatch, capsys, name):
    predicted(tmp_path / name, "cells", np.ones((9, 9), np.uint8), np.eye(9, dtype=np.int32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serving.uvicorn.Server, "run", lambda self, sockets: None)
    for arguments in (["--", name], [f"./{name}"]):
        with pytest.raises(SystemExit) as end:
            main(["view", *arguments])
        printed = capsys.readouterr()
        assert not end.value.code and printed.out.startswith("http://127.0.0.1:") and printed.err == ""


def test_true_masks_and_what_is_not_finished_are_said_on_the_command_line(tmp_path, predicted, monkeypatch, capsys):
    predicted(tmp_path, "cells", np.ones((9, 9), np.uint8), np.eye(9, dtype=np.int32))
    (tmp_path / ".slide.work").mkdir()
    assert "none holds no true masks" in refused(capsys, tmp_path, "--truth", tmp_path / "none")
    monkeypatch.setattr(serving.uvicorn.Server, "run", lambda self, sockets: None)
    with pytest.raises(SystemExit):
        main(["view", str(tmp_path)])
    assert "Not finished: slide;" in capsys.readouterr().err


def test_annotate_never_changes_what_belongs_to_the_package(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    with pytest.raises(SystemExit) as end:
        main(["annotate", "fluorescence", str(tmp_path / "images")])
    said = capsys.readouterr().err
    assert end.value.code == 2 and "belongs to the package and is never changed: say with --out" in said
    with pytest.raises(SystemExit) as end:
        main(["annotate", "fluorescence", str(tmp_path / "images"), "--order", "best"])
    assert end.value.code == 2 and "--order is best: give entropy or random" in capsys.readouterr().err


def test_a_copy_is_made_once(tmp_path):
    out = tmp_path / "mine"
    assert learning_folder("fluorescence", out) == out
    written = (out / "model.json").stat().st_mtime_ns
    assert learning_folder("fluorescence", out) == out and (out / "model.json").stat().st_mtime_ns == written
    assert learning_folder(str(out), None) == out
    with pytest.raises(ModelError):
        learning_folder("no such model", tmp_path / "other")
