"""A statistic of an experiment with its two uncertainties, which are kept apart everywhere. Every surface prints these.

The *test* interval says what other patients would have given, with the trained models as they are: it is the jackknife's over patients. The
*seed* interval says what other support sets would have given: it comes from the spread over seeds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from ..words import is_defined
from .statistics import over_seeds

LEVEL = 0.95

Ends = tuple[float, float]


T = TypeVar("T")
K = TypeVar("K")
R = TypeVar("R", bound="Resampled")


class Resampled(Protocol):
    """A `Jackknife` or a `Bootstrap`."""

    @property
    def point(self) -> Mapping[str, float]: ...

    @property
    def patients(self) -> int: ...

    @property
    def patient_ids(self) -> np.ndarray: ...

    def interval(self, name: str, level: float = LEVEL) -> Ends: ...

    @classmethod
    def mean_of(cls: type[R], each: Sequence[R], /) -> R: ...


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
        resampled: of each run; the test interval needs all of those that define the statistic, on the same patients.
        level: coverage.
    """
    defined = [(float(value), seed, own) for value, seed, own in zip(values, seeds, resampled) if is_defined(value)]
    of_seed = by_key((value for value, _, _ in defined), (seed for _, seed, _ in defined))
    each = tuple(float(np.mean(of_seed[seed])) if seed in of_seed else None for seed in dict.fromkeys(seeds))
    if not defined:
        return Estimate(each, None, None, 0, 0, None, None, None, None)
    spread = over_seeds(list(of_seed.values()), level, inside=(0.0, 1.0))
    found = [own for *_, own in defined if own is not None]
    test_interval = None
    same_patients = all(np.array_equal(own.patient_ids, found[0].patient_ids) for own in found)
    if found and len(found) == len(defined) and same_patients and all(name in own.point for own in found):
        test_interval = _both(*mean_over_seeds(found, [seed for _, seed, _ in defined]).interval(name, level))
    return Estimate(
        values=each,
        mean=spread.mean,
        sd=_defined(spread.sd),
        seeds=len(spread.values),
        runs=len(defined),
        split_sd=_defined(spread.split_sd),
        training_sd=_defined(spread.training_sd),
        seed_interval=_both(spread.low, spread.high),
        test_interval=test_interval,
    )


def by_key(things: Iterable[T], keys: Iterable[K]) -> dict[K, list[T]]:
    """The things of each key, such as of each seed; the keys in the order in which they come first."""
    found: dict[K, list[T]] = {}
    for thing, key in zip(things, keys):
        found.setdefault(key, []).append(thing)
    return found


def mean_over_seeds(resampled: Sequence[R], seeds: Sequence[int]) -> R:
    """The mean over seeds of the means over their training seeds.

    Raises:
        MedfmcError: they are of different patients.
    """
    mean_of = type(resampled[0]).mean_of
    return mean_of([mean_of(own) for own in by_key(resampled, seeds).values()])


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _both(low: float, high: float) -> Ends | None:
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None
