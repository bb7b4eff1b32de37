"""The bootstrap's intervals against what is known."""

import math

import numpy as np
import pytest
from invented_scores import invent

from medfmc_hf.errors import MedfmcError
from medfmc_hf.evaluation.bootstrap import Bootstrap, bootstrap
from medfmc_hf.scoring import score


@pytest.mark.parametrize("multilabel", [True, False])
def test_the_point_is_the_score(multilabel):
    targets, scores, groups = invent(multilabel=multilabel)
    result, expected = bootstrap(targets, scores, groups, classes=["a", "b", "c"]), score(targets, scores, classes=["a", "b", "c"])
    assert result.point["score"] == pytest.approx(expected["score"], abs=1e-12)
    assert result.point["auc of b"] == pytest.approx(expected["per_class"]["b"]["auc"], abs=1e-12)
    assert result.patients == 12
    assert all(len(values) == 1000 for values in result.replicates.values())


def test_the_seed_and_the_patients_decide_the_resamples():
    targets, scores, groups = invent()
    first = bootstrap(targets, scores, groups, replicates=300, seed=5)
    order = np.random.default_rng(1).permutation(len(groups))
    again = bootstrap(targets[order], scores[order], np.array([f"p{g:02d}" for g in groups])[order], replicates=300, seed=5)
    np.testing.assert_allclose(first.replicates["score"], again.replicates["score"], atol=1e-12)
    other = bootstrap(targets, scores, groups, replicates=300, seed=6)
    assert not np.array_equal(first.replicates["score"], other.replicates["score"])


def test_every_patient_is_drawn_as_often_as_chance_has_it():
    """The accuracy of a model that is right on one patient alone is how often that one was drawn."""
    drawn = np.stack([bootstrap(np.arange(20) == n, np.eye(2)[[1] * 20], replicates=2000).replicates["accuracy"] for n in range(20)])
    assert (drawn.sum(axis=0) == pytest.approx(1)) and (20 * drawn).mean(axis=1) == pytest.approx(np.ones(20), abs=0.1)
    assert (20 * drawn).var() == pytest.approx(1 - 1 / 20, abs=0.05)


def test_images_of_one_patient_widen_the_interval():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 10)
    targets = (rng.random(40) < 0.5).astype(int)[patient]
    signal = (rng.normal(size=40) + targets[::10])[patient]  # the images of a patient are alike
    scores = np.stack([-signal, signal], axis=1)
    by_patient = np.diff(bootstrap(targets, scores, patient).interval("auc"))
    by_image = np.diff(bootstrap(targets, scores).interval("auc"))
    assert by_patient > 2 * by_image


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_scipy_finds_the_same_interval(method):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    targets = rng.integers(0, 2, 80)
    signal = targets + rng.normal(size=80)
    scores = np.stack([-signal, signal], axis=1)

    def auc(rows):
        return score(targets[rows], scores[rows])["auc"]

    theirs = stats.bootstrap(
        (np.arange(80),), lambda rows: auc(rows.astype(int)), n_resamples=1500, vectorized=False, random_state=np.random.default_rng(0),
        method="BCa" if method == "bca" else "percentile",
    ).confidence_interval  # fmt: skip
    ours = bootstrap(targets, scores, replicates=6000, method=method).interval("auc")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_bca_of_the_variance_moves_the_way_efron_says():
    """Efron and Tibshirani: the variance is biased downwards and skewed, so its BCa interval lies above the percentile interval."""
    rng = np.random.default_rng(0)
    sample = rng.normal(size=30)
    replicates = np.array([np.var(rng.choice(sample, 30)) for _ in range(4000)])
    point = {"v": float(np.var(sample))}
    left_out = {"v": np.array([np.var(np.delete(sample, i)) for i in range(30)])}
    percentile, bca = (
        Bootstrap(point, {"v": replicates}, method, left_out, np.arange(30)).interval("v") for method in ("percentile", "bca")
    )
    assert bca[0] > percentile[0] and bca[1] > percentile[1]


def test_means_are_paired():
    targets, scores, groups = invent()
    a, b = (bootstrap(targets, s, groups, method="bca") for s in (scores, scores[:, ::-1]))
    assert Bootstrap.mean_of([a, b]).point["map"] == pytest.approx((a.point["map"] + b.point["map"]) / 2)
    np.testing.assert_allclose(Bootstrap.mean_of([a, b]).replicates["auc"], (a.replicates["auc"] + b.replicates["auc"]) / 2)
    assert Bootstrap.mean_of([a, a]).interval("map") == pytest.approx(a.interval("map"))
    with pytest.raises(MedfmcError, match="same test rows"):
        Bootstrap.mean_of([a, bootstrap(targets[groups > 0], scores[groups > 0], groups[groups > 0])])


def test_a_class_that_a_resample_misses_is_left_out_of_that_resample():
    targets = np.zeros((20, 2), int)
    targets[0] = 1
    targets[1:8, 0] = 1
    scores = np.random.default_rng(0).random((20, 2))
    result = bootstrap(targets, scores)
    missing = np.isnan(result.replicates["auc of 1"])
    assert 0.2 < missing.mean() < 0.5  # (1 - 1/20) ** 20 = 0.36
    np.testing.assert_array_equal(result.replicates["auc"][missing], result.replicates["auc of 0"][missing])
    low, high = result.interval("auc of 1")
    assert 0 <= low <= high <= 1


def test_an_undefined_score_has_no_interval():
    result = bootstrap([[1, 1], [1, 1], [1, 1]], np.eye(3)[:, :2], method="bca")
    assert all(math.isnan(end) for end in result.interval("auc"))


def test_a_perfect_score_has_an_interval_of_no_width():
    targets = np.array([0, 1] * 10)
    assert bootstrap(targets, np.eye(2)[targets], method="bca").interval("accuracy") == (1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": ["a"] * 60}, "one patient"),
        ({"patients": ["a", "b"]}, "2 patient ids for 60 rows"),
        ({"replicates": 0}, "at least one replicate"),
        ({"method": "exact"}, "normal, percentile, bca"),
    ],
)
def test_bad_input_is_named(options, message):
    targets, scores, _ = invent()
    with pytest.raises(MedfmcError, match=message):
        bootstrap(targets, scores, **options)


def test_a_level_is_between_0_and_1():
    targets, scores, groups = invent()
    with pytest.raises(MedfmcError, match="between 0 and 1"):
        bootstrap(targets, scores, groups).interval("auc", 95)
