import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The pixel cache of all sweeps of a file that need no cache of their own."""
    return tmp_path_factory.mktemp("cache")
