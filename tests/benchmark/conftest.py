import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The pixel cache that the sweeps of a test file share."""
    return tmp_path_factory.mktemp("cache")
