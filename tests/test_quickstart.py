import shutil

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
