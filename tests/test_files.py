import json
import stat

import numpy as np
import pytest

from medfmc_hf.files import atomic_path, write_json


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
