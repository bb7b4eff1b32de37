"""The jackknife against leaving out patients one by one, and its intervals against what is known."""

import math

import numpy as np
import pytest
from invented_scores import invent

from medfmc_hf.errors import MedfmcError
from medfmc_hf.evaluation import jackknife as module
from medfmc_hf.evaluation.jackknife import Jackknife, jackknife
from medfmc_hf.scoring import score


@pytest.mark.parametrize("multilabel", [True, False])
def test_each_patient_is_left_out_once(multilabel):
    targets, scores, groups = invent(multilabel=multilabel)
    found = jackknife(targets, scores, groups, classes=["a", "b", "c"])
    assert found.point["score"] == pytest.approx(score(targets, scores, classes=["a", "b", "c"])["score"], abs=1e-12)
    assert found.patients == 12 and all(len(values) == 12 for values in found.left_out.values())
    expected = [score(targets[groups != g], scores[groups != g])["score"] for g in np.unique(groups)]
    np.testing.assert_allclose(np.sort(found.left_out["score"]), np.sort(expected), atol=1e-12)
    n, values = 12, np.array(expected)
    assert found.error("score") == pytest.approx(math.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum()))
    assert found.bias("score") == pytest.approx((n - 1) * (values.mean() - found.point["score"]))


def test_many_patients_are_left_out_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 400)
    scores = np.stack([-targets - rng.normal(size=400), targets + rng.normal(size=400)], axis=1)
    whole = jackknife(targets, scores)
    monkeypatch.setattr(module, "BLOCKS", 100)
    blocks = jackknife(targets, scores)
    assert (len(whole.left_out["auc"]), len(blocks.left_out["auc"])) == (400, 100)
    assert blocks.error("auc") == pytest.approx(whole.error("auc"), rel=0.2)


def test_neither_the_order_nor_the_names_of_patients_matter():
    targets, scores, groups = invent()
    first = jackknife(targets, scores, groups)
    order = np.random.default_rng(1).permutation(len(groups))
    again = jackknife(targets[order], scores[order], np.array([f"p{g:02d}" for g in groups])[order])
    assert again.interval("score") == pytest.approx(first.interval("score"), abs=1e-12)


def test_the_interval_of_a_mean_is_students_on_the_scale_of_the_log_odds():
    """The accuracy of independent images is a mean, whose jackknife is exact: bias 0, error the standard error of the mean."""
    stats = pytest.importorskip("scipy.stats")
    right = np.random.default_rng(0).random(50) < 0.7
    found = jackknife(np.ones(50, int), np.stack([~right, right], axis=1).astype(float))
    mean, error = right.mean(), right.std(ddof=1) / math.sqrt(50)
    assert found.bias("accuracy") == pytest.approx(0, abs=1e-12) and found.error("accuracy") == pytest.approx(error)
    half = stats.t(49).ppf(0.975) * error / (mean * (1 - mean))
    expected = [1 / (1 + math.exp(-(math.log(mean / (1 - mean)) + sign * half))) for sign in (-1, 1)]
    assert found.interval("accuracy") == pytest.approx(tuple(expected))


def test_the_p_of_a_difference_is_that_of_students_test():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    right, other = rng.random(60) < 0.7, rng.random(60) < 0.5
    a, b = (jackknife(np.ones(60, int), np.stack([~hits, hits], axis=1).astype(float)) for hits in (right, other))
    test = stats.ttest_rel(right.astype(float), other.astype(float))
    found = (a - b).difference("accuracy")
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    same = (a - a).difference("auc" if math.isfinite(a.point["auc"]) else "accuracy")
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_images_of_one_patient_widen_the_interval():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 10)
    targets = (rng.random(40) < 0.5).astype(int)[patient]
    signal = (rng.normal(size=40) + targets[::10])[patient]  # the images of a patient are alike
    scores = np.stack([-signal, signal], axis=1)
    assert np.diff(jackknife(targets, scores, patient).interval("auc")) > 2 * np.diff(jackknife(targets, scores).interval("auc"))


def test_every_interval_is_inside_the_range():
    for seed in range(30):
        targets, scores, groups = invent(rows=20, patients=4, seed=seed)
        found = jackknife(targets, scores, groups)
        for name in found.point:
            low, high = found.interval(name)
            assert math.isnan(low) or 0 <= low <= high <= 1
    targets = np.array([0, 1] * 10)
    assert jackknife(targets, np.eye(2)[targets]).interval("accuracy") == (1, 1)
    undefined = jackknife([[1, 1], [1, 1], [1, 1]], np.eye(3)[:, :2])
    assert all(math.isnan(end) for end in undefined.interval("auc")) and math.isnan((undefined - undefined).difference("auc").p)


def test_a_class_of_one_patient_is_as_uncertain_as_chance():
    targets = np.zeros((30, 2), int)
    targets[:, 0] = np.arange(30) % 2
    targets[0, 1] = 1  # one positive image, of one patient
    scores = np.random.default_rng(0).random((30, 2))
    scores[0, 1] = 0.99
    low, high = jackknife(targets, scores).interval("auc of 1")
    assert low < 0.5 and high > 0.99


def test_differences_and_means_are_paired():
    targets, scores, groups = invent()
    a, b = (jackknife(targets, s, groups) for s in (scores, scores[:, ::-1]))
    np.testing.assert_array_equal((a - b).left_out["auc"], a.left_out["auc"] - b.left_out["auc"])
    assert Jackknife.mean_of([a, b]).point["map"] == pytest.approx((a.point["map"] + b.point["map"]) / 2)
    assert Jackknife.mean_of([a, a]).interval("map") == pytest.approx(a.interval("map"))
    with pytest.raises(MedfmcError, match="same test rows"):
        a - jackknife(targets[groups > 0], scores[groups > 0], groups[groups > 0])


@pytest.mark.parametrize(("patients", "message"), [(["a"] * 60, "one patient"), (["a", "b"], "2 patient ids for 60 rows")])
def test_bad_input_is_named(patients, message):
    targets, scores, _ = invent()
    with pytest.raises(MedfmcError, match=message):
        jackknife(targets, scores, patients)
    with pytest.raises(MedfmcError, match="between 0 and 1"):
        Jackknife({"a": 0.5}, {"a": np.array([0.4, 0.6])}, np.arange(2)).interval("a", 95)
