"""The score of one run's test rows as a function of how often each patient is among them: fast, for it is asked thousands of times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import MedfmcError
from ..scoring import as_scores, as_targets, class_names

CHUNK = 128  # weightings at a time: rows of 512 bytes, which the cache likes


def groups_of(rows: int, patients) -> tuple[np.ndarray, np.ndarray]:
    """The distinct patients, and for each row the number of its own.

    Raises:
        MedfmcError: there are not as many ids as rows, or fewer than two patients.
    """
    names, groups = np.unique(np.arange(rows) if patients is None else np.asarray(patients), return_inverse=True)
    if len(groups) != rows:
        raise MedfmcError(f"there are {len(groups)} patient ids for {rows} rows; expected one a row.")
    if len(names) < 2:
        raise MedfmcError(f"all {rows} rows are of one patient; an interval over patients needs at least two.")
    return names, groups


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


def collect(statistics: WeightedScore, count: int, weights: Callable[[int, int], np.ndarray]) -> dict[str, np.ndarray]:
    """The statistics of many weightings, for each an array (count,).

    Args:
        statistics: of the rows.
        count: of weightings.
        weights: gives those from one number up to another, (patients, their number).
    """
    parts = [statistics(weights(first, min(first + CHUNK, count))) for first in range(0, count, CHUNK)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
