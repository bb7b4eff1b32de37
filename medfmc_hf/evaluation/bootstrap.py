"""Bootstrap intervals over patients, for whoever asks `medfmc score --interval` for them; all else is by `jackknife.py`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np

from ..errors import MedfmcError
from .jackknife import jackknife
from .weighted import WeightedScore

Method = Literal["normal", "percentile", "bca"]


@dataclass(frozen=True)
class Bootstrap:
    """Replicates of the statistics of one run, or of the mean of runs on the same test rows.

    Attributes:
        point: the statistics on the test rows themselves, by name; see `WeightedScore`.
        replicates: for each statistic an array (replicates,). Bootstraps of the same patients with the same seed drew the same patients.
        method: of `interval`.
        left_out: for each statistic an array of its values without one patient each, whose skewness BCa needs; else empty.
        patient_ids: the patients that were resampled, sorted.
    """

    point: dict[str, float]
    replicates: dict[str, np.ndarray]
    method: Method
    left_out: dict[str, np.ndarray]
    patient_ids: np.ndarray

    @property
    def patients(self) -> int:
        """How many patients were resampled."""
        return len(self.patient_ids)

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """The interval of one statistic over the patients of the test set; NaN where it is undefined.

        With mean, sd and quantiles of the replicates in which the statistic is defined, and z the normal distribution's quantile:

            normal      point - (mean - point) -+ z((1 + level) / 2) * sd, cut to [0, 1]
            percentile  the quantiles at (1 - level) / 2 and (1 + level) / 2
            bca         the quantiles at what `_bca_tail` makes of these two

        Repeated patients lift the average precision of rare classes in every replicate, so the percentile interval of an mAP lies too high.
        """
        if not 0 < level < 1:
            raise MedfmcError(f"the level of an interval is between 0 and 1, such as 0.95; got {level}.")
        point, replicates = self.point[name], _defined(self.replicates[name])
        if not len(replicates) or math.isnan(point):
            return math.nan, math.nan
        tails = [(1 - level) / 2, (1 + level) / 2]
        if self.method == "normal":
            center, half = 2 * point - replicates.mean(), NormalDist().inv_cdf(tails[1]) * replicates.std()
            return max(float(center - half), 0.0), min(float(center + half), 1.0)
        if self.method == "bca":
            bias, acceleration = _bias(point, replicates), _acceleration(_defined(self.left_out[name]))
            tails = [_bca_tail(tail, bias, acceleration) for tail in tails]
        low, high = np.quantile(replicates, tails)
        return float(low), float(high)

    @classmethod
    def mean_of(cls, bootstraps: Sequence["Bootstrap"]) -> "Bootstrap":
        """The mean of several runs on the same test rows. Its interval is over patients, with the runs as they are."""
        first = bootstraps[0]
        if any(not np.array_equal(b.patient_ids, first.patient_ids) or b.replicates.keys() != first.replicates.keys() for b in bootstraps):
            raise MedfmcError("only runs on the same test rows, with the same classes, can be averaged.")
        return cls(
            point={name: float(np.mean([b.point[name] for b in bootstraps])) for name in first.point},
            replicates={name: np.mean([b.replicates[name] for b in bootstraps], axis=0) for name in first.replicates},
            method=first.method,
            left_out={name: np.mean([b.left_out[name] for b in bootstraps], axis=0) for name in first.left_out},
            patient_ids=first.patient_ids,
        )


def _defined(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _bca_tail(tail: float, bias: float | None, acceleration: float) -> float:
    """Where the bias-corrected and accelerated interval (Efron 1987) takes its quantile in place of `tail`.

    With the normal distribution function Phi and z = bias + Phi^-1(tail) it is Phi(bias + z / (1 - acceleration * z)). Without either
    correction that is `tail` again, as it is where the bias is None.
    """
    if bias is None:
        return tail
    z = bias + NormalDist().inv_cdf(tail)
    return NormalDist().cdf(bias + z / max(1 - acceleration * z, 1e-9))


def _bias(point: float, replicates: np.ndarray) -> float | None:
    """Phi^-1 of the share of replicates below the point, equal ones counting half; None where it is infinite, all being on one side."""
    share = (np.count_nonzero(replicates < point) + np.count_nonzero(replicates <= point)) / (2 * len(replicates))
    return NormalDist().inv_cdf(share) if 0 < share < 1 else None


def _acceleration(left_out: np.ndarray) -> float:
    """How fast the error changes with the statistic: sum d^3 / (6 (sum d^2)^1.5), d being the mean less the value without one patient."""
    influence = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    scale = (influence**2).sum() ** 1.5
    return float((influence**3).sum() / (6 * scale)) if scale > 0 else 0.0


def bootstrap(
    targets: Any,
    scores: Any,
    patients: Any = None,
    *,
    classes: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
    method: Method = "percentile",
) -> Bootstrap:
    """Resample the patients of a test set with replacement and score each resample.

    Args:
        targets: (n,) class indices, (n, classes) multi-hot, or lists of positive classes.
        scores: (n, classes).
        patients: n ids; images of one patient are drawn together. None where every image is of another patient.
        classes: class names; None for "0", "1", and so on.
        replicates: number of resamples.
        seed: the same seed and the same patients give the same resamples, whatever the scores.
        method: of the intervals, see `Bootstrap`.

    Raises:
        MedfmcError: the rows cannot be scored, or there are fewer than two patients.
    """
    if replicates < 1:
        raise MedfmcError(f"the bootstrap needs at least one replicate; got {replicates}.")
    if method not in get_args(Method):
        raise MedfmcError(f"method is one of {', '.join(get_args(Method))}; got {method!r}.")
    statistics = WeightedScore(targets, scores, patients, classes)
    size = len(statistics.patient_ids)
    random = np.random.default_rng(seed)

    def drawn(first: int, last: int) -> np.ndarray:
        """How often each patient is drawn, (patients, last - first)."""
        width = last - first
        chosen = random.integers(size, size=(size, width)) * width + np.arange(width)
        return np.bincount(chosen.ravel(), minlength=size * width).reshape(size, width)

    return Bootstrap(
        point=statistics.point(),
        replicates=statistics.many(replicates, drawn),
        method=method,
        left_out=jackknife(targets, scores, patients, classes=classes).left_out if method == "bca" else {},
        patient_ids=statistics.patient_ids,
    )
