"""An estimate over seeds: which runs it is of, and what it says where something is missing."""

import numpy as np
import pytest
from invented_scores import invent

from medfmc_hf.errors import MedfmcError
from medfmc_hf.evaluation.bootstrap import bootstrap
from medfmc_hf.evaluation.intervals import by_key, estimate, mean_over_seeds
from medfmc_hf.evaluation.jackknife import jackknife


def resampled(number=0, resample=jackknife):
    """Of one of several models on the same test set."""
    targets, scores, groups = invent()
    return resample(targets, np.random.default_rng(number).permuted(scores, axis=0) if number else scores, groups)


def test_a_seed_counts_once_however_often_it_was_trained():
    own = [resampled(n) for n in range(3)]
    found = estimate("map", [0.2, 0.4, 0.9], [0, 0, 1], own)
    assert found.values == pytest.approx((0.3, 0.9)) and found.mean == pytest.approx(0.6)
    assert (found.seeds, found.runs) == (2, 3) and found.sd == pytest.approx(np.std([0.3, 0.9], ddof=1))
    assert found.training_sd == pytest.approx(np.std([0.2, 0.4], ddof=1))
    points = [each.point["map"] for each in own]
    mean = mean_over_seeds(own, [0, 0, 1])
    assert mean.point["map"] == pytest.approx((points[0] + points[1]) / 4 + points[2] / 2)
    assert found.test_interval == mean.interval("map")


@pytest.mark.parametrize("resample", [jackknife, bootstrap])
def test_the_test_interval_is_that_of_the_mean(resample):
    own = [resampled(n, resample) for n in range(2)]
    found = estimate("auc", [each.point["auc"] for each in own], [0, 1], own, 0.9)
    assert found.test_interval == type(own[0]).mean_of(own).interval("auc", 0.9)


def test_undefined_values_are_left_out_and_their_seeds_stay():
    found = estimate("auc", [None, 0.4, float("nan"), 0.6], [0, 1, 2, 3], [None, resampled(), None, resampled(1)])
    assert found.values == (None, 0.4, None, 0.6) and (found.mean, found.seeds, found.runs) == (pytest.approx(0.5), 2, 2)
    assert found.test_interval is not None  # both runs that define it are at hand
    nothing = estimate("auc", [None, None], [0, 1], [None, None])
    assert nothing.values == (None, None) and (nothing.mean, nothing.sd, nothing.seed_interval, nothing.test_interval) == (None,) * 4


def test_without_the_predictions_of_every_run_there_is_no_test_interval():
    """Of some of the runs it would be the interval of another number than the mean that is shown."""
    values = [0.5, 0.6]
    assert estimate("auc", values, [0, 1], [resampled(), None]).test_interval is None
    targets, scores, groups = invent()
    fewer = jackknife(targets[groups > 0], scores[groups > 0], groups[groups > 0])
    assert estimate("auc", values, [0, 1], [resampled(), fewer]).test_interval is None
    assert estimate("recall of 0", values, [0, 1], [resampled(), resampled(1)]).test_interval is None  # nobody resamples it
    with pytest.raises(MedfmcError, match="same test rows"):
        mean_over_seeds([resampled(), fewer], [0, 1])


def test_one_seed_has_no_spread():
    found = estimate("auc", [0.5], [3], [resampled()])
    assert (found.sd, found.seed_interval, found.split_sd, found.training_sd) == (None,) * 4 and found.test_interval is not None


def test_seeds_come_in_their_first_order():
    assert by_key("abcd", [2, 0, 2, 1]) == {2: ["a", "c"], 0: ["b"], 1: ["d"]}
    assert list(by_key("abcd", [2, 0, 2, 1])) == [2, 0, 1]


def test_there_is_no_joint_interval_over_different_patients():
    """As of the validation sets of several seeds, each of which is what its support set leaves of the pool."""
    rng = np.random.default_rng(0)
    targets, scores = rng.integers(0, 2, 40), rng.random((40, 2))
    patients = np.array([f"study{row // 2}" for row in range(40)])
    one, same, other = (jackknife(targets, scores, ids) for ids in (patients, patients, np.char.add(patients, "b")))
    values = [one.point["auc"]] * 2
    assert estimate("auc", values, [0, 1], [one, same]).test_interval is not None
    assert estimate("auc", values, [0, 1], [one, other]).test_interval is None
    with pytest.raises(MedfmcError, match="only runs on the same test rows"):
        mean_over_seeds([one, other], [0, 1])
