"""The scored rows of a run: their names, labels and logits, and the file that holds them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import MedfmcError
from ..files import atomic_path
from .record import RunRecord


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
    """Write `predictions.parquet`: one row an image, columns split, image_id, patient_id, target, logits."""
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
