import json
import os
import socket
import stat
import subprocess
import sys

import numpy as np
import pytest

from medfmc_hf.files import atomic_path, names_for_paths, private_sibling, private_siblings, sha256_of, write_json


def test_a_failing_write_leaves_the_old_file_and_no_debris(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_files_can_be_read_by_others(tmp_path):
    write_json(tmp_path / "value.json", [])
    assert (tmp_path / "value.json").stat().st_mode & stat.S_IRGRP


def test_what_is_undefined_becomes_null_and_numpy_becomes_python(tmp_path):
    write_json(tmp_path / "value.json", {"a": float("nan"), "b": [np.float32(0.5), np.int64(2), float("inf")], "c": (np.float64("nan"),)})
    assert json.loads((tmp_path / "value.json").read_text()) == {"a": None, "b": [0.5, 2, None], "c": [None]}


def test_the_digest_is_that_of_the_standard(tmp_path):
    """FIPS 180-2 gives that of `abc` and that of a million letters."""
    (tmp_path / "short").write_bytes(b"abc")
    (tmp_path / "long").write_bytes(b"a" * 1_000_000)
    assert sha256_of(tmp_path / "short") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "long") == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("there is no /home/me/scans/MedFMC, nor /data/x.png", "there is no MedFMC, nor x.png"),
        (r"'C:\Users\me\scans\vit' is gone", "'vit' is gone"),
        ("model=/models/vit/ (a folder)", "model=vit (a folder)"),
        ("org/vit at https://hub.example/org/vit and 3/4 of ./runs/endo", "org/vit at https://hub.example/org/vit and 3/4 of ./runs/endo"),
    ],
)
def test_absolute_paths_leave_the_machine_as_their_last_name(text, says):
    assert names_for_paths(text) == says


def test_siblings_of_processes_that_ended_are_told_from_those_that_run(tmp_path):
    path = tmp_path / "run"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    own = private_sibling(path, "part")
    left = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
    elsewhere = own.with_name(own.name.replace(socket.gethostname(), "other"))
    for folder in (own, left, elsewhere, left.with_name(left.name.replace(".part-", ".old-")), tmp_path / ".run.part-x"):
        folder.mkdir()
    assert private_siblings(path, "part") == [left]
    assert private_sibling(path, "part") != own and own.name.startswith(".run.part-")
    assert private_siblings(tmp_path / "none" / "run", "part") == []
