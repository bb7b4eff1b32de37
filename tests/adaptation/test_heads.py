"""Heads on frozen features: their file, and a classifier of backbone and head."""

import threading

import numpy as np
import pytest
import torch
from tiny_models import images, tiny

from medfmc_hf.adaptation import train_free
from medfmc_hf.adaptation.heads import HEAD, FrozenBackboneForImageClassification, features_of, load_head, save_head
from medfmc_hf.errors import MedfmcError
from medfmc_hf.models.backbones import Origin

FEATURES = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
TARGETS = {"single-label": np.arange(20) % 3, "multi-label": (np.random.default_rng(1).random((20, 3)) < 0.5).astype(int)}


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize("method", train_free.HEADS)
def test_a_head_that_is_read_back_gives_the_same_logits(method, task, tmp_path):
    head = train_free.HEADS[method](FEATURES, TARGETS[task], task, 3, {})
    save_head(head, tmp_path)
    x = torch.randn(9, 6)
    with torch.no_grad():
        assert torch.equal(load_head(tmp_path)(x), head(x))


@pytest.mark.parametrize(
    "content", [b"", b"no tensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "], ids=["empty", "text", "no description"]
)
def test_a_damaged_file_is_no_head(content, tmp_path):
    (tmp_path / HEAD).write_bytes(content)
    with pytest.raises(MedfmcError, match="damaged, or was not written by medfmc_hf"):
        load_head(tmp_path)


def test_neighbours_are_those_of_a_slow_search():
    k, temperature, multi = 4, 5.0, TARGETS["multi-label"]
    head = train_free.knn(FEATURES, multi, "multi-label", 3, {"k": k, "temperature": temperature})
    x = np.random.default_rng(2).normal(size=(7, 6)).astype(np.float32)
    with torch.no_grad():
        found = head(torch.from_numpy(x)).numpy()
    for row, image in enumerate(x):
        cosines = [float(image @ each / np.linalg.norm(image) / np.linalg.norm(each)) for each in FEATURES]
        nearest = sorted(range(20), key=lambda i: -cosines[i])[:k]
        weights = [np.exp(temperature * cosines[i]) for i in nearest]
        for label in range(3):
            share = sum(w * multi[i, label] for w, i in zip(weights, nearest)) / sum(weights)
            share = (k * share + multi[:, label].mean()) / (k + 1)
            assert found[row, label] == pytest.approx(np.log(share / (1 - share)), abs=1e-4)


def test_a_classifier_answers_several_threads_each_with_its_own_image():
    model = tiny("vit")
    model.origin = Origin("tiny", None, 16, "endo")
    classifier = FrozenBackboneForImageClassification(
        model, train_free.prototype(np.eye(4, 16), np.arange(4), "single-label", 4, {})
    ).eval()
    batches = [images("vit", 1) + number for number in range(8)]
    with torch.no_grad():
        expected = [classifier(pixel_values=batch).logits for batch in batches]
    found = [None] * 8

    def ask(number):
        with torch.no_grad():
            for _ in range(20):
                found[number] = classifier(pixel_values=batches[number]).logits
                assert torch.equal(found[number], expected[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, other) for one, other in zip(found, expected))


def test_the_head_of_the_backbone_takes_no_part():
    model = tiny("vit")
    model.origin = Origin("tiny", None, 16, "endo")
    head = train_free.prototype(np.eye(4, 16), np.arange(4), "single-label", 4, {})
    classifier, x = FrozenBackboneForImageClassification(model, head), images("vit", 2)
    with torch.no_grad():
        before = classifier(pixel_values=x).logits
        for name in classifier.unused_parts:
            classifier.get_submodule(name).weight.zero_()
        assert torch.equal(classifier(pixel_values=x).logits, before)
        assert torch.equal(before, head(features_of(model, x)))
    assert {name for name, p in classifier.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
