"""Train-free baselines: features of a frozen backbone, computed once, and heads that are fitted to them without gradient descent."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import MedfmcError
from .heads import FAR, Head, LinearHead, NeighbourHead, features_of

Fit = Callable[[np.ndarray, np.ndarray, str, int, Mapping[str, Any]], Head]


@torch.no_grad()
def features(model: nn.Module, batches: Iterable[torch.Tensor]) -> np.ndarray:
    """The vector that the head reads, for every image.

    Args:
        model: what `load_backbone` returned.
        batches: float32 tensors (B, 3, H, W), on the model's device.

    Returns:
        float32, (n, dim).
    """
    was_training = model.training
    try:
        model.eval()
        read = [features_of(model, batch).float().cpu().numpy() for batch in batches]
    finally:
        model.train(was_training)
    if not read:
        raise MedfmcError("there are no images to compute features of.")
    return np.concatenate(read)


def prototype(features: np.ndarray, targets: np.ndarray, task: str, n_classes: int, options: Mapping[str, Any]) -> LinearHead:
    """Cosine to class means, times a temperature: the paper's Meta-Baseline (Chen et al. 2021).

    A class mean is over the L2-normalised features of its positives. Single-label probabilities are the softmax, multi-label ones the
    sigmoid of the logits, as in the official code. Cosines cannot say how frequent a class is, so multi-label probabilities
    rank images and are not calibrated.

    Args:
        features: of the support set, (n, dim).
        targets: integers, (n,) class indices or (n, classes) multi-hot.
        task: `single-label` or `multi-label`.
        n_classes: number of classes.
        options: `temperature`, the factor on cosines (10).

    Returns:
        The head: features (m, dim) to logits (m, classes). The logit of a class that the support set does not show is -30.

    Raises:
        MedfmcError: the support set is empty.
    """
    members = _multi_hot(targets, n_classes)
    means = _normalised(members.T @ _normalised(features))
    return _linear_head(options.get("temperature", 10.0) * means, np.zeros(n_classes), members)


def linear(features: np.ndarray, targets: np.ndarray, task: str, n_classes: int, options: Mapping[str, Any]) -> LinearHead:
    """Logistic regression on L2-normalised features: the paper's Baseline. One for each class where the task is multi-label.

    Args, result and errors are those of `prototype`; `options` may hold `C`, the inverse strength of the L2 penalty (1, scikit-learn's). In
    a multi-label task the logit of a class that every row of the support set shows is 30.
    """
    from sklearn.linear_model import LogisticRegression

    vectors, members = _normalised(features), _multi_hot(targets, n_classes)
    weight, bias = np.zeros((n_classes, vectors.shape[1])), np.zeros(n_classes)

    def fit(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        model = LogisticRegression(C=options.get("C", 1.0), max_iter=5000).fit(vectors, labels)
        return model.coef_, model.intercept_

    if task == "multi-label":
        always = members.all(axis=0)
        for index in np.flatnonzero(members.any(axis=0) & ~always):
            (weight[index],), (bias[index],) = fit(members[:, index])
        bias[always] = FAR
        return _linear_head(weight, bias, members)
    seen = np.unique(targets)
    if len(seen) == 2:  # scikit-learn gives one score for two classes: their softmax is the sigmoid of its double
        (coefficients,), (intercept,) = fit(targets)
        weight[seen], bias[seen] = np.stack([-coefficients / 2, coefficients / 2]), np.stack([-intercept / 2, intercept / 2])
    elif len(seen) > 2:
        weight[seen], bias[seen] = fit(targets)
    return _linear_head(weight, bias, members)


def knn(features: np.ndarray, targets: np.ndarray, task: str, n_classes: int, options: Mapping[str, Any]) -> NeighbourHead:
    """Nearest neighbours by cosine, see `medfmc_hf.adaptation.heads.NeighbourHead`.

    Args, result and errors are those of `prototype`; `options` may hold `k` (10) and `temperature` (10).
    """
    k, temperature = options.get("k", 10), options.get("temperature", 10.0)
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise MedfmcError(f"k is a whole number of at least 1; got {k!r}.")
    members = _multi_hot(targets, n_classes)
    vectors = torch.from_numpy(_normalised(features))
    return NeighbourHead(vectors, torch.from_numpy(members), k, float(temperature), task == "multi-label")


HEADS: dict[str, Fit] = {"prototype": prototype, "linear": linear, "knn": knn}


def _normalised(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one, float64; rows of zeros stay."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _multi_hot(targets: np.ndarray, n_classes: int) -> np.ndarray:
    """(n, classes) of zeros and ones, from class indices or from what is multi-hot already."""
    targets = np.asarray(targets)
    if len(targets) == 0:
        raise MedfmcError("the support set is empty; a train-free method needs labelled images.")
    return targets.astype(np.float64) if targets.ndim == 2 else np.eye(n_classes)[targets]


def _linear_head(weight: np.ndarray, bias: np.ndarray, members: np.ndarray) -> LinearHead:
    absent = ~members.any(axis=0)
    weight[absent], bias[absent] = 0, -FAR
    return LinearHead(torch.from_numpy(weight), torch.from_numpy(bias))
