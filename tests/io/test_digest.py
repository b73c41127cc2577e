"""Digests of files and folders: another byte, another name, another place in the folder is another digest."""

import hashlib
import os
import shutil

import pytest

from nucleate.io.digest import digest_of


def test_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 9000)
    assert digest_of(tmp_path / "a") == hashlib.sha256(bytes(range(256)) * 9000).hexdigest()


@pytest.fixture
def folder(tmp_path):
    for name in ("zarr.json", "0/c/0/0", "0/c/0/1"):
        path = tmp_path / "x.zarr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "x.zarr"


CHANGES = {
    "a byte": lambda folder: (folder / "0/c/0/1").write_text("0/c/0/2"),
    "a file less": lambda folder: (folder / "0/c/0/1").unlink(),
    "a file more": lambda folder: (folder / "0/c/0/2").touch(),
    "another name": lambda folder: (folder / "0/c/0/1").rename(folder / "0/c/0/2"),
    "another place": lambda folder: (folder / "0/c/0/1").rename(folder / "0/c/1"),
    "two exchanged": lambda folder: [
        (folder / "0/c/0/0").write_text("0/c/0/1"),
        (folder / "0/c/0/1").write_text("0/c/0/0"),
    ],
    "a pipe": lambda folder: os.mkfifo(folder / "0/c/0/2"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_folder_is_noticed(folder, change):
    before = digest_of(folder)
    assert digest_of(shutil.copytree(folder, folder.parent / "copy")) == before
    CHANGES[change](folder)
    assert digest_of(folder) != before


def test_links_are_followed_and_loops_end(folder, tmp_path):
    (folder / "0").rename(tmp_path / "elsewhere")
    (folder / "0").symlink_to(tmp_path / "elsewhere")
    before = digest_of(folder)
    (tmp_path / "elsewhere/c/0/1").write_text("changed")
    assert digest_of(folder) != before
    (tmp_path / "elsewhere" / "loop").symlink_to(folder)
    assert len(digest_of(folder)) == 64


def test_what_has_no_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "gone"):
        with pytest.raises(OSError):
            digest_of(path)
