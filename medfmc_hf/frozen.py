"""Train-free baselines: features of a frozen backbone, computed once, and heads that are fitted in closed form or by scikit-learn."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .anatomy import head_names

Head = Callable[[np.ndarray, np.ndarray, np.ndarray, str, int, Mapping[str, Any]], np.ndarray]


@torch.no_grad()
def features(model: nn.Module, batches: Iterable[torch.Tensor]) -> np.ndarray:
    """The vector that the head reads, for every picture.

    Args:
        model: what `load_backbone` returned.
        batches: float32 tensors (B, 3, H, W), on the model's device.

    Returns:
        float32, (n, dim).
    """
    head = model.get_submodule(head_names(model)[0])
    read: list[np.ndarray] = []
    hook = head.register_forward_pre_hook(lambda module, args: read.append(args[0].flatten(1).float().cpu().numpy()))
    was_training = model.training
    try:
        model.eval()
        for batch in batches:
            model(pixel_values=batch)
    finally:
        hook.remove()
        model.train(was_training)
    return np.concatenate(read)


def linear(train, targets, test, task: str, n_classes: int, options: Mapping[str, Any]) -> np.ndarray:
    """Logistic regression on L2-normalised features; one for each class where the task is multi-label."""
    from sklearn.linear_model import LogisticRegression

    train, test = _normalised(train), _normalised(test)
    columns = targets if task == "multi-label" else np.eye(n_classes, dtype=int)[targets]
    if task != "multi-label" and n_classes > 2 and len(np.unique(targets)) > 1:
        model = LogisticRegression(C=options.get("C", 1.0), max_iter=1000).fit(train, targets)
        logits = np.full((len(test), n_classes), -30.0, np.float32)
        logits[:, model.classes_] = model.decision_function(test) if len(model.classes_) > 2 else _two(model.decision_function(test))
        return logits
    logits = np.zeros((len(test), n_classes), np.float32)
    for index, column in enumerate(columns.T):
        if column.min() == column.max():  # a class without positives (or negatives) cannot be fitted: say so with its constant
            logits[:, index] = 30.0 if column.min() else -30.0
        else:
            logits[:, index] = LogisticRegression(C=options.get("C", 1.0), max_iter=1000).fit(train, column).decision_function(test)
    if task != "multi-label":
        logits /= 2  # the two one-against-rest scores are each other's negative: softmax of the pair is the sigmoid of their difference
    return logits


def _two(score: np.ndarray) -> np.ndarray:
    return np.stack([-score / 2, score / 2], axis=1)


def _normalised(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


HEADS: dict[str, Head] = {"linear": linear}
