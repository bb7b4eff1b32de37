"""Publishes `medfm_score` as a Space, from which `evaluate.load("ORG/medfm_score")` loads it on a machine without this package."""

from ..errors import MedfmcError
from ..metric import NAME, sources
from .repository import Upload, commit, open_repository


def push_metric(repo_id: str, *, public: bool = False, overwrite: bool = False) -> str:
    """Publish the metric. Returns the commit's page.

    Args:
        repo_id: `ORG/medfm_score`.
        public: whether a new Space is public.
        overwrite: write into a Space that holds something else.

    Raises:
        MedfmcError: the name does not do, or the Hub did not take it.
    """
    return commit(open_repository(metric_upload(repo_id, public=public, overwrite=overwrite)))


def metric_upload(repo_id: str, *, public: bool = False, overwrite: bool = False) -> Upload:
    """The files of the Space, without touching the network. The arguments are those of `push_metric`."""
    if repo_id.rpartition("/")[2] != NAME:
        raise MedfmcError(f"evaluate looks for a script of the Space's own name, so give --repo-id ORG/{NAME}; got {repo_id!r}.")
    files = {name: path for name, path in sources().items()}
    return Upload(repo_id, "space", files, f"Add {NAME}", f"{NAME}.py", ("*.py",), public, overwrite)
