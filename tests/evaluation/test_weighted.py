"""The weighted score against scoring the repeated rows one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invented_scores import invent

from medfmc_hf.evaluation.weighted import WeightedScore
from medfmc_hf.scoring import score


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=40)
def test_a_replicate_is_the_score_of_the_repeated_rows(seed, multilabel):
    targets, scores, groups = invent(rows=25, patients=6, seed=seed, multilabel=multilabel)
    groups = np.unique(groups, return_inverse=True)[1]
    weights = np.random.default_rng(seed).integers(0, 4, (groups.max() + 1, 5))
    weights[np.bincount(groups).argmax()] += 1  # so that no replicate is empty
    found = WeightedScore(targets, scores, groups)(weights)
    for column in range(5):
        rows = np.repeat(np.arange(25), weights[groups, column])
        expected = score(targets[rows], scores[rows])
        for name in ("map" if multilabel else "accuracy", "auc", "score"):
            assert found[name][column] == pytest.approx(expected[name], abs=1e-12, nan_ok=True)
        for name, own in expected["per_class"].items():
            assert found[f"auc of {name}"][column] == pytest.approx(own["auc"], abs=1e-12, nan_ok=True)
            if multilabel:
                assert found[f"ap of {name}"][column] == pytest.approx(own["ap"], abs=1e-12, nan_ok=True)


def test_sums_beyond_what_float32_counts_are_made_in_float64():
    """The AUC is a ratio of sums of weights; with 2 ** 24 and 2 ** 24 + 1 of them float32 would call both the same."""
    targets, scores = np.array([1, 1, 0]), np.array([[0.0, 0.2], [0.0, 0.8], [0.0, 0.5]])  # one positive below the negative, one above it
    weights = np.array([[1 << 24], [(1 << 24) + 1], [1]])
    found = WeightedScore(targets, scores)(weights)
    assert found["auc of 1"][0] == ((1 << 24) + 1) / ((1 << 25) + 1) != 0.5


def test_a_class_of_one_threshold_and_ties_by_hand():
    """Two positives at 0.5 among negatives at 0.2, 0.5 and 0.9, of which the tied one counts twice."""
    targets, scores = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]]), np.array([[0.5, 0]] * 2 + [[0.2, 0], [0.5, 0], [0.9, 0]])
    found = WeightedScore(targets, scores)(np.array([[1], [1], [1], [2], [1]]))
    assert found["auc of 0"][0] == pytest.approx((1 + 2 / 2) / 4)  # below: one of four; tied: two of four, counting half
    assert found["ap of 0"][0] == pytest.approx(2 / (2 + 3))  # of the five rows at 0.5 or more two are positive


def test_the_point_counts_every_patient_once():
    targets, scores, groups = invent(rows=40, patients=7)
    assert WeightedScore(targets, scores, groups).point()["score"] == pytest.approx(score(targets, scores)["score"], abs=1e-12)
