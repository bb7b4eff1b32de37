"""What every test shares: no network but loopback, no user's cache touched, and the annotation files where they are at hand."""

import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_SLOW_MACHINE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", **_SLOW_MACHINE)
settings.register_profile("long", max_examples=2000, **_SLOW_MACHINE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Before any Hugging Face library is imported: they read these once.
_HOME = tempfile.TemporaryDirectory(prefix="medfmc-tests-")
os.environ.update(HF_HOME=_HOME.name, HF_HUB_OFFLINE="1", HF_UPDATE_DOWNLOAD_COUNTS="0", MPLBACKEND="Agg", TOKENIZERS_PARALLELISM="false")
for _name in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN"):
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A test that reaches beyond this machine fails at once."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _not_quiet():
    """A command that was told to be quiet leaves the process so; the next test expects messages."""
    yield
    from medfmc_hf.progress import set_quiet

    set_quiet(False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of MedFMC's real annotation files, which is no part of the project; tests that need it are skipped without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "medfmc"
    if not folder.is_dir():
        pytest.skip("the annotation files of MedFMC are not at hand (../shared/medfmc)")
    return folder


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """The invented MedFMC, as a download."""
    from medfmc_hf.data.sample import make_sample

    return make_sample(tmp_path_factory.mktemp("sample") / "download")


@pytest.fixture(scope="session")
def sample_build(sample, tmp_path_factory) -> Path:
    """A build of the invented MedFMC."""
    from medfmc_hf.data.build import build

    folder = tmp_path_factory.mktemp("build") / "medfmc"
    build([sample], folder)
    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory) -> Path:
    """The quickstart's vision transformer, 64 pixels, as a local folder."""
    from medfmc_hf.quickstart import make_backbone

    return make_backbone(tmp_path_factory.mktemp("backbone") / "tiny-vit")
