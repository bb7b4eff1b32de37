"""DeLong against its definition and against resampling, Holm by hand, the t interval against scipy."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medfmc_hf.evaluation.bootstrap import bootstrap
from medfmc_hf.evaluation.statistics import auc_covariance, holm, normal_p_value, over_seeds


def slow_delong(positive, scores):
    """DeLong et al. (1988) by double loops: one image a patient."""
    aucs, tens, ones = [], [], []
    for row in scores:
        own, others = row[positive], row[~positive]
        kernel = np.array([[(a > b) + 0.5 * (a == b) for b in others] for a in own])
        aucs.append(kernel.mean())
        tens.append(kernel.mean(axis=1))
        ones.append(kernel.mean(axis=0))
    return np.array(aucs), np.cov(tens) / positive.sum() + np.cov(ones) / (~positive).sum()


def invent(rows=70, runs=3, seed=0):
    rng = np.random.default_rng(seed)
    positive = rng.random(rows) < 0.4
    return positive, np.round(positive * 0.8 + rng.normal(size=(runs, rows)), 1)


@given(st.integers(0, 1000))
def test_delong_agrees_with_its_definition(seed):
    positive, scores = invent(rows=30, seed=seed)
    assume(min(positive.sum(), (~positive).sum()) >= 2)
    aucs, covariance = auc_covariance(positive, scores)
    expected = slow_delong(positive, scores)
    np.testing.assert_allclose(aucs, expected[0], atol=1e-12)
    np.testing.assert_allclose(covariance, expected[1], atol=1e-12)


def test_patients_of_one_image_are_no_clusters():
    positive, scores = invent()
    names = np.array([f"patient {i}" for i in range(70)])
    np.testing.assert_allclose(auc_covariance(positive, scores, names)[1], auc_covariance(positive, scores)[1], atol=1e-15)


def test_an_image_given_twice_adds_no_information():
    """Obuchowski (1997): clusters of two equal images have the variance of the images alone."""
    positive, scores = invent()
    once = auc_covariance(positive, scores)[1]
    twice = auc_covariance(np.repeat(positive, 2), np.repeat(scores, 2, axis=1), np.repeat(np.arange(70), 2))[1]
    np.testing.assert_allclose(twice, once, rtol=1e-12)
    pretended = auc_covariance(np.repeat(positive, 2), np.repeat(scores, 2, axis=1))[1]
    np.testing.assert_allclose(pretended, once / 2, rtol=0.05)


def test_clustered_variance_is_that_of_the_bootstrap():
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 60, 900)
    lean = rng.normal(size=60)
    positive = rng.random(900) < 1 / (1 + np.exp(-lean))[patient]
    signal = positive + lean[patient] + rng.normal(size=900)
    scores = np.stack([-signal, signal], axis=1)
    replicates = bootstrap(positive.astype(int), scores, patient, replicates=3000).replicates["auc of 1"]
    aucs, covariance = auc_covariance(positive, signal, patient)
    assert aucs[0] == pytest.approx(replicates.mean(), abs=0.01)
    assert covariance[0, 0] ** 0.5 == pytest.approx(replicates.std(), rel=0.08)
    assert auc_covariance(positive, signal)[1][0, 0] < 0.7 * covariance[0, 0]


def test_too_few_patients_have_no_variance():
    aucs, covariance = auc_covariance([True, False, False], [[3, 1, 2], [1, 2, 3]])
    assert aucs.tolist() == [1, 0] and np.isnan(covariance).all()
    aucs, covariance = auc_covariance([True, True, False, False], [1, 2, 0, 3], ["a", "a", "b", "c"])
    assert aucs.tolist() == [0.5] and np.isnan(covariance).all()
    assert np.isnan(auc_covariance([False, False], [1, 2])[0]).all()


def test_normal_p_values():
    assert normal_p_value(1.959964, 1) == pytest.approx(0.05, abs=1e-6)
    assert normal_p_value(-3.919928, 4) == pytest.approx(0.05, abs=1e-6)
    assert normal_p_value(0, 0) == 1
    assert math.isnan(normal_p_value(0.1, 0)) and math.isnan(normal_p_value(0.1, math.nan))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.01, math.nan, 0.04])[::2] == pytest.approx([0.02, 0.04])
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_order_and_never_lowers(p):
    adjusted = holm(p)
    assert all(a >= raw and a <= 1 for a, raw in zip(adjusted, p))
    assert [a for _, a in sorted(zip(p, adjusted))] == sorted(adjusted)
    assert min(adjusted) == pytest.approx(min(1, min(p) * len(p)))


def test_the_interval_over_seeds_is_students():
    stats = pytest.importorskip("scipy.stats")
    values = [0.51, 0.55, 0.48, 0.60, 0.52]
    spread = over_seeds(values, 0.9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (spread.low, spread.high) == pytest.approx(tuple(expected))
    assert spread.mean == pytest.approx(0.532) and spread.sd == pytest.approx(np.std(values, ddof=1))
    assert math.isnan(spread.training_sd) and math.isnan(spread.split_sd)
    one = over_seeds([0.5])
    assert one.mean == 0.5 and math.isnan(one.sd) and math.isnan(one.low)


def test_the_interval_over_seeds_stays_inside_the_range():
    free, spread = over_seeds([0.99, 0.6, 1.0]), over_seeds([0.99, 0.6, 1.0], inside=(0.0, 1.0))
    assert free.high > 1 and (spread.low, spread.high) == (free.low, 1.0)


def test_the_spread_of_splits_and_that_of_training_seeds_are_told_apart():
    """Components of variance, found again from many invented runs."""
    rng = np.random.default_rng(0)
    splits = rng.normal(0, 0.03, 400)
    values = [0.5 + split + rng.normal(0, 0.05, 3) for split in splits]
    spread = over_seeds(values)
    assert spread.split_sd == pytest.approx(0.03, rel=0.15) and spread.training_sd == pytest.approx(0.05, rel=0.1)
    assert spread.sd == pytest.approx(np.std([own.mean() for own in values], ddof=1))
    still = over_seeds([[0.5, 0.7], [0.5, 0.7]])
    assert still.split_sd == 0 and still.training_sd == pytest.approx(np.std([0.5, 0.7], ddof=1))
    once = over_seeds([[0.5, 0.7]])
    assert math.isnan(once.sd) and once.training_sd == pytest.approx(np.std([0.5, 0.7], ddof=1))
