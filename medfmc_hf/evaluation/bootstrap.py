"""Bootstrap intervals over patients, for whoever asks `medfmc score --interval` for them; all else is by `jackknife.py`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np

from ..errors import MedfmcError
from .jackknife import Jackknife, jackknife
from .weighted import WeightedScore, collect, groups_of

Method = Literal["normal", "percentile", "bca"]


@dataclass(frozen=True)
class Bootstrap:
    """Replicates of the statistics of one run, or of the mean of runs on the same test rows.

    Attributes:
        point: the statistics on the test rows themselves, by name; see `WeightedScore`.
        replicates: for each statistic an array (replicates,). Bootstraps of the same patients with the same seed drew the same patients.
        method: of `interval`. `normal`: the point less the bias of the replicates, plus and minus their standard deviation times the normal
            quantile, cut to [0, 1]; `percentile`; or `bca`: bias-corrected and accelerated (Efron 1987).
        left_out: the jackknife, whose skewness BCa needs; else None.
        patients: how many patients were resampled.
    """

    point: dict[str, float]
    replicates: dict[str, np.ndarray]
    method: Method
    left_out: Jackknife | None
    patients: int

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """The interval of one statistic over the patients of the test set; NaN where it is undefined.

        Replicates in which it is undefined are left out. Repeated patients lift the average precision of rare classes in every replicate,
        so the percentile interval of an mAP lies too high.
        """
        if not 0 < level < 1:
            raise MedfmcError(f"the level of an interval is between 0 and 1, such as 0.95; got {level}.")
        values, point = self.replicates[name], self.point[name]
        values = values[~np.isnan(values)]
        if not len(values) or np.isnan(point):
            return math.nan, math.nan
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if self.method == "normal":
            center, half = 2 * point - values.mean(), NormalDist().inv_cdf(tails[1]) * values.std()
            return max(float(center - half), 0.0), min(float(center + half), 1.0)
        if self.method == "bca":
            tails = _bca_tails(tails, point, values, self.left_out.left_out[name])
        low, high = np.quantile(values, tails)
        return float(low), float(high)


def mean_of(bootstraps: Sequence[Bootstrap]) -> Bootstrap:
    """The mean of several runs on the same test rows. Its interval is over patients, with the runs as they are."""
    from .jackknife import mean_of as mean_of_jackknives

    first = bootstraps[0]
    if any(b.patients != first.patients or b.replicates.keys() != first.replicates.keys() for b in bootstraps):
        raise MedfmcError("only runs on the same test rows, with the same classes, can be averaged.")
    return Bootstrap(
        point={name: float(np.mean([b.point[name] for b in bootstraps])) for name in first.point},
        replicates={name: np.mean([b.replicates[name] for b in bootstraps], axis=0) for name in first.replicates},
        method=first.method,
        left_out=first.left_out and mean_of_jackknives([b.left_out for b in bootstraps]),
        patients=first.patients,
    )


def _bca_tails(tails: np.ndarray, point: float, values: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """The quantiles to take instead of the nominal ones; the nominal ones where all replicates lie on one side or do not vary."""
    normal = NormalDist()
    share = (np.count_nonzero(values < point) + np.count_nonzero(values <= point)) / (2 * len(values))
    if not 0 < share < 1:
        return tails
    bias = normal.inv_cdf(share)
    left_out = left_out[~np.isnan(left_out)]
    influence = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    scale = (influence**2).sum() ** 1.5
    acceleration = (influence**3).sum() / (6 * scale) if scale > 0 else 0.0
    shifted = [bias + normal.inv_cdf(tail) for tail in tails]
    return np.array([normal.cdf(bias + z / max(1 - acceleration * z, 1e-9)) for z in shifted])


def bootstrap(
    targets,
    scores,
    patients=None,
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
    names, groups = groups_of(len(targets), patients)
    statistics = WeightedScore(targets, scores, groups, classes, len(names))
    random = np.random.default_rng(seed)

    def drawn(first: int, last: int) -> np.ndarray:
        """How often each patient is drawn, (patients, last - first)."""
        width = last - first
        chosen = random.integers(len(names), size=(len(names), width)) * width + np.arange(width)
        return np.bincount(chosen.ravel(), minlength=len(names) * width).reshape(len(names), width)

    point = statistics(np.ones((len(names), 1)))
    return Bootstrap(
        point={name: float(values[0]) for name, values in point.items()},
        replicates=collect(statistics, replicates, drawn),
        method=method,
        left_out=jackknife(targets, scores, patients, classes=classes) if method == "bca" else None,
        patients=len(names),
    )
