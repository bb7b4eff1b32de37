"""The score of MedFMC: accuracy, AUC and mAP, computed from the order of the scores, in numpy alone.

Definitions (all fractions in [0, 1]; the challenge prints them times 100):

- accuracy: rows whose highest score is that of their class; the first of equal scores wins, as in mmcls.
- AUC: per class, the probability that a positive scores above a negative, ties counting half; the mean over classes.
- mAP: per class, the non-interpolated average precision of mmcls and scikit-learn; the mean over classes.

Source: `medfmc/core/evaluation/eval_metrics.py` of openmedlab/MedFM and `mmcls/core/evaluation/mean_ap.py` of mmcls 0.25.
This file is copied unchanged into the metric's Space, so it imports nothing from the package but `errors`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from .errors import MedfmcError


def score(
    targets: Any,
    scores: Any,
    *,
    task: Literal["single-label", "multi-label"] | None = None,
    classes: Sequence[str] | None = None,
    undefined: Literal["skip", "official"] = "skip",
    ties: Literal["sklearn", "official"] = "sklearn",
) -> dict[str, Any]:
    """Score the predictions of one test set.

    Only the order of the scores within a class matters (for accuracy: within a row), so in multi-label tasks logits and their
    sigmoids give the same result. A softmax mixes the classes of a row: in single-label tasks logits and probabilities have the same
    accuracy, but may differ in AUC. The official scores are computed from probabilities.

    Args:
        targets: single-label: n class indices. Multi-label: (n, classes) multi-hot, or n lists of positive class indices.
        scores: (n, classes) finite numbers, higher for more likely. Arrays, tensors or nested lists.
        task: kind of task; None to infer it from the targets.
        classes: class names in the order of the columns; None for "0", "1", and so on.
        undefined: treatment of a class without positives or without negatives. `skip` leaves it out of the means. `official` follows
            the official code: its AUC repeats that of the class before it, its AP is 0 (without positives) or 1.
        ties: treatment of equal scores in the AP. `sklearn` treats them as one threshold; `official` takes them in the order of the rows.

    Returns:
        `accuracy` (single-label) or `map` (multi-label), `auc`, `score` (the mean of the two), `rows`, `undefined` (names of the classes
        without positives or without negatives) and `per_class`: for each class `auc`, `recall` (single-label) or `ap` (multi-label),
        `positives` and `negatives`. Undefined values are NaN.

    Raises:
        MedfmcError: the input cannot be scored; or `undefined="official"` and the first class is undefined, where the official code
            stops with an UnboundLocalError because there is no class to repeat.
    """
    for name, value, allowed in (("undefined", undefined, ("skip", "official")), ("ties", ties, ("sklearn", "official"))):
        if value not in allowed:
            raise MedfmcError(f"{name} is {' or '.join(allowed)}; got {value!r}.")
    scores = as_scores(scores)
    targets = as_targets(targets, scores.shape, task)
    names = class_names(classes, scores.shape[1])

    multilabel = targets.ndim == 2
    auc, ap, positives = rank_statistics(targets, scores, ties)
    negatives = len(scores) - positives
    degenerate = (positives == 0) | (negatives == 0)
    if undefined == "official":
        auc = _repeat_previous(auc, degenerate, names)
    else:
        ap[degenerate] = np.nan

    if multilabel:
        main, own = "map", {"ap": ap}
        mean = _mean(ap)
    else:
        correct = scores.argmax(axis=1) == targets
        hits = np.bincount(targets[correct], minlength=len(names))
        main, own = "accuracy", {"recall": np.divide(hits, positives, out=np.full(len(names), np.nan), where=positives > 0)}
        mean = float(np.count_nonzero(correct) / len(correct))
    mean_auc = _mean(auc)
    columns = {"auc": auc, **own, "positives": positives, "negatives": negatives}
    return {
        main: mean,
        "auc": mean_auc,
        "score": (mean + mean_auc) / 2,
        "rows": len(scores),
        "undefined": [name for name, bad in zip(names, degenerate) if bad],
        "per_class": {
            name: dict(zip(columns, values)) for name, values in zip(names, zip(*(column.tolist() for column in columns.values())))
        },
    }


def rank_statistics(targets: np.ndarray, scores: np.ndarray, ties: str = "sklearn") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUC, average precision and number of positives of each class.

    Args:
        targets: n class indices or (n, classes) multi-hot, as `as_targets` returns them.
        scores: (n, classes), as `as_scores` returns them.
        ties: see `score`.

    Returns:
        Three arrays (classes,). The AUC of a class without positives or negatives is NaN; the AP without positives is 0.
    """
    columns = np.ascontiguousarray(scores.T)
    masks = np.ascontiguousarray(targets.T) if targets.ndim == 2 else targets == np.arange(len(columns))[:, None]
    auc, ap, positives = (np.empty(len(columns), dtype) for dtype in (float, float, np.int64))
    for index, (column, mask) in enumerate(zip(columns, masks)):
        auc[index], ap[index], positives[index] = _class_statistics(column, mask)
        if ties == "official" and positives[index]:
            ap[index] = _ap_in_row_order(column, mask)
    return auc, ap, positives


def _class_statistics(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float, int]:
    """AUC, AP and number of positives of one class.

    Sorting positives and negatives separately is several times faster than an argsort of both, and the two formulas need only their ranks
    relative to each other. The counts are integers, so the AUC is exact up to one division.
    """
    hits, others = np.sort(scores[positive]), np.sort(scores[~positive])
    if not len(hits) or not len(others):
        return np.nan, float(len(hits) > 0), len(hits)
    below = others.searchsorted(hits)  # negatives below each positive
    tied = others[np.minimum(below, len(others) - 1)] == hits
    ties = int((others.searchsorted(hits[tied], "right") - below[tied]).sum()) if tied.any() else 0
    lower = np.arange(len(hits))  # positives below each positive
    repeats = hits[1:] == hits[:-1]
    if repeats.any():
        lower[1:][repeats] = 0
        np.maximum.accumulate(lower, out=lower)
    true, false = len(hits) - lower, len(others) - below  # called positive at the threshold of each positive
    auc = (2 * int(below.sum()) + ties) / (2 * len(hits) * len(others))
    return auc, float((true / (true + false)).mean()), len(hits)


def _ap_in_row_order(scores: np.ndarray, positive: np.ndarray) -> float:
    """The average precision of mmcls, which goes through the rows one by one, also for equal scores."""
    places = np.flatnonzero(positive[np.argsort(-scores, kind="stable")])
    return float((np.arange(1, len(places) + 1) / (places + 1)).mean())


def _repeat_previous(auc: np.ndarray, degenerate: np.ndarray, names: Sequence[str]) -> np.ndarray:
    if degenerate[0]:
        raise MedfmcError(
            f"the first class ({names[0]}) has no positives or no negatives; the official code has no class before it to repeat and "
            'stops with an UnboundLocalError. Use undefined="skip".'
        )
    return auc[np.maximum.accumulate(np.where(degenerate, 0, np.arange(len(auc))))]


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def as_scores(scores: Any) -> np.ndarray:
    """Scores as a float32 or float64 array (n, classes).

    Raises:
        MedfmcError: the scores are not finite numbers, not two-dimensional, empty, or have fewer than two classes.
    """
    array = as_array(scores)
    if array.dtype == object:
        try:
            array = np.array([[float(value) for value in row] for row in array])
        except (TypeError, ValueError):
            raise MedfmcError("predictions are not rows of equally many numbers; expected one score per row and class.") from None
    if array.dtype.kind not in "fiub":
        raise MedfmcError(f"predictions are {array.dtype}; expected numbers, one score per row and class.")
    if array.ndim != 2:
        hint = " For one probability p per row, stack 1 - p and p." if array.ndim == 1 else ""
        raise MedfmcError(f"predictions have shape {array.shape}; expected (rows, classes), one score per row and class.{hint}")
    if len(array) == 0:
        raise MedfmcError("there are no predictions; expected at least one row.")
    if array.shape[1] < 2:
        raise MedfmcError(f"predictions have shape {array.shape}; expected at least two classes (for a binary task, two columns).")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype in (np.float16, np.bool_) else np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise MedfmcError(
            f"{np.count_nonzero(~finite)} of {array.size} predictions are not finite (the first is {array[row, column]} in row {row}, "
            f"class {column}); expected finite numbers."
        )
    return array


def as_targets(targets: Any, shape: tuple[int, int], task: str | None = None) -> np.ndarray:
    """Labels as int64 class indices (n,) or as a bool multi-hot array (n, classes).

    Args:
        targets: see `score`. Nested lists as wide as the predictions that hold only 0 and 1 are multi-hot; others are class indices.
        shape: shape of the predictions.
        task: required task; None for either.

    Raises:
        MedfmcError: the targets have a wrong length, width, type or range, or belong to the other task.
    """
    if task not in (None, "single-label", "multi-label"):
        raise MedfmcError(f"task is single-label, multi-label or None; got {task!r}.")
    rows, classes = shape
    array = as_array(targets)
    if array.dtype == object and not any(np.iterable(value) for value in array.ravel()):
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise MedfmcError(f"references hold {array.ravel()[0]!r}; expected class indices or 0 and 1.") from None
    ragged = array.dtype == object
    if array.ndim == 0 or len(array) != rows:
        raise MedfmcError(f"there are {len(array) if array.ndim else 'no'} references for {rows} predictions; expected one a row.")
    found = "single-label" if array.ndim == 1 and not ragged else "multi-label"
    if task not in (None, found):
        expected = "n class indices" if task == "single-label" else "multi-hot rows or lists of positive classes"
        raise MedfmcError(f"references of shape {array.shape} are {found}; this is a {task} task, which takes {expected}.")
    if ragged:
        return _multi_hot(array, classes)
    if array.dtype.kind == "f" and (np.isfinite(array).all() and (array == np.floor(array)).all()):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise MedfmcError(f"references are {array.dtype}; expected class indices or 0 and 1.")
    if array.ndim == 1:
        outside = (array < 0) | (array >= classes)
        if outside.any():
            row = int(np.argmax(outside))
            raise MedfmcError(f"reference {array[row]} in row {row} is out of range; expected class indices 0 to {classes - 1}.")
        return array.astype(np.int64)
    if array.ndim > 2:
        raise MedfmcError(f"references have shape {array.shape}; expected (rows,) or (rows, classes).")
    if array.shape[1] == classes and (array.dtype == bool or ((array == 0) | (array == 1)).all()):
        return array.astype(bool)
    if array.shape[1] == classes or not isinstance(targets, (list, tuple)):
        raise MedfmcError(
            f"references have shape {array.shape} and values {array.min()} to {array.max()}; expected 0 and 1 in shape {shape}."
        )
    return _multi_hot(array, classes)


def _multi_hot(lists: Any, classes: int) -> np.ndarray:
    """Lists of positive classes as bool (n, classes)."""
    result = np.zeros((len(lists), classes), bool)
    for row, positives in enumerate(lists):
        try:
            indices = [int(index) for index in positives]
            whole = all(index == given for index, given in zip(indices, positives))
        except (TypeError, ValueError, OverflowError):
            whole = False
        if not whole:
            raise MedfmcError(f"the reference in row {row} is {positives!r}; expected a list of positive class indices.")
        if len(set(indices)) < len(indices):
            raise MedfmcError(
                f"the reference in row {row} names a class twice: {list(indices)}; expected distinct class indices, or {classes} values "
                "of 0 and 1 in every row."
            )
        if any(not 0 <= index < classes for index in indices):
            raise MedfmcError(f"the reference in row {row} is {list(indices)}; expected class indices 0 to {classes - 1}.")
        result[row, indices] = True
    return result


def class_names(classes: Sequence[str] | None, width: int) -> list[str]:
    """The names of the columns.

    Raises:
        MedfmcError: the number of names differs from the number of columns, or a name is repeated.
    """
    names = [str(index) for index in range(width)] if classes is None else [str(name) for name in classes]
    if len(names) != width:
        raise MedfmcError(f"predictions have {width} classes; expected {len(names)} ({', '.join(names)}).")
    if len(set(names)) < width:
        raise MedfmcError(f"class names must differ; got {', '.join(names)}.")
    return names


def as_array(values: Any) -> np.ndarray:
    """Convert an array-like, tensor or nested list to numpy. Rows of unequal length become an object array (n,) of lists."""
    if isinstance(values, (list, tuple)) and any(hasattr(value, "detach") for value in values[:1]):
        values = [_of_tensor(value) for value in values]
    elif hasattr(values, "detach"):
        values = _of_tensor(values)
    elif np.iterable(values) and not isinstance(values, (list, tuple)) and not hasattr(values, "__array__"):
        values = list(values)  # such as a column of a dataset
    try:
        return np.asarray(values)
    except ValueError:  # rows of unequal length
        ragged = np.empty(len(values), object)
        ragged[:] = [list(row) if np.iterable(row) else row for row in values]
        return ragged


def _of_tensor(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return np.asarray(tensor.float() if tensor.is_floating_point() else tensor)  # numpy has no bfloat16
