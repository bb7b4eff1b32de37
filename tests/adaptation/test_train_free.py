import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tiny_models import CONFIGS, images, tiny

from medfmc_hf.adaptation import train_free
from medfmc_hf.errors import MedfmcError

RNG = np.random.default_rng(0)
TRAIN, TEST = RNG.normal(size=(30, 6)).astype(np.float32), RNG.normal(size=(20, 6)).astype(np.float32)
SINGLE, MULTI = RNG.integers(0, 3, 30), (RNG.random((30, 3)) < 0.4).astype(int)
CASES = {"single-label": SINGLE, "multi-label": MULTI}


def logits_of(head, features):
    with torch.no_grad():
        return head(torch.from_numpy(features)).numpy()


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_features_are_what_the_head_reads(name):
    model, x = tiny(name), images(name, 4)
    found = train_free.features(model, [x[:3], x[3:]])
    assert found.dtype == np.float32
    if name != "deit teacher":  # two heads, two vectors; the first is taken
        head = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 4][-1]
        with torch.no_grad():
            assert torch.allclose(head(torch.from_numpy(found)), model(x).logits, atol=1e-5)


def test_features_need_images():
    with pytest.raises(MedfmcError, match="no images"):
        train_free.features(tiny("vit"), [])


@pytest.mark.parametrize("task", CASES)
def test_prototype_is_the_cosine_to_class_means(task):
    logits = logits_of(train_free.prototype(TRAIN, CASES[task], task, 3, {"temperature": 7.0}), TEST)
    for c in range(3):
        rows = c == SINGLE if task == "single-label" else MULTI[:, c] == 1
        mean = unit(TRAIN)[rows].mean(axis=0)
        assert np.allclose(logits[:, c], 7 * unit(TEST) @ (mean / np.linalg.norm(mean)), atol=1e-5)


def test_linear_is_scikit_learns():
    model = LogisticRegression(max_iter=5000).fit(unit(TRAIN), SINGLE)
    logits = logits_of(train_free.linear(TRAIN, SINGLE, "single-label", 3, {}), TEST)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(softmax, model.predict_proba(unit(TEST)), atol=1e-4)
    binary = LogisticRegression(max_iter=5000).fit(unit(TRAIN), SINGLE > 0)
    logits = logits_of(train_free.linear(TRAIN, (SINGLE > 0).astype(int), "single-label", 2, {}), TEST)
    assert np.allclose(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), binary.predict_proba(unit(TEST))[:, 1], atol=1e-4)
    each = logits_of(train_free.linear(TRAIN, MULTI, "multi-label", 3, {"C": 2.0}), TEST)
    one = LogisticRegression(C=2.0, max_iter=5000).fit(unit(TRAIN), MULTI[:, 1])
    assert np.allclose(each[:, 1], one.decision_function(unit(TEST)), atol=1e-4)


def test_knn_votes():
    train, targets = np.eye(3, dtype=np.float32), np.array([0, 1, 2])
    logits = logits_of(train_free.knn(train, targets, "single-label", 3, {"k": 1}), train)
    assert (logits.argmax(axis=1) == targets).all()
    with pytest.raises(MedfmcError, match="k is a whole number"):
        logits_of(train_free.knn(train, targets, "single-label", 3, {"k": 0}), train)


@pytest.mark.parametrize("head", train_free.HEADS)
@pytest.mark.parametrize(
    ("task", "targets"),
    [
        ("single-label", np.array([0] * 15 + [2] * 15)),
        ("single-label", np.ones(30, dtype=int)),
        ("multi-label", np.stack([np.zeros(30), np.ones(30), MULTI[:, 0]], axis=1).astype(int)),
    ],
)
def test_classes_that_the_support_set_does_not_show(head, task, targets):
    logits = logits_of(train_free.HEADS[head](TRAIN, targets, task, 3, {}), TEST)
    assert logits.shape == (20, 3)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    absent = [c for c in range(3) if not (targets == c).any()] if task == "single-label" else [0]
    assert (logits[:, absent] == -train_free.FAR).all()


@pytest.mark.parametrize("head", train_free.HEADS)
def test_an_empty_support_set(head):
    with pytest.raises(MedfmcError, match="support set is empty"):
        train_free.HEADS[head](TRAIN[:0], SINGLE[:0], "single-label", 3, {})
