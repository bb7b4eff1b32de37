"""The one number of the MedFM challenge (NeurIPS 2023): the mean of accuracy, mAP and AUC over subsets, shots and seeds.

"The averaged result of all Acc, mAP and AUC": 3 subsets x 3 shots x 2 metrics = 18 numbers in the validation phase, times five
seeds = 90 in the final phase. Source: README of openmedlab/MedFM.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import MedfmcError
from ..runs import RunRecord
from ..runs.provenance import marks
from ..subsets import SEEDS, SHOTS, SUBSETS
from ..words import METRICS

SUBSETS_OF_CHALLENGE = tuple(key for key, subset in SUBSETS.items() if subset.challenge)

Place = tuple[int | None, str, int]  # seed (None in the validation phase, which has one), subset key, shots


@dataclass(frozen=True)
class Aggregate:
    """The challenge's aggregate and what it is made of.

    Attributes:
        values: fractions by (seed, subset, shots, metric); metric is `accuracy`, `map` or `auc`.
        missing: what is not there or not defined, in the challenge's words, such as `exp2 endo 5-shot mAP`.
        expected: 18 or 90.
    """

    values: dict[tuple[int | None, str, int, str], float]
    missing: tuple[str, ...]
    expected: int

    @property
    def mean(self) -> float | None:
        """The aggregate, a fraction; None while something is missing."""
        return None if self.missing else sum(self.values.values()) / self.expected

    @property
    def partial_mean(self) -> float | None:
        """The mean of what is there, which is not comparable with an aggregate; None where nothing is."""
        return sum(self.values.values()) / len(self.values) if self.values else None


def places(seeds: tuple[int | None, ...]) -> list[Place]:
    """Every prediction file of a submission with these seeds, in the order of the challenge's pages."""
    return [(seed, subset, shots) for seed in seeds for subset in SUBSETS_OF_CHALLENGE for shots in SHOTS]


def title(place: Place) -> str:
    """Such as `endo 5-shot` or `exp2 endo 5-shot`."""
    seed, subset, shots = place
    return ("" if seed is None else f"exp{seed + 1} ") + f"{subset} {shots}-shot"


def aggregate(results: Mapping[Place, Mapping[str, Any]]) -> Aggregate:
    """The aggregate of the scores of single test sets.

    Args:
        results: what `medfmc_hf.scoring.score` returned, by place. With one seed (or None) 18 numbers are expected, else 90.

    Raises:
        MedfmcError: a place is none of the challenge's.
    """
    seeds = {seed for seed, _, _ in results if seed is not None}
    expected = places(SEEDS if len(seeds) > 1 else (next(iter(seeds), None),))
    foreign = [place for place in results if place not in expected]
    if foreign:
        raise MedfmcError(f"{title(foreign[0])} is no part of the challenge's aggregate, which is over {', '.join(map(title, expected))}.")
    values, missing = {}, []
    for place in expected:
        for metric in (SUBSETS[place[1]].metric, "auc"):
            value = results.get(place, {}).get(metric)
            if value is None or value != value:
                missing.append(f"{title(place)} {METRICS[metric]}")
            else:
                key = (*place, metric)
                values[key] = float(value)
    return Aggregate(values, tuple(missing), 2 * len(expected))


def results_of_runs(records: list[RunRecord], split: str = "test") -> dict[Place, dict[str, Any]]:
    """The scores that run records hold, by place; records without one are left out.

    Raises:
        MedfmcError: two runs are of the same place, or of images that are not to be pooled.
    """
    results: dict[Place, dict[str, Any]] = {}
    first: dict[Place, RunRecord] = {}
    for record in records:
        place = place_of(record)
        if place is None or split not in record.scores:
            continue
        if place in results:
            seed, subset, shots = place
            raise MedfmcError(
                f"runs {first[place].id} and {record.id} are both of {subset} {shots}-shot, seed {seed}; "
                "an aggregate is of one method: give a folder that holds the runs of one."
            )
        results[place], first[place] = record.scores[split], record
    check_alike(first.values())
    return results


def place_of(record: RunRecord) -> Place | None:
    """Where a run stands in the challenge; None for failed runs, other subsets and other protocols than few-shot."""
    config = record.run_config.dataset_config
    if record.status != "finished" or not record.subset.challenge or config.shots is None:
        return None
    return config.seed, config.subset, config.shots


def check_alike(records: Iterable[RunRecord]) -> None:
    """Raise where runs are of images that are set apart in different ways, such as shrunk ones and whole ones, or of different schemas."""
    records = list(records)
    schemas = len({record.schema for record in records}) > 1
    found = {", ".join([*(marks(record) or ["as published"]), *[f"schema {record.schema}"] * schemas]): record for record in records}
    if len(found) > 1:
        raise MedfmcError(
            f"these runs are not pooled, for their images{' or the schemas of their records' * schemas} differ: "
            + "; ".join(f"{words} (run {record.id})" for words, record in found.items())
            + ". Give a folder that holds the runs of one."
        )
