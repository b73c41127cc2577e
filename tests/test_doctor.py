"""What `nucleate doctor` says; nothing that is missing ends it."""

import sys
import webbrowser

from nucleate import doctor
from nucleate.parallel import SingleProcess


def test_what_is_missing_is_said(monkeypatch):
    def no_browser():
        raise webbrowser.Error("none")

    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.delitem(sys.modules, "nucleate.parallel.mpi", raising=False)
    monkeypatch.setattr(webbrowser, "get", no_browser)
    rows = dict(doctor.examine())
    assert rows["MPI"].startswith("none") and "pip install 'nucleate[mpi]'" in rows["MPI"]
    assert rows["browser for nucleate view"].startswith("none")
    assert rows["memory"].endswith("GiB")


def test_a_row_for_each_rank():
    ((name, row),) = doctor.examine_ranks(SingleProcess())
    assert name == "rank 0" and "threads" in row and "torch" in row
