import os
import socket
import subprocess
import sys

import pytest
from trees import listing

from medfmc_hf.data.loading import MANIFEST
from medfmc_hf.data.output_folder import replace_folder
from medfmc_hf.errors import MedfmcError


def make(out, text):
    with replace_folder(out) as part:
        (part / MANIFEST).write_text(text)
        (part / "data").mkdir()


def test_a_new_folder_and_its_replacement(tmp_path):
    out = tmp_path / "a" / "medfmc"
    make(out, "one")
    make(out, "two")
    assert (out / MANIFEST).read_text() == "two" and listing(out.parent) == ["medfmc"]


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "medfmc").mkdir()
    make(tmp_path / "medfmc", "one")
    assert (tmp_path / "medfmc" / MANIFEST).is_file()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interruption_leaves_the_old_folder_and_no_debris(tmp_path, error):
    out = tmp_path / "medfmc"
    make(out, "one")
    with pytest.raises(error), replace_folder(out) as part:
        (part / MANIFEST).write_text("two")
        raise error
    assert (out / MANIFEST).read_text() == "one" and listing(tmp_path) == ["medfmc"]


def test_an_interruption_between_the_two_renames_puts_the_old_folder_back(tmp_path, monkeypatch):
    from pathlib import Path

    out, rename = tmp_path / "medfmc", Path.rename
    make(out, "one")

    def interrupted(self, target):
        if ".part-" in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(out, "two")
    assert (out / MANIFEST).read_text() == "one" and listing(tmp_path) == ["medfmc"]


def test_what_is_not_a_build_is_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("me")
    with pytest.raises(MedfmcError, match="is not a build of medfmc"):
        make(tmp_path / "photos", "one")
    (tmp_path / "file").write_text("x")
    with pytest.raises(MedfmcError, match="is a file"):
        make(tmp_path / "file", "one")
    assert listing(tmp_path / "photos") == ["me.jpg"] and (tmp_path / "file").read_text() == "x"


def test_a_symbolic_link_is_followed_not_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "medfmc").symlink_to(tmp_path / "disk")
    make(tmp_path / "medfmc", "one")
    assert (tmp_path / "medfmc").is_symlink() and (tmp_path / "disk" / MANIFEST).is_file()


def test_debris_of_a_killed_build_is_removed_and_of_a_running_one_is_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = tmp_path / f".medfmc.part-{socket.gethostname()}-{ended.pid}-0"
    alive = tmp_path / f".medfmc.part-{socket.gethostname()}-{os.getppid()}-0"
    other = tmp_path / f".medfmc.part-elsewhere-{ended.pid}-0"
    for folder in (dead, alive, other):
        folder.mkdir()
    make(tmp_path / "medfmc", "one")
    assert listing(tmp_path) == sorted(["medfmc", alive.name, other.name])


def test_a_build_killed_between_the_two_renames_is_put_back(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    make(tmp_path / "medfmc", "good")
    (tmp_path / "medfmc").rename(tmp_path / f".medfmc.old-{socket.gethostname()}-{ended.pid}-0")
    with pytest.raises(ZeroDivisionError), replace_folder(tmp_path / "medfmc"):
        raise ZeroDivisionError
    assert (tmp_path / "medfmc" / MANIFEST).read_text() == "good"


def test_a_full_disk_is_said(tmp_path):
    with pytest.raises(MedfmcError, match="No space left on device"), replace_folder(tmp_path / "medfmc"):
        raise OSError(28, "No space left on device")
    assert listing(tmp_path) == []
