"""The bootstrap against scoring the resampled rows one by one, and its intervals against what is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfmc_hf.errors import MedfmcError
from medfmc_hf.evaluation import bootstrap as module
from medfmc_hf.evaluation.bootstrap import Bootstrap, WeightedScore, bootstrap, mean_of
from medfmc_hf.scoring import score


def invent(rows=60, classes=3, patients=12, seed=0, multilabel=True):
    rng = np.random.default_rng(seed)
    targets = rng.random((rows, classes)) < 0.3 if multilabel else rng.integers(0, classes, rows)
    return targets, rng.integers(0, 8, (rows, classes)) / 7, rng.integers(0, patients, rows)


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
    drawn = np.concatenate(list(module._resamples(20, 2000, 0)), axis=1)
    assert drawn.shape == (20, 2000) and (drawn.sum(axis=0) == 20).all()
    assert drawn.mean(axis=1) == pytest.approx(np.ones(20), abs=0.1)
    assert drawn.var() == pytest.approx(1 - 1 / 20, abs=0.05)


@pytest.mark.parametrize("patients", [7, 1500])
def test_the_jackknife_leaves_out_each_patient_once(patients):
    left = np.concatenate(list(module._left_out(patients, 0)), axis=1)
    assert left.shape == (patients, min(patients, module.JACKKNIFE_BLOCKS))
    assert ((left == 0).sum(axis=1) == 1).all() and ((left == 0).sum(axis=0) >= 1).all()


def test_pictures_of_one_patient_widen_the_interval():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 10)
    targets = (rng.random(40) < 0.5).astype(int)[patient]
    signal = (rng.normal(size=40) + targets[::10])[patient]  # the pictures of a patient are alike
    scores = np.stack([-signal, signal], axis=1)
    by_patient = np.diff(bootstrap(targets, scores, patient).interval("auc"))
    by_picture = np.diff(bootstrap(targets, scores).interval("auc"))
    assert by_patient > 2 * by_picture


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
    ours = bootstrap(targets, scores, replicates=6000, bca=True).interval("auc", method=method)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_bca_of_the_variance_moves_the_way_efron_says():
    """Efron and Tibshirani: the variance is biased downwards and skewed, so its BCa interval lies above the percentile interval."""
    rng = np.random.default_rng(0)
    sample = rng.normal(size=30)
    replicates = np.array([np.var(rng.choice(sample, 30)) for _ in range(4000)])
    jackknife = np.array([np.var(np.delete(sample, i)) for i in range(30)])
    made = Bootstrap({"v": float(np.var(sample))}, {"v": replicates}, {"v": jackknife}, 30)
    percentile, bca = made.interval("v", method="percentile"), made.interval("v", method="bca")
    center = 2 * np.var(sample) - replicates.mean()
    assert made.interval("v") == pytest.approx((center - 1.96 * replicates.std(), center + 1.96 * replicates.std()), rel=1e-3)
    assert bca[0] > percentile[0] and bca[1] > percentile[1]


def test_differences_and_means_are_paired():
    targets, scores, groups = invent()
    a, b = (bootstrap(targets, s, groups, bca=True) for s in (scores, scores[:, ::-1]))
    assert (a - a).interval("score") == (0, 0) and (a - a).p_value("score") == 1
    np.testing.assert_array_equal((a - b).replicates["auc"], a.replicates["auc"] - b.replicates["auc"])
    assert (a - b).point["auc"] == a.point["auc"] - b.point["auc"]
    assert mean_of([a, b]).point["map"] == pytest.approx((a.point["map"] + b.point["map"]) / 2)
    assert mean_of([a, a]).interval("map") == pytest.approx(a.interval("map"))
    with pytest.raises(MedfmcError, match="same test rows"):
        a - bootstrap(targets[groups > 0], scores[groups > 0], groups[groups > 0])


def test_the_p_value_falls_with_the_difference_and_never_to_zero():
    rng = np.random.default_rng(0)
    values = rng.normal(size=999)
    p = [Bootstrap({"x": d}, {"x": values + d}, None, 9).p_value("x") for d in (0.0, 1.0, 2.0, 9.0)]
    assert p[0] > 0.5 and p[0] > p[1] > p[2] > p[3] == pytest.approx(2 / 1000)


def test_a_class_that_a_resample_misses_is_left_out_of_that_resample():
    targets = np.zeros((20, 2), int)
    targets[0] = 1
    targets[1:8, 0] = 1
    scores = np.random.default_rng(0).random((20, 2))
    result = bootstrap(targets, scores)
    missing = np.isnan(result.replicates["auc of 1"])
    assert 0.2 < missing.mean() < 0.5  # (1 - 1/20) ** 20 = 0.36
    np.testing.assert_array_equal(result.replicates["auc"][missing], result.replicates["auc of 0"][missing])
    low, high = result.interval("auc of 1", method="percentile")
    assert 0 <= low <= high <= 1


def test_an_undefined_score_has_no_interval():
    result = bootstrap([[1, 1], [1, 1], [1, 1]], np.eye(3)[:, :2], bca=True)
    assert all(math.isnan(end) for end in result.interval("auc"))
    assert math.isnan((result - result).p_value("auc"))


def test_a_perfect_score_has_an_interval_of_no_width():
    targets = np.array([0, 1] * 10)
    assert bootstrap(targets, np.eye(2)[targets], bca=True).interval("accuracy", method="bca") == (1, 1)


def test_sums_beyond_what_float32_counts_are_made_in_float64():
    targets, scores, groups = invent(rows=40, patients=2)
    heavy = WeightedScore(targets, scores, groups, None, 1 << 24)
    weights = np.zeros((1 << 24, 1))
    weights[:2] = [[1], [(1 << 24) - 1]]
    exact = WeightedScore(targets, scores, groups, None, 2)
    exact._exact = np.float64
    assert heavy(weights)["auc"] == exact(weights[:2])["auc"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": ["a"] * 60}, "one patient"),
        ({"patients": ["a", "b"]}, "2 patient ids for 60 rows"),
        ({"replicates": 0}, "at least one replicate"),
    ],
)
def test_bad_input_is_named(options, message):
    targets, scores, _ = invent()
    with pytest.raises(MedfmcError, match=message):
        bootstrap(targets, scores, **options)


def test_bad_intervals_are_named():
    targets, scores, groups = invent()
    result = bootstrap(targets, scores, groups)
    for options, message in (
        ({"level": 95}, "between 0 and 1"),
        ({"method": "exact"}, "normal, percentile or bca"),
        ({"method": "bca"}, "bca=True"),
    ):
        with pytest.raises(MedfmcError, match=message):
            result.interval("auc", **options)
