"""Fixtures of the tests that talk to a Hub on loopback: the server, the real client of this process pointed at it, and a backbone.

A room takes them by importing them into its conftest.py.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, serve
from patience import PATIENCE


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as running:
        yield running


@pytest.fixture
def client(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The Hub, with huggingface_hub of this very process talking to it and never waiting before it tries again."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    values = {"ENDPOINT": hub.url, "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}"}
    values |= {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_HOME": str(tmp_path / "home")}
    values |= {"HF_HUB_ETAG_TIMEOUT": PATIENCE, "HF_HUB_DOWNLOAD_TIMEOUT": PATIENCE}
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    close_session()
    yield hub
    close_session()


@pytest.fixture
def cache(client: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """The Hub, and an empty cache for the client of this process."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return client


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medfmc_hf.quickstart import make_backbone

    return make_backbone(tmp_path_factory.mktemp("models") / "backbone")
