"""The weighted score against scoring the repeated rows one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invented_scores import invent

from medfmc_hf.evaluation.weighted import WeightedScore
from medfmc_hf.scoring import score


@given(st.integers(0, 10_000), st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_replicate_is_the_score_of_the_repeated_rows(seed, multilabel):
    targets, scores, groups = invent(rows=25, patients=6, seed=seed, multilabel=multilabel)
    weights = np.random.default_rng(seed).integers(0, 4, (6, 5))
    weights[np.bincount(groups, minlength=6).argmax()] += 1  # so that no replicate is empty
    found = WeightedScore(targets, scores, groups, None, 6)(weights)
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
    targets, scores, groups = invent(rows=40, patients=2)
    heavy = WeightedScore(targets, scores, groups, None, 1 << 24)
    weights = np.zeros((1 << 24, 1))
    weights[:2] = [[1], [(1 << 24) - 1]]
    exact = WeightedScore(targets, scores, groups, None, 2)
    exact._exact = np.float64
    assert heavy(weights)["auc"] == exact(weights[:2])["auc"]
