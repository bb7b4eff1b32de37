"""The libraries are imported with the garbage collector at rest, and it is left as it was."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("state", ["enable", "disable"])
def test_the_collector_is_as_it_was_after_the_libraries_are_imported(state):
    code = f"import gc; gc.{state}(); import medfmc_hf.training.one_run; print(gc.isenabled(), gc.get_freeze_count())"
    came = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert came == [str(state == "enable"), "0"], "what the user's process holds stays the user's"
