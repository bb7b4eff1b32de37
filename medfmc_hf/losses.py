"""Losses, and weights for drawing rows, for long-tailed and multi-label support sets."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _plain(task: str, train_targets: np.ndarray) -> Loss:
    if task == "single-label":
        return F.cross_entropy
    return lambda logits, targets: F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


LOSSES: dict[str, Callable[[str, np.ndarray], Loss]] = {"auto": _plain}
