import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medfmc_hf.errors import MedfmcError
from medfmc_hf.training.losses import LOSSES, balanced_weights

LOGITS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
SINGLE = torch.tensor([0, 0, 0, 0, 1, 1, 2, 0])
MULTI = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]])


def test_auto():
    assert torch.equal(LOSSES["auto"]("single-label", SINGLE.numpy())(LOGITS, SINGLE), F.cross_entropy(LOGITS, SINGLE))
    expected = -(MULTI * LOGITS.sigmoid().log() + (1 - MULTI) * (-LOGITS).sigmoid().log()).mean()
    assert torch.allclose(LOSSES["auto"]("multi-label", MULTI.numpy())(LOGITS, MULTI), expected)


def test_weighted():
    weights = torch.tensor([8 / (3 * 5), 8 / (3 * 2), 8 / 3])
    found = LOSSES["weighted"]("single-label", SINGLE.numpy())(LOGITS, SINGLE)
    assert torch.allclose(found, F.cross_entropy(LOGITS, SINGLE, weight=weights))
    positive = torch.tensor([2 / 6, 6 / 2, 1.0])  # the third class has no positives
    found = LOSSES["weighted"]("multi-label", MULTI.numpy())(LOGITS, MULTI)
    assert torch.allclose(found, F.binary_cross_entropy_with_logits(LOGITS, MULTI.float(), pos_weight=positive))


def test_asymmetric():
    total = 0.0
    for logit, label in zip(LOGITS.flatten().tolist(), MULTI.flatten().tolist()):
        p = 1 / (1 + np.exp(-logit))
        shifted = max(p - 0.05, 0)
        total -= np.log(p) if label else shifted**4 * np.log(1 - shifted)
    assert LOSSES["asymmetric"]("multi-label", MULTI.numpy())(LOGITS, MULTI).item() == pytest.approx(total / LOGITS.numel(), rel=1e-5)
    with pytest.raises(MedfmcError, match="multi-label"):
        LOSSES["asymmetric"]("single-label", SINGLE.numpy())


def test_focal():
    p = LOGITS.softmax(dim=1)[range(8), SINGLE]
    expected = (-((1 - p) ** 2) * p.log()).mean()
    assert torch.allclose(LOSSES["focal"]("single-label", SINGLE.numpy())(LOGITS, SINGLE), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_keep_finite_gradients(name):
    logits = torch.tensor([[80.0, -80.0, 0.0]], requires_grad=True)
    LOSSES[name]("multi-label", MULTI.numpy())(logits, torch.tensor([[0, 1, 0]])).backward()
    assert logits.grad.isfinite().all()


def test_balanced_weights():
    assert np.allclose(balanced_weights(np.array([0, 0, 0, 1])), [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    weights = balanced_weights(MULTI.numpy())
    assert weights.sum() == pytest.approx(1)
    assert weights[1] == weights[5] == pytest.approx(3 * weights[0])  # drawn for the class with two positives, not that with six
    assert weights[3] == weights[0]  # no finding: as often as the most frequent class
    assert np.allclose(balanced_weights(np.zeros((4, 3), int)), 0.25)
