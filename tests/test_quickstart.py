import os
import shutil
import subprocess
import sys

import pytest

from medfmc_hf.errors import MedfmcError
from medfmc_hf.quickstart import quickstart, refuse_to_replace


def test_a_build_of_something_else_is_left_alone(sample_build, tmp_path):
    shutil.copytree(sample_build, tmp_path / "medfmc")
    with pytest.raises(MedfmcError, match="--folder NEW"):
        quickstart(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["medfmc"]


def test_a_build_of_the_sample_may_be_replaced(sample, sample_build, tmp_path):
    (tmp_path / "download").symlink_to(sample)
    refuse_to_replace(sample_build, tmp_path)
    refuse_to_replace(tmp_path / "nothing", tmp_path)


OFFLINE = """
import socket, sys

reached = []
def note(*arguments, **options):
    reached.append(arguments)
    raise OSError("no network here")
connect = socket.socket.connect
socket.socket.connect = lambda self, address: connect(self, address) if self.family == socket.AF_UNIX else note(address)
socket.getaddrinfo = note
from medfmc_hf.cli import main
code = main(sys.argv[1:])
assert not reached, reached
sys.exit(code)
"""


def test_it_asks_nobody_for_anything(tmp_path):
    """With a token, as somebody has who logged in, and nothing that tells the libraries to stay offline."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = kept | {"HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_secret", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", OFFLINE, "quickstart", "--folder", str(tmp_path), "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mAP" in done.stdout
