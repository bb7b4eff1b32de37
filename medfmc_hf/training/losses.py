"""Losses, and weights for drawing rows, for few-shot and long-tailed labels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import MedfmcError


@dataclass(frozen=True)
class Loss:
    """A mean over the rows of a batch; calling it gives that.

    Attributes:
        mean: of logits (B, classes) and targets (B,) or (B, classes).
        mass: what some targets weigh in the mean: their number, unless rows weigh differently. A batch of which each process has a part is
            the mean of the parts' means, weighted by their masses.
    """

    mean: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    mass: Callable[[torch.Tensor], float] = len

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.mean(logits, labels)


def _auto(task: str, targets: np.ndarray) -> Loss:
    """Cross-entropy, or binary cross-entropy for multi-label."""
    return Loss(F.cross_entropy if task == "single-label" else lambda logits, labels: _binary(logits, labels))


def _weighted(task: str, targets: np.ndarray) -> Loss:
    """Rare classes weigh more: by n / (classes * count), or negatives / positives of each class for multi-label.

    Weights are clipped to [0.1, 10], and 1 for a class without positives in the training rows.
    """
    if task == "single-label":
        classes = int(targets.max()) + 1
        counts = np.bincount(targets, minlength=classes)
        weights = _clipped(len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1)), counts)

        def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            full = torch.ones(logits.shape[1], device=logits.device, dtype=logits.dtype)
            full[:classes] = weights.to(full)
            return F.cross_entropy(logits, labels, weight=full)

        return Loss(loss, lambda labels: float(weights[labels.cpu()].sum()))
    positives = targets.sum(axis=0)
    weights = _clipped((len(targets) - positives) / np.maximum(positives, 1), positives)
    return Loss(lambda logits, labels: _binary(logits, labels, pos_weight=weights.to(logits)))


def _asymmetric(task: str, targets: np.ndarray, focus: float = 4.0, margin: float = 0.05) -> Loss:
    """Easy negatives count less: asymmetric loss (Ridnik et al. 2021), with their focus 0 / 4 and margin 0.05. Multi-label only."""
    if task == "single-label":
        raise MedfmcError("the asymmetric loss is for multi-label subsets (chest, endo); use auto or weighted.")

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = logits.float()
        labels = labels.to(logits.dtype)
        negative = (torch.sigmoid(-logits) + margin).clamp(max=1)  # probability of a negative, shifted
        weight = torch.where(labels > 0, 1.0, (1 - negative) ** focus)
        cross_entropy = torch.where(labels > 0, -F.logsigmoid(logits), -torch.log(negative))
        return (weight * cross_entropy).mean()

    return Loss(loss)


def _focal(task: str, targets: np.ndarray, focus: float = 2.0) -> Loss:
    """What is already right counts less: focal loss (Lin et al. 2017), with their focus 2."""

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if task == "single-label":
            each = F.cross_entropy(logits, labels, reduction="none")
        else:
            each = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
        return ((1 - torch.exp(-each)) ** focus * each).mean()

    return Loss(loss)


# name: (task, training targets) -> loss.
LOSSES: dict[str, Callable[[str, np.ndarray], Loss]] = {"auto": _auto, "weighted": _weighted, "asymmetric": _asymmetric, "focal": _focal}


def balanced_weights(targets: np.ndarray) -> np.ndarray:
    """How often to draw each row: inversely to how frequent its rarest class is.

    In a multi-label subset the rows without any positive are drawn as often as those of the most frequent class.

    Args:
        targets: integers, (n,) class indices or (n, classes) multi-hot.

    Returns:
        float64, (n,), summing to 1.
    """
    if targets.ndim == 1:
        weights = 1 / np.bincount(targets)[targets]
    else:
        counts = targets.sum(axis=0)
        inverse = np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0)
        least = inverse[inverse > 0].min() if (inverse > 0).any() else 1.0
        weights = np.maximum((targets * inverse).max(axis=1), least)
    return weights / weights.sum()


def _binary(logits: torch.Tensor, labels: torch.Tensor, pos_weight: torch.Tensor | None = None) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=pos_weight)


def _clipped(weights: np.ndarray, counts: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.where(counts > 0, np.clip(weights, 0.1, 10), 1.0))
