"""The results of the board: what the runs of an experiment amount to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.experiments import Experiment
from ..evaluation.intervals import Estimate
from ..evaluation.jackknife import Jackknife
from ..runs import RunRecord
from ..words import is_defined


@dataclass(frozen=True)
class Result:
    """An experiment: the runs of one adaptation on one subset and number of shots.

    Attributes:
        adaptation: key of the `Adaptation`.
        subset: subset key.
        shots: `1`, `5`, `10`, `pool` or `train_20`.
        seeds: of the splits of the runs that finished, each once.
        training_seeds: of these runs, in their order.
        runs: ids of these runs, in the order of their seeds and training seeds.
        test_rows: images of the test set; None where the records do not say.
        test_patients: patients of it.
        metrics: by metric, an `Estimate` in fractions.
        per_class: by class, the mean over seeds of `auc` and `ap` or `recall`, and `positives`; None where undefined.
        cost: `trainable_parameters`, `adapter_bytes`, `peak_memory_bytes`, `seconds`, `own_seconds` (`RunRecord.own_seconds`), all means
            over runs, and `devices`.
    """

    adaptation: str
    subset: str
    shots: str
    seeds: tuple[int, ...]
    training_seeds: tuple[int, ...]
    runs: tuple[str, ...]
    test_rows: int | None
    test_patients: int | None
    metrics: dict[str, Estimate]
    per_class: dict[str, dict[str, float | None]]
    cost: dict[str, Any]


def result_of(experiment: Experiment, jackknives: Mapping[str, Jackknife]) -> Result:
    """The result of an experiment with finished runs.

    Args:
        experiment: its runs.
        jackknives: by id, of the runs whose predictions are good for test intervals.
    """
    records = [run.record for run in experiment.runs]
    resampled = [jackknives.get(record.id) for record in records]
    return Result(
        adaptation=experiment.adaptation,
        subset=experiment.subset.key,
        shots=experiment.shots,
        seeds=tuple(experiment.seeds),
        training_seeds=tuple(run.training_seed for run in experiment.runs),
        runs=tuple(record.id for record in records),
        test_rows=records[0].data.get("rows", {}).get("test"),
        test_patients=records[0].data.get("patients", {}).get("test"),
        metrics={name: experiment.estimate(name, resampled=resampled) for name in (experiment.subset.metric, "auc", "score")},
        per_class=_per_class(experiment),
        cost=_cost(records),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is defined; None where nothing is."""
    defined = [float(value) for value in values if is_defined(value)]
    return float(np.mean(defined)) if defined else None


def _per_class(experiment: Experiment) -> dict[str, dict[str, float | None]]:
    tables = [run.record.scores["test"].get("per_class", {}) for run in experiment.runs]
    names = list(dict.fromkeys(name for table in tables for name in table))
    columns = list(dict.fromkeys(column for table in tables for row in table.values() for column in row))
    means_alone = [None] * len(tables)
    return {name: {column: experiment.estimate(column, name, resampled=means_alone).mean for column in columns} for name in names}


def _cost(records: list[RunRecord]) -> dict[str, Any]:
    cost = {"trainable_parameters": _mean(record.trained_parameters for record in records)}
    cost |= {
        name: _mean(record.cost.get(name) for record in records) for name in ("total_parameters", "adapter_bytes", "peak_memory_bytes")
    }
    seconds = [record.cost.get("seconds") or {} for record in records]
    cost |= {"seconds": _mean(s.get("total") for s in seconds), "train_seconds": _mean(s.get("train") for s in seconds)}
    cost |= {"own_seconds": _mean(record.own_seconds for record in records)}
    return cost | {"devices": sorted({str(record.cost["device"]) for record in records if record.cost.get("device")})}
