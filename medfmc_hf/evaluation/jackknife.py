"""How sure a score is: the jackknife over patients, from which every interval and every p of a test set comes.

Images of one patient are not independent, so patients are left out, not images. It draws no random numbers that matter: the same test rows
give the same digits on every surface. `benchmarks/intervals.py` measures how often its intervals hold the true value.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit, stdtr, stdtrit

from ..errors import MedfmcError
from .weighted import WeightedScore

BLOCKS = 1000  # more patients than this are left out in blocks, for time; a block is as good as a patient for a variance
_CHANCE = {"auc": 0.5, "ap": 0.0}


@dataclass(frozen=True)
class Jackknife:
    """The statistics of one run's test rows, and what they are without each patient; or a difference or mean of such.

    Attributes:
        point: the statistics on all rows, by name; see `WeightedScore`.
        left_out: for each an array (n,), without one patient (or block of patients) each. Jackknives of the same patients leave out the
            same ones in the same order, so that they are paired.
        patient_ids: the patients, sorted.
    """

    point: dict[str, float]
    left_out: dict[str, np.ndarray]
    patient_ids: np.ndarray

    @property
    def patients(self) -> int:
        """How many patients there are."""
        return len(self.patient_ids)

    def error(self, name: str) -> float:
        """Standard error over patients; NaN where the statistic is undefined."""
        values = self._values(name)
        return float(np.sqrt((len(values) - 1) * values.var())) if len(values) > 1 and math.isfinite(self.point[name]) else math.nan

    def bias(self, name: str) -> float:
        """By how much the statistic of a sample of patients exceeds that of the population, on average: an mAP with rare classes does."""
        values = self._values(name)
        return float((len(values) - 1) * (values.mean() - self.point[name])) if len(values) > 1 else math.nan

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """The interval of a score over patients, inside (0, 1).

        The score less its bias, on the scale of its log odds (by the delta method), plus and minus the standard error times the quantile of
        Student's t with one degree of freedom less than patients.

        Args:
            name: such as `"score"` or `"auc of tumor"`.
            level: coverage, in (0, 1).

        Returns:
            (low, high); NaN where it is undefined.
        """
        value, error = self.point[name], self.error(name)
        half = self._quantile(level) * error
        if not math.isfinite(half):
            return math.nan, math.nan
        center = min(max(value - self.bias(name), value / 2), (1 + value) / 2)
        if not 0 < center < 1:  # a perfect score, or none at all, has no log odds
            return max(value - half, 0.0), min(value + half, 1.0)
        half /= center * (1 - center)
        return float(expit(logit(center) - half)), float(expit(logit(center) + half))

    def difference(self, name: str, level: float = 0.95) -> "Difference":
        """A difference with its interval and p: its standard error times Student's t. Its bias cancels, and none is taken off."""
        value, error = self.point[name], self.error(name)
        half = self._quantile(level) * error
        if not math.isfinite(half):
            return Difference(value, math.nan, math.nan, math.nan)
        p = (1.0 if value == 0 else 0.0) if error == 0 else float(2 * stdtr(self._freedom, -abs(value) / error))
        return Difference(value, max(value - half, -1.0), min(value + half, 1.0), p)

    @property
    def _freedom(self) -> int:
        return min(self.patients, BLOCKS) - 1

    def _quantile(self, level: float) -> float:
        if not 0 < level < 1:
            raise MedfmcError(f"the level of an interval is between 0 and 1, such as 0.95; got {level}.")
        return float(stdtrit(self._freedom, (1 + level) / 2))

    def _values(self, name: str) -> np.ndarray:
        """What is defined. Of a class whose only patient is left out nothing is known, which is what chance would give."""
        values = self.left_out[name]
        kind, _, of = name.partition(" of ")
        return np.where(np.isnan(values), _CHANCE.get(kind, math.nan), values) if of else values[~np.isnan(values)]

    def __sub__(self, other: "Jackknife") -> "Jackknife":
        """The difference. Both must be of the same patients."""
        return _combine([self, other], lambda values: values[0] - values[1])

    @classmethod
    def mean_of(cls, jackknives: Sequence["Jackknife"]) -> "Jackknife":
        """The mean of several runs on the same test rows. Its interval is over patients, with the runs as they are."""
        return _combine(jackknives, lambda values: np.mean(values, axis=0))


def _combine(jackknives: Sequence[Jackknife], how: Callable[[list], Any]) -> Jackknife:
    first = jackknives[0]
    if any(not np.array_equal(j.patient_ids, first.patient_ids) or j.point.keys() != first.point.keys() for j in jackknives):
        raise MedfmcError("only runs on the same test rows, with the same classes, can be paired.")
    return Jackknife(
        point={name: float(how([j.point[name] for j in jackknives])) for name in first.point},
        left_out={name: how([j.left_out[name] for j in jackknives]) for name in first.left_out},
        patient_ids=first.patient_ids,
    )


@dataclass(frozen=True)
class Difference:
    """The difference of two scores on the same patients, in fractions.

    Attributes:
        value: the difference.
        low: lower end of its interval over patients.
        high: upper end.
        p: two-sided p that it is 0 on other patients; below 1 minus the level where the interval leaves 0 out.
    """

    value: float
    low: float
    high: float
    p: float


def jackknife(targets: Any, scores: Any, patients: Any = None, *, classes: Sequence[str] | None = None) -> Jackknife:
    """Score a test set without each of its patients in turn.

    Args:
        targets: (n,) class indices, (n, classes) multi-hot, or lists of positive classes.
        scores: (n, classes).
        patients: n ids; images of one patient are left out together. None where every image is of another patient.
        classes: class names; None for "0", "1", and so on.

    Raises:
        MedfmcError: the rows cannot be scored, or there are fewer than two patients.
    """
    statistics = WeightedScore(targets, scores, patients, classes)
    patients = len(statistics.patient_ids)
    blocks = min(patients, BLOCKS)
    block_of = np.random.default_rng(0).permutation(patients) % blocks
    left_out = statistics.many(blocks, lambda first, last: (block_of[:, None] != np.arange(first, last)).astype(np.int64))
    return Jackknife(statistics.point(), left_out, statistics.patient_ids)
