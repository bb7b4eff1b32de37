"""The record of a run: what it was and what came of it, in `run.json`."""

import dataclasses
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from ..errors import MedfmcError
from ..files import sha256_of, write_json
from ..subsets import Subset, subset_of
from .config import TRAIN_FREE, RunConfig
from .identity import SCHEMA

READABLE = (1, SCHEMA)
SHARED_STAGES = ("start", "data", "features", "frozen blocks")  # of a run's time: what other runs of a process share, or find on disk


@dataclass
class RunRecord:
    """What a run was and what came of it: the content of `run.json`.

    Attributes:
        id: see `identity`.
        status: `finished` or `failed`.
        config: the `RunConfig`, as JSON values.
        data: `config` (name), `fingerprint` (of rows and images), `test_sha256` (of those of the test split), `images_sha256` (of all
            images of the subset in the build), `protocol` in words, `rows` and `patients` per split, and of the build `notes`, `invented`,
            `incomplete`, `max_side`, `grey_range` and, of one on the Hub, `repo_id` and `revision` (`medfmc_hf.data.loading.build_facts`).
        backbone: `name` (id on the Hub, or absolute path of a folder), `revision` (commit on the Hub, else None), `fingerprint` (what
            counts in the identity: the commit, or a hash of a folder's weights, config and image processor), `sha256` (of config and
            weights), `architecture`, `image_size`, `pool` (see `medfmc_hf.models.backbones.Origin`).
        adaptation: key of the adaptation that it is of, see `medfmc_hf.evaluation.experiments`; empty in older and in failed records.
        changed: options that are not as the recipe has them, with their values.
        scores: per split (`test`, and `validation` where it was scored), the dict that `medfm_score` returns; all fractions.
        history: one dict per epoch: `epoch`, `loss`, `learning_rate`, and `validation` where it was scored.
        cost: `trainable_parameters`, `total_parameters`, `adapter_bytes`, `peak_memory_bytes`, `device`, `threads`, `processes`,
            `precision`, `compiled`, `grouped` (how many runs were trained in one pass, where they were) and `seconds`
            (`start`, `data`, `train`, `validation`, `test`, `total`).
        versions: of the libraries that took part.
        files: SHA-256 of every file the run wrote besides its record and card, by its path below the folder; empty in older records.
        error: what went wrong, where status is `failed`.
        finished_at: UTC, ISO 8601.
        schema: version of this layout and of the identity, see `medfmc_hf.runs.identity`.
    """

    id: str
    status: Literal["finished", "failed"]
    config: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    adaptation: str = ""
    changed: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    finished_at: str = ""
    schema: int = SCHEMA

    @property
    def run_config(self) -> RunConfig:
        """The config, with the precision that was used where an old record left it to a probe."""
        config = RunConfig.from_record(self.config)
        return replace(config, dtype=self.cost["precision"]) if self.config.get("dtype") == "auto" and "precision" in self.cost else config

    @property
    def own_seconds(self) -> float | None:
        """Seconds of training and testing alone, without loading, decoding and cached features: alike for single runs and grids."""
        seconds = self.cost.get("seconds") or {}
        return None if "total" not in seconds else max(0.0, seconds["total"] - sum(seconds.get(name, 0.0) for name in SHARED_STAGES))

    @property
    def trained_parameters(self) -> int | None:
        """How many numbers were trained or fitted; None where older records of train-free heads count the whole backbone."""
        trained, total = self.cost.get("trainable_parameters"), self.cost.get("total_parameters")
        return None if self.config["method"] in TRAIN_FREE and trained == total else trained

    @property
    def subset(self) -> Subset:
        return subset_of(self.config["subset"])

    def save(self, folder: str | os.PathLike) -> Path:
        """Write `run.json` into the run's folder, atomically. Returns its path."""
        path = Path(folder) / "run.json"
        write_json(path, dataclasses.asdict(self))
        return path

    def check_file(self, folder: str | os.PathLike, name: str) -> bool:
        """Whether a file of the run is the one that this record speaks of; False where the record is from before records held hashes.

        Args:
            folder: of the run.
            name: path of the file below it.

        Raises:
            MedfmcError: it is another file, or a damaged one.
        """
        if name not in self.files:
            return False
        path = Path(folder) / name
        if not path.is_file() or sha256_of(path) != self.files[name]:
            raise MedfmcError(
                f"{path} is not the file that this run wrote: its SHA-256 is not the one in run.json. It was changed, damaged, or copied "
                "from another run; take it from a backup, or move the run's folder away and run the adaptation again."
            )
        return True

    @classmethod
    def load(cls, path: str | os.PathLike) -> "RunRecord":
        """Read a record from `run.json` or from the folder that holds it.

        Raises:
            MedfmcError: there is none, or it is not a record of a layout this version knows.
        """
        path = record_path(Path(path))
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise MedfmcError(f"{path.parent} is not a finished run: it has no run.json.") from None
        except OSError as error:
            raise MedfmcError(f"{path} cannot be read ({error.strerror or error}); expected the record of a run.") from None
        except ValueError as error:  # not JSON, or not UTF-8
            raise MedfmcError(f"{path} is not JSON ({error}); it is damaged, or was not written by medfmc_hf.") from None
        if not isinstance(values, dict) or values.get("schema") not in READABLE:
            found = values.get("schema") if isinstance(values, dict) else type(values).__name__
            raise MedfmcError(f"{path} has record schema {found!r}; this version reads {' and '.join(map(str, READABLE))}.")
        try:
            record = cls(**values)
            kinds = {f.name: type(getattr(record, f.name)) for f in dataclasses.fields(cls) if isinstance(f.default_factory, type)}
            wrong = next((name for name, kind in kinds.items() if kind not in (dict, list)), None)
            if wrong or record.status not in get_args(get_type_hints(cls)["status"]):
                raise TypeError(f"{wrong or 'status'} is {getattr(record, wrong or 'status')!r}")
            _ = record.run_config
            for split, scores in record.scores.items():
                for name in ("accuracy", "map", "auc", "score"):
                    if not isinstance(scores.get(name), (int, float, type(None))):
                        raise TypeError(f"the score {name} of {split} is {scores[name]!r}")
        except (TypeError, AttributeError, MedfmcError) as error:
            raise MedfmcError(f"{path} is not a run record that this version reads: {str(error).rstrip('.')}.") from None
        return record


def hashes_of(folder: str | os.PathLike) -> dict[str, str]:
    """SHA-256 (hex) of every file in a run's folder, by its path below it; the record itself and model cards are not among them."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", "README.md"))
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def record_path(path: Path) -> Path:
    """`run.json` of a run's folder, or the path itself."""
    return path / "run.json" if path.is_dir() else path
