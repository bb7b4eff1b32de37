"""Publishes `medfm_score` as a Space, so that `evaluate.load("ORG/medfm_score")` works on a machine without this package."""

from dataclasses import dataclass

from ..errors import MedfmcError
from ..metric import NAME, sources
from .repository import Upload, check_repo_id, commit, look, open_repository


@dataclass(frozen=True)
class MetricPush:
    """One push of the metric's Space. Nothing in the Space is removed.

    Attributes:
        repo_id: `ORG/medfm_score`.
        public: whether a new Space is public.
        overwrite: whether to write into a Space that holds something else.
    """

    repo_id: str
    public: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id)
        if self.repo_id.rpartition("/")[2] != NAME:
            raise MedfmcError(f"evaluate looks for a script with the Space's name, so give --repo-id ORG/{NAME}; got {self.repo_id!r}.")

    def preview(self, *, offline: bool = False) -> Upload:
        """List what would be sent, without sending it. With `offline`, the Hub is not contacted."""
        upload = Upload(self.repo_id, "space", dict(sources()), f"Add {NAME}", (f"{NAME}.py",), [], self.public, self.overwrite)
        if not offline:
            look(upload)
        return upload

    def __call__(self) -> str:
        """Publish. Returns the commit's URL.

        Raises:
            MedfmcError: the Hub rejected the push.
        """
        return commit(open_repository(self.preview(offline=True)))
