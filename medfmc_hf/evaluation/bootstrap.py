"""The bootstrap over patients: intervals of every score, and of differences between runs on the same test set.

Pictures of one patient are not independent, so patients are resampled, not pictures. This is the uncertainty of the test set
alone: what other patients would have given. What other support sets would have given is `medfmc_hf.evaluation.statistics.over_draws`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from ..errors import MedfmcError
from ..scoring import as_scores, as_targets, class_names

CHUNK = 128  # replicates at a time: rows of 512 bytes, which the cache likes
JACKKNIFE_BLOCKS = 1000  # more patients than this are left out in blocks


class WeightedScore:
    """The score of one run's predictions as a function of how often each patient is in the test set.

    Whatever does not depend on the weights is done once: a sort per class, and for each positive the number of negatives below
    it. A replicate then costs one pass over the negatives and a few over the positives, which are rare. The result is that of
    `medfmc_hf.scoring.score` on the rows repeated as often as their patient, to rounding.

    Args:
        targets: (n,) class indices or (n, classes) multi-hot.
        scores: (n, classes).
        groups: n patients as integers 0 to `size` - 1; None for one patient a row.
        classes: class names; None for "0", "1", and so on.
        size: number of patients.
    """

    def __init__(self, targets, scores, groups: np.ndarray, classes: Sequence[str] | None, size: int) -> None:
        scores = as_scores(scores)
        targets = as_targets(targets, scores.shape)
        self.names = class_names(classes, scores.shape[1])
        self.multilabel = targets.ndim == 2
        self.main = "map" if self.multilabel else "accuracy"
        rows_of = np.bincount(groups, minlength=size)
        # Sums of weights are whole numbers, which float32 holds exactly up to 2 ** 24.
        self._exact = np.float32 if size * int(rows_of.max()) < 1 << 24 else np.float64
        if not self.multilabel:
            correct = scores.argmax(axis=1) == targets
            self._rows = np.stack([np.bincount(groups[correct], minlength=size), rows_of]).astype(float)
        positive = targets if self.multilabel else targets[:, None] == np.arange(scores.shape[1])
        self._plans = [_plan(column, mask, groups) for column, mask in zip(scores.T, positive.T)]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The statistics of some replicates.

        Args:
            weights: (patients, replicates), how often each patient was drawn.

        Returns:
            Arrays (replicates,): `accuracy` or `map`, `auc`, `score`, and for each class `auc of NAME` and, for
            multi-label tasks, `ap of NAME`. A class without positives or negatives in a replicate is NaN there, and left out of the means.
        """
        weights = np.ascontiguousarray(weights, self._exact)
        per_class = [_weighted(plan, weights) for plan in self._plans]
        auc, ap = (np.stack(values) for values in zip(*per_class))
        if self.multilabel:
            main = _mean(ap)
        else:
            correct, rows = self._rows @ weights
            main = correct / rows
        mean_auc = _mean(auc)
        result = {self.main: main, "auc": mean_auc, "score": (main + mean_auc) / 2}
        result |= {f"auc of {name}": values for name, values in zip(self.names, auc)}
        if self.multilabel:
            result |= {f"ap of {name}": values for name, values in zip(self.names, ap)}
        return result


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over classes (axis 0) of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    return np.divide(np.where(defined, values, 0).sum(axis=0), count, out=np.full(len(count), np.nan), where=count > 0)


@dataclass(frozen=True)
class _Plan:
    """What of one class does not depend on the weights. A level is a distinct score of the positives; levels ascend."""

    positives: np.ndarray  # patients of the positives, by score
    levels: np.ndarray  # where each level starts among the positives
    negatives: np.ndarray  # patients of the negatives, by score
    cuts: np.ndarray  # places among the negatives where some level begins or ends
    below: np.ndarray  # for each level, how many cuts lie before the negatives of the same score
    upto: np.ndarray  # and how many before those above it


def _plan(scores: np.ndarray, positive: np.ndarray, groups: np.ndarray) -> _Plan:
    own, others = scores[positive], scores[~positive]
    order, other_order = np.argsort(own), np.argsort(others)
    own, others = own[order], others[other_order]
    levels = np.flatnonzero(np.concatenate(([True], own[1:] != own[:-1]))) if len(own) else np.zeros(0, np.intp)
    below, upto = others.searchsorted(own[levels], "left"), others.searchsorted(own[levels], "right")
    cuts = np.unique(np.concatenate([below, upto, [0]]))
    return _Plan(
        positives=groups[positive][order],
        levels=levels,
        negatives=groups[~positive][other_order],
        cuts=cuts[cuts < len(others)],  # a cut behind the last negative starts no segment
        below=cuts.searchsorted(below),
        upto=cuts.searchsorted(upto),
    )


def _weighted(plan: _Plan, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC and AP of one class in each replicate."""
    replicates = weights.shape[1]
    if not len(plan.positives) or not len(plan.negatives):
        return np.full(replicates, np.nan), np.full(replicates, np.nan)
    own = np.add.reduceat(weights.take(plan.positives, axis=0), plan.levels, axis=0).astype(float)
    segments = np.add.reduceat(weights.take(plan.negatives, axis=0), plan.cuts, axis=0)
    lower = np.zeros((len(plan.cuts) + 1, replicates))
    np.cumsum(segments, axis=0, out=lower[1:], dtype=float)
    all_own, all_others = own.sum(axis=0), lower[-1]
    below = lower[plan.below]
    true = own[::-1].cumsum(axis=0)[::-1]
    called = true + (all_others - below)
    defined = (all_own > 0) & (all_others > 0)
    nothing = np.full(replicates, np.nan)
    auc = np.divide((own * (below + lower[plan.upto])).sum(axis=0), 2 * all_own * all_others, out=nothing.copy(), where=defined)
    ap = np.divide((own * true / np.maximum(called, 1)).sum(axis=0), all_own, out=nothing, where=defined)
    return auc, ap


@dataclass(frozen=True)
class Bootstrap:
    """Replicates of the statistics of one run, or of differences or means of runs on the same test set.

    Attributes:
        point: the statistics on the test set itself, by name; see `WeightedScore`.
        replicates: for each statistic an array (replicates,). Bootstraps of the same patients with the same seed drew the same
            patients, so their replicates are paired.
        jackknife: for each statistic its values with one patient (or block of patients) left out; None if not asked for.
        patients: how many patients were resampled.
    """

    point: dict[str, float]
    replicates: dict[str, np.ndarray]
    jackknife: dict[str, np.ndarray] | None
    patients: int

    def interval(self, name: str, level: float = 0.95, method: Literal["normal", "percentile", "bca"] = "normal") -> tuple[float, float]:
        """The interval of one statistic over the patients of the test set.

        Replicates in which it is undefined are left out. Repeated patients lift the average precision of rare classes in every replicate,
        so the percentile interval of an mAP lies too high. The normal interval takes that bias off, BCa most of it. In a difference of
        two runs the bias cancels, and the percentile interval serves best. `benchmarks/intervals.py` measures all three.

        Args:
            name: such as `"score"` or `"auc of tumor"`.
            level: coverage, in (0, 1).
            method: `normal`: the point less the bias of the replicates, plus and minus their standard deviation times the normal quantile
                (its ends may leave [0, 1]); `percentile`; or `bca`: bias-corrected and accelerated (Efron 1987), the acceleration from
                the jackknife.

        Returns:
            (low, high); NaN where the statistic is undefined.
        """
        if not 0 < level < 1:
            raise MedfmcError(f"the level of an interval is between 0 and 1, such as 0.95; got {level}.")
        values = self.replicates[name]
        values = values[~np.isnan(values)]
        point = self.point[name]
        if not len(values) or np.isnan(point):
            return (float("nan"), float("nan"))
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if method == "normal":
            center, half = 2 * point - values.mean(), NormalDist().inv_cdf(tails[1]) * values.std()
            return float(center - half), float(center + half)
        if method == "bca":
            if self.jackknife is None:
                raise MedfmcError("the BCa interval needs the jackknife: call bootstrap with bca=True.")
            tails = _bca_tails(tails, point, values, self.jackknife[name])
        elif method != "percentile":
            raise MedfmcError(f"method is normal, percentile or bca; got {method!r}.")
        low, high = np.quantile(values, tails)
        return float(low), float(high)

    def p_value(self, name: str) -> float:
        """Two-sided p that the statistic is 0: twice the smaller share of replicates beyond 0, never below 2 / (replicates + 1)."""
        values = self.replicates[name]
        values = values[~np.isnan(values)]
        if not len(values) or np.isnan(self.point[name]):
            return float("nan")
        smaller = min(np.count_nonzero(values <= 0), np.count_nonzero(values >= 0))
        return min(1.0, 2 * (smaller + 1) / (len(values) + 1))

    def __sub__(self, other: "Bootstrap") -> "Bootstrap":
        """The difference, replicate by replicate. Both must be of the same patients with the same seed."""
        return _combine([self, other], lambda values: values[0] - values[1])


def mean_of(bootstraps: Sequence[Bootstrap]) -> Bootstrap:
    """The mean of several runs on the same test set. Its interval is over patients, with the draws as they are."""
    return _combine(bootstraps, lambda values: np.mean(values, axis=0))


def _combine(bootstraps: Sequence[Bootstrap], how: Callable[[list], Any]) -> Bootstrap:
    first = bootstraps[0]
    if any(b.patients != first.patients or b.replicates.keys() != first.replicates.keys() for b in bootstraps):
        raise MedfmcError("only runs on the same test rows, with the same classes, can be paired.")
    return Bootstrap(
        point={name: float(how([b.point[name] for b in bootstraps])) for name in first.point},
        replicates={name: how([b.replicates[name] for b in bootstraps]) for name in first.replicates},
        jackknife=None
        if any(b.jackknife is None for b in bootstraps)
        else {name: how([b.jackknife[name] for b in bootstraps]) for name in first.jackknife},
        patients=first.patients,
    )


def _bca_tails(tails: np.ndarray, point: float, values: np.ndarray, jackknife: np.ndarray) -> np.ndarray:
    """The quantiles to take instead of the nominal ones; the nominal ones where all replicates lie on one side or do not vary."""
    normal = NormalDist()
    share = (np.count_nonzero(values < point) + np.count_nonzero(values <= point)) / (2 * len(values))
    if not 0 < share < 1:
        return tails
    bias = normal.inv_cdf(share)
    left_out = jackknife[~np.isnan(jackknife)]
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
    bca: bool = False,
) -> Bootstrap:
    """Resample the patients of a test set with replacement and score each resample.

    Args:
        targets: (n,) class indices, (n, classes) multi-hot, or lists of positive classes.
        scores: (n, classes).
        patients: n ids; pictures of one patient are drawn together. None where every picture is of another patient.
        classes: class names; None for "0", "1", and so on.
        replicates: number of resamples.
        seed: the same seed and the same patients give the same resamples, whatever the scores.
        bca: also leave out each patient once, which the BCa interval needs.

    Raises:
        MedfmcError: the rows cannot be scored, or there are fewer than two patients.
    """
    rows = len(targets)
    if replicates < 1:
        raise MedfmcError(f"the bootstrap needs at least one replicate; got {replicates}.")
    names, groups = np.unique(np.arange(rows) if patients is None else np.asarray(patients), return_inverse=True)
    if len(groups) != rows:
        raise MedfmcError(f"there are {len(groups)} patient ids for {rows} rows; expected one a row.")
    if len(names) < 2:
        raise MedfmcError(f"all {rows} rows are of one patient; an interval over patients needs at least two.")
    statistics = WeightedScore(targets, scores, groups, classes, len(names))
    point = statistics(np.ones((len(names), 1)))
    return Bootstrap(
        point={name: float(values[0]) for name, values in point.items()},
        replicates=_collect(statistics, _resamples(len(names), replicates, seed)),
        jackknife=_collect(statistics, _left_out(len(names), seed)) if bca else None,
        patients=len(names),
    )


def _collect(statistics: WeightedScore, chunks: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    parts = [statistics(weights) for weights in chunks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _resamples(patients: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """How often each patient is drawn, (patients, up to CHUNK) at a time."""
    random = np.random.default_rng(seed)
    for first in range(0, replicates, CHUNK):
        width = min(CHUNK, replicates - first)
        drawn = random.integers(patients, size=(patients, width)) * width + np.arange(width)
        yield np.bincount(drawn.ravel(), minlength=patients * width).reshape(patients, width)


def _left_out(patients: int, seed: int) -> Iterator[np.ndarray]:
    """Weights that leave out one patient, or one of JACKKNIFE_BLOCKS random blocks of patients, per column."""
    blocks = min(patients, JACKKNIFE_BLOCKS)
    block_of = np.random.default_rng(seed).permutation(patients) % blocks
    for first in range(0, blocks, CHUNK):
        yield (block_of[:, None] != np.arange(first, min(first + CHUNK, blocks))).astype(np.int64)
