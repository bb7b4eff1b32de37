"""A statistic of an experiment with its two uncertainties, which are kept apart everywhere. Every surface prints these.

The *test* interval says what other patients would have given, with the trained models as they are: it is the jackknife's over patients. The
*seed* interval says what other support sets would have given: it comes from the spread over seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from . import bootstrap, jackknife
from .statistics import over_seeds

LEVEL = 0.95

Ends = tuple[float, float]


class Resampled(Protocol):
    """A `Jackknife` or a `Bootstrap`."""

    point: dict[str, float]
    patients: int

    def interval(self, name: str, level: float = LEVEL) -> Ends: ...


@dataclass(frozen=True)
class Estimate:
    """A statistic over the seeds of an experiment, in fractions; None is undefined.

    Attributes:
        values: of each seed, in their order, the mean over its training seeds.
        mean: over seeds.
        sd: standard deviation over seeds; None for one seed.
        seeds: how many define it.
        runs: how many runs these are.
        split_sd: where seeds were trained several times, the part of `sd` that comes from the split; else None.
        training_sd: and the standard deviation over training seeds of one split.
        seed_interval: what other support sets would give: Student's t interval of the mean over seeds, inside the range of the statistic.
        test_interval: what other test patients would give, of the mean of these very runs.
    """

    values: tuple[float | None, ...]
    mean: float | None
    sd: float | None
    seeds: int
    runs: int
    split_sd: float | None
    training_sd: float | None
    seed_interval: Ends | None
    test_interval: Ends | None


def estimate(
    name: str, values: Sequence[float | None], seeds: Sequence[int], resampled: Sequence[Resampled | None], level: float = LEVEL
) -> Estimate:
    """A statistic over the runs of an experiment.

    Args:
        name: of the statistic, as `WeightedScore` names it.
        values: of each run, in fractions; None or NaN where undefined.
        seeds: of each run's split.
        resampled: of each run; the test interval needs all of those that define the statistic.
        level: coverage.
    """
    defined = [(float(v), seed, own) for v, seed, own in zip(values, seeds, resampled) if v is not None and math.isfinite(v)]
    by_seed: dict[int, list[float]] = {seed: [] for seed in seeds}
    for value, seed, _ in defined:
        by_seed[seed].append(value)
    each = tuple(float(np.mean(own)) if own else None for own in by_seed.values())
    if not defined:
        return Estimate(each, None, None, 0, 0, None, None, None, None)
    spread = over_seeds([own for own in by_seed.values() if own], level, inside=(0.0, 1.0))
    mean = mean_over_seeds([own for *_, own in defined], [seed for _, seed, _ in defined])
    return Estimate(
        values=each,
        mean=spread.mean,
        sd=_defined(spread.sd),
        seeds=len(spread.values),
        runs=len(defined),
        split_sd=_defined(spread.split_sd),
        training_sd=_defined(spread.training_sd),
        seed_interval=_both(spread.low, spread.high),
        test_interval=_both(*mean.interval(name, level)) if mean is not None and name in mean.point else None,
    )


def mean_over_seeds(resampled: Sequence[Resampled | None], seeds: Sequence[int]) -> Resampled | None:
    """The mean over seeds of the means over their training seeds; None where one is not at hand or they are of different patients."""
    if None in resampled or len({own.patients for own in resampled}) != 1:
        return None
    mean_of = bootstrap.mean_of if isinstance(resampled[0], bootstrap.Bootstrap) else jackknife.mean_of
    return mean_of([mean_of([own for own, other in zip(resampled, seeds) if other == seed]) for seed in dict.fromkeys(seeds)])


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _both(low: float, high: float) -> Ends | None:
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None
