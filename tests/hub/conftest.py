"""A Hub on loopback, the real client of this process pointed at it, and small things to publish."""

from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, serve


@pytest.fixture
def hub() -> Hub:
    with serve() as running:
        yield running


@pytest.fixture
def client(hub, monkeypatch, tmp_path) -> Hub:
    """The Hub, with huggingface_hub of this very process talking to it and never waiting before it tries again."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    values = {"ENDPOINT": hub.url, "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}"}
    values |= {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_HOME": str(tmp_path / "home")}
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    close_session()
    yield hub
    close_session()


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> Path:
    from medfmc_hf.quickstart import make_backbone

    return make_backbone(tmp_path_factory.mktemp("models") / "backbone")


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> Path:
    """A linked build of the invented retino, the subset with the fewest configs."""
    from medfmc_hf.data.build import build
    from medfmc_hf.data.sample import make_sample

    root = tmp_path_factory.mktemp("data")
    make_sample(root / "download")
    return build([root / "download"], root / "medfmc", subsets=["retino"]).folder
