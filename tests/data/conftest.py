"""What the tests of this room share."""

from pathlib import Path

import datasets
import pytest
from trees import figshare

from medfmc_hf.data.build import build

datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """A folder that holds a `download` of all subsets and its build, `medfmc`. Not to be changed."""
    root = tmp_path_factory.mktemp("whole")
    build([figshare(root / "download")], root / "medfmc")
    return root
