"""A resolved run: the steps of an epoch, whose labels are public, and the precision of the network."""

import numpy as np
import pytest
import torch

from medfmc_hf.images.processing import Processing
from medfmc_hf.models.checkpoint import Checkpoint
from medfmc_hf.runs import RunConfig
from medfmc_hf.subsets import SUBSETS
from medfmc_hf.training.resolved import ResolvedRun, Split


def split_of(config: RunConfig, targets, name: str = "train") -> Split:
    return Split(config.dataset_config, name, object(), np.asarray(targets))


def resolved(rows: int = 10, **options) -> ResolvedRun:
    config = RunConfig("retino", **options)
    return ResolvedRun(
        config=config,
        changed={},
        id="",
        fingerprint="",
        subset=SUBSETS["retino"],
        data={},
        checkpoint=Checkpoint("a/b", None, "0" * 40),
        processing=Processing(4, 4, (4, 4)),
        train=split_of(config, [0] * rows),
        scored={},
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize(("rows", "batch_size", "steps"), [(8, 4, 2), (9, 4, 3), (10, 4, 3), (3, 4, 1), (4, 1, 4)])
def test_the_last_step_of_an_epoch_may_be_on_a_smaller_batch(rows, batch_size, steps):
    assert resolved(rows, batch_size=batch_size).steps_per_epoch == steps


@pytest.mark.parametrize(
    ("method", "by_gradient"),
    [("lora", True), ("linear-sgd", True), ("full", True), ("linear", False), ("knn", False), ("prototype", False)],
)
def test_a_head_on_frozen_features_is_not_trained_by_gradient(method, by_gradient):
    assert resolved(method=method).by_gradient is by_gradient


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_network_computes_in_the_precision_of_the_config(dtype, expected):
    with resolved(dtype=dtype).autocast():
        assert torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == expected


def test_one_row_without_a_public_label_makes_a_split_unlabelled():
    config = RunConfig("endo")
    assert split_of(config, [0, 1, 2]).is_labelled
    assert not split_of(config, [0, -1, 2]).is_labelled
    assert not split_of(config, [[0, 1], [-1, -1]]).is_labelled
    assert len(split_of(config, [[0, 1], [1, 1], [0, 0]])) == 3


def test_splits_of_one_name_are_one_key():
    config, other = RunConfig("endo", seed=1), RunConfig("endo", seed=2)
    known = {split_of(config, [0, 1]): "first"}
    assert known[split_of(config, [1, 1, 1])] == "first"
    assert split_of(other, [0, 1]) not in known and split_of(config, [0, 1], "test") not in known
