"""Train-free baselines: features of a frozen backbone, computed once, and heads that are fitted to them without gradient descent."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import MedfmcError
from ..models.structure import head_names

Head = Callable[[np.ndarray, np.ndarray, np.ndarray, str, int, Mapping[str, Any]], np.ndarray]

FAR = 30.0  # the logit of a class that support rows show never or always; its probability is 1e-13 or 1 minus that


@torch.no_grad()
def features(model: nn.Module, batches: Iterable[torch.Tensor]) -> np.ndarray:
    """The vector that the head reads, for every image.

    Args:
        model: what `load_backbone` returned.
        batches: float32 tensors (B, 3, H, W), on the model's device.

    Returns:
        float32, (n, dim).
    """
    read: list[np.ndarray] = []
    head = model.get_submodule(head_names(model)[0])
    hook = head.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].flatten(1).float().cpu().numpy()))
    was_training = model.training
    try:
        model.eval()
        for batch in batches:
            model(pixel_values=batch)
    finally:
        hook.remove()
        model.train(was_training)
    if not read:
        raise MedfmcError("there are no images to compute features of.")
    return np.concatenate(read)


def prototype(
    train: np.ndarray, targets: np.ndarray, test: np.ndarray, task: str, n_classes: int, options: Mapping[str, Any]
) -> np.ndarray:
    """Cosine to class means, times a temperature: the paper's Meta-Baseline (Chen et al. 2021).

    A class mean is over the L2-normalised features of its positives. Single-label probabilities are the softmax, multi-label ones the
    sigmoid of the logits, as in the official code. Cosines cannot say how frequent a class is, so multi-label probabilities
    rank images and are not calibrated.

    Args:
        train: features of the support set, (n, dim).
        targets: integers, (n,) class indices or (n, classes) multi-hot.
        test: features to score, (m, dim).
        task: `single-label` or `multi-label`.
        n_classes: number of classes.
        options: `temperature`, the factor on cosines (10).

    Returns:
        logits, float32, (m, classes).
    """
    train, test = _unit(train), _unit(test)
    members = _multi_hot(targets, n_classes)
    means = _unit(members.T @ train)
    logits = options.get("temperature", 10.0) * (test @ means.T)
    return _without_absent(logits, members)


def linear(train: np.ndarray, targets: np.ndarray, test: np.ndarray, task: str, n_classes: int, options: Mapping[str, Any]) -> np.ndarray:
    """Logistic regression on L2-normalised features: the paper's Baseline. One for each class where the task is multi-label.

    Args and result are those of `prototype`; `options` may hold `C`, the inverse strength of the L2 penalty (1, scikit-learn's).
    """
    from sklearn.linear_model import LogisticRegression

    def fit(labels: np.ndarray) -> Any:
        return LogisticRegression(C=options.get("C", 1.0), max_iter=5000).fit(train, labels)

    train, test = _unit(train), _unit(test)
    members = _multi_hot(targets, n_classes)
    if task == "multi-label":
        logits = np.zeros((len(test), n_classes))
        for index in np.flatnonzero(members.any(axis=0) & ~members.all(axis=0)):
            logits[:, index] = fit(members[:, index]).decision_function(test)
        logits[:, members.all(axis=0)] = FAR
        return _without_absent(logits, members)
    seen = np.unique(targets)
    logits = np.zeros((len(test), n_classes))
    if len(seen) == 2:  # scikit-learn gives one score for two classes: their softmax is the sigmoid of its double
        score = fit(targets).decision_function(test)
        logits[:, seen] = np.stack([-score / 2, score / 2], axis=1)
    elif len(seen) > 2:
        logits[:, seen] = fit(targets).decision_function(test)
    return _without_absent(logits, members)


def knn(train: np.ndarray, targets: np.ndarray, test: np.ndarray, task: str, n_classes: int, options: Mapping[str, Any]) -> np.ndarray:
    """Vote of the k nearest support rows by cosine, weighted by exp(temperature * cosine); the logit is the vote's log odds.

    Args and result are those of `prototype`; `options` may hold `k` (10) and `temperature` (10).
    """
    k, temperature = options.get("k", 10), options.get("temperature", 10.0)
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise MedfmcError(f"k is a whole number of at least 1; got {k!r}.")
    train, test = _unit(train), _unit(test)
    members = _multi_hot(targets, n_classes)
    k = min(k, len(train))
    cosine = test @ train.T
    nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    weights = np.exp(temperature * (np.take_along_axis(cosine, nearest, axis=1) - 1))
    share = (weights[:, :, None] * members[nearest]).sum(axis=1) / weights.sum(axis=1, keepdims=True)
    # One imagined neighbour as far as the nearest can be from deciding, spread as the support set is: no vote is ever unanimous.
    share = (k * share + members.mean(axis=0)) / (k + 1)
    logits = np.log(np.clip(share, 1e-12, None)) - (np.log(np.clip(1 - share, 1e-12, None)) if task == "multi-label" else 0)
    return _without_absent(logits, members)


HEADS: dict[str, Head] = {"prototype": prototype, "linear": linear, "knn": knn}


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one, float64; rows of zeros stay."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _multi_hot(targets: np.ndarray, n_classes: int) -> np.ndarray:
    """(n, classes) of zeros and ones, from class indices or from what is multi-hot already."""
    targets = np.asarray(targets)
    if len(targets) == 0:
        raise MedfmcError("the support set is empty; a train-free method needs labelled images.")
    return targets.astype(np.float64) if targets.ndim == 2 else np.eye(n_classes)[targets]


def _without_absent(logits: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Classes that the support set does not show get the lowest logit."""
    logits[:, ~members.any(axis=0)] = -FAR
    return logits.astype(np.float32)
