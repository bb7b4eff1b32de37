"""Publishes run records as a data set: what a board or a colleague needs of a sweep, without patient data unless asked."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import MedfmcError
from ..evaluation.experiments import Run
from ..runs import RunRecord
from ..runs.folders import find_runs
from .push_model import files_of, published_record, record_json
from .repository import File, Repository, Upload, check_repo_id, commit, look, open_repository

_CARD = """\
---
license: other
tags:
- medfmc
- results
---

# Run records of medfmc_hf

Each `run.json` below `runs/` is one adaptation: what was run, its scores and its cost. `medfmc report FOLDER` makes a board of a local copy
of this repository.
"""


@dataclass(frozen=True)
class RecordsPush:
    """One push of run records. Nothing in the repository is removed; a record that was pushed before is replaced.

    Attributes:
        roots: run folders, or folders of runs.
        repo_id: `ORG/NAME`.
        predictions: whether to send `predictions.parquet`: image ids, patient ids and labels of the test set.
        adapters: whether to send the files in `adapter/`.
        public: whether a new repository is public.
        overwrite: whether to write into a repository that holds something else.
    """

    roots: Sequence[str | os.PathLike[str]]
    repo_id: str
    predictions: bool = False
    adapters: bool = False
    public: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id)

    def preview(self, *, offline: bool = False) -> Upload:
        """List what would be sent, without sending it. With `offline`, the Hub is not contacted."""
        upload = self._upload()
        if not offline and (found := look(upload)) is not None:
            _leave_card(found)
        return upload

    def __call__(self) -> str:
        """Publish. Returns the commit's URL.

        Raises:
            MedfmcError: there is no run, or the Hub rejected the push.
        """
        repository = open_repository(self._upload())
        _leave_card(repository)
        return commit(repository)

    def _upload(self) -> Upload:
        files: dict[str, File] = {"README.md": _CARD.encode()}
        count = 0
        for folder, record in find_runs(list(self.roots)):
            count += 1
            place = f"runs/{record.data.get('config') or folder.parent.name}/{folder.name}"
            sent = self._sent(folder, record)
            sent["run.json"] = record_json(published_record(record), sent)
            files |= {f"{place}/{name}": file for name, file in sent.items()}
        if not count:
            raise MedfmcError(f"there is no run below {', '.join(map(str, self.roots))}; expected folders with a run.json.")
        marks = ("runs/*/run.json",)
        return Upload(self.repo_id, "dataset", files, f"Add {count} runs", marks, [], self.public, self.overwrite)

    def _sent(self, folder: Path, record: RunRecord) -> dict[str, File]:
        """The files of a run that are sent besides its record, by path below its folder."""
        sent: dict[str, File] = {}
        if self.predictions and (folder / "predictions.parquet").is_file():
            record.check_file(folder, "predictions.parquet")
            sent["predictions.parquet"] = folder / "predictions.parquet"
        if self.adapters and (folder / "adapter").is_dir():
            adapter = files_of(Run(published_record(record), folder))
            sent |= {f"adapter/{name}": file for name, file in adapter.items() if name != "run.json"}
        return sent


def _leave_card(repository: Repository) -> None:
    """Do not replace an existing card, which may have been edited."""
    if "README.md" in repository.paths:
        del repository.upload.files["README.md"]
