"""A Hub on loopback, and small things to publish."""

from pathlib import Path

import pytest
from hub_fixtures import backbone, cache, client, hub  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linked build of the invented retino, the subset with the fewest configs."""
    from medfmc_hf.data.build import build
    from medfmc_hf.data.sample import make_sample

    root = tmp_path_factory.mktemp("data")
    make_sample(root / "download")
    return build([root / "download"], root / "medfmc", subsets=["retino"]).folder
