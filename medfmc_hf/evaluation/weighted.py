"""The score of one run's test rows as a function of how often each patient is among them: fast, for it is asked thousands of times."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import MedfmcError
from ..scoring import as_scores, as_targets, class_names

CHUNK = 128  # weightings at a time: rows of 512 bytes, which the cache likes


class WeightedScore:
    """The score of one run's predictions as a function of how often each patient is in the test set.

    Whatever does not depend on the weights is done once, above all the sorting. The result is that of `medfmc_hf.scoring.score` on the rows
    repeated as often as their patient, to rounding.

    Args:
        targets: (n,) class indices, (n, classes) multi-hot, or lists of positive classes.
        scores: (n, classes).
        patients: n ids; None where every image is of another patient.
        classes: class names; None for "0", "1", and so on.

    Attributes:
        patient_ids: distinct and sorted, as their weights are.

    Raises:
        MedfmcError: the rows cannot be scored, there are not as many ids as rows, or fewer than two patients.
    """

    def __init__(self, targets: Any, scores: Any, patients: Any = None, classes: Sequence[str] | None = None) -> None:
        scores = as_scores(scores)
        targets = as_targets(targets, scores.shape)
        self.patient_ids, patient_of_row = _numbered(patients, len(targets))
        rows_of_patient = np.bincount(patient_of_row)
        self._most_rows = int(rows_of_patient.max())
        self._names = class_names(classes, scores.shape[1])
        self._multilabel = targets.ndim == 2
        if not self._multilabel:
            correct = patient_of_row[scores.argmax(axis=1) == targets]
            self._correct_and_all = np.stack([np.bincount(correct, minlength=len(self.patient_ids)), rows_of_patient]).astype(float)
        positive = targets if self._multilabel else targets[:, None] == np.arange(scores.shape[1])
        self._classes = [_ClassScore(column, mask, patient_of_row) for column, mask in zip(scores.T, positive.T)]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The statistics of some weightings.

        Args:
            weights: (patients, weightings), how often each patient is there: whole numbers.

        Returns:
            Arrays (weightings,): `accuracy` or `map`, `auc`, `score`, and for each class `auc of NAME` and, for
            multi-label tasks, `ap of NAME`. A class without positives or negatives in a weighting is NaN there, and left out of the means.
        """
        most_rows = weights.sum(axis=0).max() * self._most_rows  # a sum of weights is no larger; float32 counts exactly up to 2 ** 24
        weights = np.ascontiguousarray(weights, np.float32 if most_rows < 1 << 24 else np.float64)
        auc, ap = np.stack([of_class(weights) for of_class in self._classes], axis=1)
        mean_auc = _mean(auc)
        if self._multilabel:
            name, main = "map", _mean(ap)
        else:
            correct, rows = self._correct_and_all @ weights
            name, main = "accuracy", correct / rows
        result = {name: main, "auc": mean_auc, "score": (main + mean_auc) / 2}
        result |= {f"auc of {name}": values for name, values in zip(self._names, auc)}
        if self._multilabel:
            result |= {f"ap of {name}": values for name, values in zip(self._names, ap)}
        return result

    def point(self) -> dict[str, float]:
        """The statistics of the rows themselves, each patient counting once."""
        return {name: float(values[0]) for name, values in self(np.ones((len(self.patient_ids), 1))).items()}

    def many(self, count: int, weights: Callable[[int, int], np.ndarray]) -> dict[str, np.ndarray]:
        """The statistics of many weightings, for each an array (count,).

        Args:
            count: of weightings.
            weights: gives those from one number up to another, (patients, their number).
        """
        parts = [self(weights(first, min(first + CHUNK, count))) for first in range(0, count, CHUNK)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _numbered(patients: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct patients, sorted, and for each row the number of its own."""
    names, numbers = np.unique(np.arange(rows) if patients is None else np.asarray(patients), return_inverse=True)
    if len(numbers) != rows:
        raise MedfmcError(f"there are {len(numbers)} patient ids for {rows} rows; expected one a row.")
    if len(names) < 2:
        raise MedfmcError(f"all {rows} rows are of one patient; an interval over patients needs at least two.")
    return names, numbers


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over classes (axis 0) of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    return np.divide(np.where(defined, values, 0).sum(axis=0), count, out=np.full(len(count), np.nan), where=count > 0)


class _ClassScore:
    """AUC and average precision of one class as functions of the weights of patients.

    Let P(...) and N(...) be the summed weights of the positive and of the negative rows whose score s fulfils a condition, and let t run
    over the thresholds: the distinct scores of positives. Then

        AUC = sum over t of  P(s = t) * (N(s < t) + N(s <= t)) / (2 * P * N)
        AP  = sum over t of  P(s = t) * P(s >= t) / (P(s >= t) + N(s >= t)) / P

    In the order of their scores, the negatives below a threshold are the first few of them. So they are cut into segments wherever N(s < t)
    or N(s <= t) of a threshold ends. One pass sums the weights inside the segments; the rest is work on thresholds, which are rare.

    Args:
        scores: (n,), of the class.
        positive: (n,), which rows are of the class.
        patient_of_row: (n,) numbers of patients.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray, patient_of_row: np.ndarray) -> None:
        own, self._positives = _by_score(scores[positive], patient_of_row[positive])
        others, self._negatives = _by_score(scores[~positive], patient_of_row[~positive])
        thresholds, self._first_of_threshold = np.unique(own, return_index=True)
        below, upto = others.searchsorted(thresholds, "left"), others.searchsorted(thresholds, "right")  # how many negatives: s < t, s <= t
        ends = np.unique(np.concatenate([[0], below, upto, [len(others)]]))
        self._first_of_segment = ends[:-1]
        self._below, self._upto = ends.searchsorted(below), ends.searchsorted(upto)  # the same in segments

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUC and AP for weights (patients, weightings), each (weightings,); NaN where positives or negatives weigh nothing."""
        weightings = weights.shape[1]
        undefined = np.full(weightings, np.nan)
        if not len(self._positives) or not len(self._negatives):
            return undefined, undefined
        at = np.add.reduceat(weights.take(self._positives, axis=0), self._first_of_threshold, axis=0).astype(float)  # P(s = t)
        segments = np.add.reduceat(weights.take(self._negatives, axis=0), self._first_of_segment, axis=0)
        first_segments = np.zeros((len(segments) + 1, weightings))  # row k: the weight of the first k segments
        np.cumsum(segments, axis=0, out=first_segments[1:], dtype=float)
        positives, negatives = at.sum(axis=0), first_segments[-1]
        below = first_segments[self._below]  # N(s < t)
        at_least = at[::-1].cumsum(axis=0)[::-1]  # P(s >= t)
        all_at_least = at_least + (negatives - below)
        defined = (positives > 0) & (negatives > 0)
        auc = (at * (below + first_segments[self._upto])).sum(axis=0)
        ap = (at * at_least / np.maximum(all_at_least, 1)).sum(axis=0)
        return (
            np.divide(auc, 2 * positives * negatives, out=undefined.copy(), where=defined),
            np.divide(ap, positives, out=undefined, where=defined),
        )


def _by_score(scores: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in the order of the scores."""
    order = np.argsort(scores)
    return scores[order], patients[order]
