"""The run: what determines it, its identity, its record and its predictions.

A run is one adaptation of one backbone to one dataset config. Its folder (`run_folders.py`) holds `run.json` (the record),
`predictions.parquet` (every scored row) and `adapter/` (weights and model card). Everything that reports, compares or publishes reads these
files and nothing else.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from .errors import MedfmcError
from .files import atomic_path, sha256_of, write_json
from .subsets import ConfigName, Subset, subset_of

SCHEMA = 1


@dataclass(frozen=True)
class RunConfig:
    """All that a person chooses about a run. A YAML recipe holds these names; unset ones keep these defaults.

    Attributes:
        subset: subset key.
        shots: 1, 5 or 10 patients per class; None for the whole pool.
        seed: which draw of the support set (0..4); it also seeds initialisation, order and augmentation.
        protocol: which lists: `clean`, `official` (the challenge's lists as they are) or `transfer` (train_20 / val_20).
        model: Hub id or local folder of the backbone.
        revision: branch, tag or commit of the backbone on the Hub.
        method: adaptation method by name, as `medfmc_hf.models.adapt.METHODS` lists them.
        method_options: options of the method, such as `{"r": 8}`.
        image_size: side of the square the backbone sees, in pixels; None for the backbone's own.
        epochs: passes over the support set.
        batch_size: pictures per optimiser step, over all processes.
        learning_rate: peak learning rate.
        weight_decay: decoupled weight decay of AdamW, or L2 of SGD.
        optimizer: `adamw` or `sgd`.
        schedule: `cosine`, `linear` or `constant` over the whole run, times the warm-up.
        final_lr_fraction: learning rate at the end of `cosine` and `linear`, as a fraction of the peak.
        warmup_epochs: epochs over which a linear ramp multiplies the schedule, as mmcv does; fractions are allowed.
        gradient_clip: largest gradient norm; 0 for no clipping.
        augmentation: `crop-flip` (random resized crop and horizontal flip), `fixed-views` (four such views of each picture, the same
            in every run) or `none`.
        loss: `auto` (cross-entropy, or binary cross-entropy for multi-label) or one of `medfmc_hf.models.losses.LOSSES`.
        sampling: `uniform`, or `balanced` to draw rows inversely to how frequent their rarest class is.
        select: `last` (fixed epochs) or `best` (the epoch with the best validation score).
        dtype: `float32`, `bfloat16` (autocast) or `auto` (the faster of the two on this device, by a probe).
        compile: `off`, `on` (the blocks run through torch.compile) or `auto` (on where it pays on this device, by a probe).
        predict_challenge: also predict the pictures of the subset's `-challenge` config, for a submission.
    """

    subset: str
    shots: int | None = 5
    seed: int = 0
    protocol: Literal["clean", "official", "transfer"] = "clean"
    model: str = "google/vit-base-patch16-224-in21k"
    revision: str | None = None
    method: str = "lora"
    method_options: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    epochs: int = 20
    batch_size: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final_lr_fraction: float = 0.0
    warmup_epochs: float = 1.0
    gradient_clip: float = 1.0
    augmentation: Literal["crop-flip", "fixed-views", "none"] = "crop-flip"
    loss: str = "auto"
    sampling: Literal["uniform", "balanced"] = "uniform"
    select: Literal["last", "best"] = "last"
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    compile: Literal["off", "on", "auto"] = "off"
    predict_challenge: bool = False

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in ("protocol", "optimizer", "schedule", "augmentation", "sampling", "select", "dtype", "compile"):
            allowed = get_args(hints[name])
            if getattr(self, name) not in allowed:
                raise MedfmcError(f"{name} is one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        for name in ("epochs", "batch_size", "learning_rate", "weight_decay", "final_lr_fraction", "warmup_epochs", "gradient_clip"):
            value, least = getattr(self, name), 1 if name == "batch_size" else 0
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
                raise MedfmcError(f"{name} is a number of at least {least}; got {value!r}.")
        for name in ("epochs", "batch_size"):
            if not isinstance(getattr(self, name), int):
                raise MedfmcError(f"{name} is a whole number; got {getattr(self, name)!r}.")
        _ = self.dataset_config  # says what is wrong with subset, shots and seed

    @property
    def dataset_config(self) -> ConfigName:
        """The dataset config the run trains and tests on."""
        if self.protocol == "transfer":
            return ConfigName(self.subset, variant="transfer")
        return ConfigName(self.subset, self.shots, None if self.shots is None else self.seed, self.protocol)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """A config from the keys of a YAML file or a record.

        Raises:
            MedfmcError: a key is unknown; the message lists the known ones.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise MedfmcError(f"unknown option {', '.join(unknown)}; a run knows {', '.join(known)}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The config as plain JSON values."""
        return dataclasses.asdict(self) | {"method_options": dict(self.method_options)}


def identity(config: RunConfig, data_fingerprint: str, backbone_fingerprint: str) -> str:
    """What makes two runs the same: 16 hex digits of a SHA-256 over everything that determines the result.

    Args:
        config: the run's config. The name under which the backbone was found does not count, its content does.
        data_fingerprint: hash of the rows of the dataset config.
        backbone_fingerprint: hash of the backbone's config and weights, or its commit on the Hub.
    """
    determines = config.to_dict() | {"schema": SCHEMA, "data": data_fingerprint, "backbone": backbone_fingerprint}
    del determines["model"], determines["revision"]
    return hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class RunRecord:
    """What a run was and what came of it: the content of `run.json`.

    Attributes:
        id: see `identity`.
        status: `finished` or `failed`.
        config: the `RunConfig`, as JSON values.
        data: `config` (name), `fingerprint`, `protocol` in words, `rows` and `patients` per split, and of the build `notes`, `invented`,
            `incomplete` and `max_side` (`medfmc_hf.data.loading.build_facts`).
        backbone: `name` (id on the Hub, or absolute path of a folder), `revision` (commit on the Hub, else None), `fingerprint` (what
            counts in the identity: the commit, or the hash of a folder), `sha256` (of config and weights), `architecture`, `image_size`.
        scores: per split (`test`, and `validation` where it was scored), the dict that `medfm_score` returns; all fractions.
        history: one dict per epoch: `epoch`, `loss`, `learning_rate`, and `validation` where it was scored.
        cost: `trainable_parameters`, `total_parameters`, `adapter_bytes`, `peak_memory_bytes`, `device`, `threads`, `processes`,
            `precision`, `compiled`, `grouped` (how many runs were trained in one pass, where they were) and `seconds`
            (`start`, `data`, `train`, `validation`, `test`, `total`).
        versions: of the libraries that took part.
        files: SHA-256 of every file the run wrote besides its record and card, by its path below the folder; empty in older records.
        error: what went wrong, where status is `failed`.
        finished_at: UTC, ISO 8601.
        schema: version of this layout.
    """

    id: str
    status: Literal["finished", "failed"]
    config: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
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
        return RunConfig.from_dict(self.config)

    @property
    def subset(self) -> Subset:
        return subset_of(self.config["subset"])

    def save(self, folder: str | os.PathLike) -> Path:
        """Write `run.json` into the run's folder, atomically. Returns its path."""
        path = Path(folder) / "run.json"
        write_json(path, finite(dataclasses.asdict(self)))
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
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            found = values.get("schema") if isinstance(values, dict) else type(values).__name__
            raise MedfmcError(f"{path} has record schema {found!r}; this version reads {SCHEMA}.")
        try:
            record = cls(**values)
            kinds = {f.name: type(getattr(record, f.name)) for f in dataclasses.fields(cls) if isinstance(f.default_factory, type)}
            wrong = next((name for name, kind in kinds.items() if kind not in (dict, list)), None)
            if wrong or record.status not in get_args(get_type_hints(cls)["status"]):
                raise TypeError(f"{wrong or 'status'} is {getattr(record, wrong or 'status')!r}")
            _ = record.run_config
            for split, scores in record.scores.items():
                wrong = [key for key in ("accuracy", "map", "auc", "score") if not isinstance(scores.get(key), (int, float, type(None)))]
                if wrong:
                    raise TypeError(f"the score {wrong[0]} of {split} is {scores[wrong[0]]!r}")
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


def finite(value: Any) -> Any:
    """JSON has no NaN: an undefined number becomes null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Predictions:
    """The scored rows of one split.

    Attributes:
        image_ids: n names.
        patient_ids: n ids; rows with the same id are not independent.
        targets: integers, (n,) class indices or (n, classes) multi-hot; -1 where the label is not public.
        logits: float32, (n, classes). Probabilities are their softmax (single-label) or sigmoid (multi-label).
    """

    image_ids: np.ndarray
    patient_ids: np.ndarray
    targets: np.ndarray
    logits: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """float64, (n, classes), in [0, 1]: what is scored and submitted."""
        return probabilities_of(self.logits, multilabel=self.targets.ndim == 2)


def probabilities_of(logits: np.ndarray, *, multilabel: bool) -> np.ndarray:
    """Sigmoid (multi-label) or softmax (single-label) of logits of shape (n, classes), in float64."""
    logits = np.asarray(logits, np.float64)
    if multilabel:
        return 0.5 * (1 + np.tanh(0.5 * logits))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def save_predictions(folder: str | os.PathLike, splits: Mapping[str, Predictions]) -> Path:
    """Write `predictions.parquet`: one row a picture, columns split, image_id, patient_id, target, logits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = [
        pa.table(
            {
                "split": pa.array([split] * len(p.image_ids), pa.string()),
                "image_id": pa.array(list(map(str, p.image_ids)), pa.string()),
                "patient_id": pa.array(list(map(str, p.patient_ids)), pa.string()),
                "target": pa.array(np.asarray(p.targets).reshape(len(p.image_ids), -1).tolist(), pa.list_(pa.int8())),
                "logits": pa.array(list(np.asarray(p.logits, np.float32)), pa.list_(pa.float32())),
            }
        )
        for split, p in splits.items()
    ]
    path = Path(folder) / "predictions.parquet"
    with atomic_path(path) as temporary:
        pq.write_table(pa.concat_tables(parts), temporary, compression="zstd")
    return path


def load_predictions(folder: str | os.PathLike, split: str = "test") -> Predictions:
    """Read the rows of one split of a run.

    Raises:
        MedfmcError: the run has no predictions, or none of that split.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = Path(folder) / "predictions.parquet"
    if not path.is_file():
        raise MedfmcError(f"{folder} has no predictions.parquet; run the adaptation again to make it.")
    record = RunRecord.load(folder)
    record.check_file(folder, path.name)
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise MedfmcError(f"{path} cannot be read ({str(error).splitlines()[0]}); it is damaged: run the adaptation again.") from None
    rows = table.filter(pc.equal(table["split"], split))
    if rows.num_rows == 0:
        known = ", ".join(sorted(set(table["split"].to_pylist())))
        raise MedfmcError(f"{path} has no rows of split {split!r}; it has {known}.")
    targets = np.array(rows["target"].to_pylist(), dtype=np.int64)
    return Predictions(
        image_ids=np.array(rows["image_id"].to_pylist()),
        patient_ids=np.array(rows["patient_id"].to_pylist()),
        targets=targets[:, 0] if record.subset.task == "single-label" else targets,
        logits=np.array(rows["logits"].to_pylist(), dtype=np.float32),
    )
