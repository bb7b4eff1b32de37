"""The challenge's aggregate: 18 or 90 numbers, and what is missing."""

import numpy as np
import pytest
from invented_runs import invent_run, invent_runs

from medfmc_hf.errors import MedfmcError
from medfmc_hf.evaluation.challenge import aggregate, places, results_of_runs, title
from medfmc_hf.runs import RunRecord
from medfmc_hf.runs.folders import find_runs


def results(seeds, value=0.5):
    return {place: {"accuracy": value, "map": value, "auc": value} for place in places(seeds)}


def test_places_are_those_of_the_challenge():
    assert len(places((None,))) == 9 and len(places((0, 1, 2, 3, 4))) == 45
    assert title((None, "endo", 5)) == "endo 5-shot" and title((1, "colon", 10)) == "exp2 colon 10-shot"


def test_the_mean_of_18():
    given = results((None,))
    given[None, "colon", 1] = {"accuracy": 0.9, "auc": 0.7}
    whole = aggregate(given)
    assert whole.expected == 18 and whole.missing == ()
    assert whole.mean == pytest.approx((16 * 0.5 + 0.9 + 0.7) / 18)
    assert (None, "colon", 1, "map") not in whole.values


def test_one_seed_is_18_runs_and_two_are_short_of_90():
    assert aggregate(results((3,))).mean == 0.5
    two = aggregate(results((0, 1)))
    assert two.expected == 90 and two.mean is None and len(two.missing) == 54
    assert aggregate(results((0, 1, 2, 3, 4))).mean == 0.5


def test_what_is_missing_is_listed():
    given = results((None,))
    del given[None, "endo", 5]
    given[None, "chest", 1] = {"map": 0.1, "auc": float("nan")}
    given[None, "chest", 5] = {"map": None, "auc": 0.3}
    part = aggregate(given)
    assert part.missing == ("chest 1-shot AUC", "chest 5-shot mAP", "endo 5-shot mAP", "endo 5-shot AUC")
    assert part.mean is None
    assert part.partial_mean == pytest.approx((12 * 0.5 + 0.1 + 0.3) / 14)
    assert aggregate({}).partial_mean is None and len(aggregate({}).missing) == 18


def test_other_places_are_refused():
    with pytest.raises(MedfmcError, match="endo 3-shot is no part"):
        aggregate({(None, "endo", 3): {}})


def test_from_run_records(tmp_path):
    invent_runs(tmp_path, methods=("lora",), rows=12, predictions=False)
    invent_run(tmp_path, subset="neojaundice", shots=5, seed=0, rows=12)
    invent_run(tmp_path, subset="endo", shots=None, seed=0, rows=12)
    invent_run(tmp_path, subset="endo", shots=5, seed=0, method="full", status="failed")
    records = [record for _, record in find_runs(tmp_path)]
    whole = aggregate(results_of_runs(records))
    own = [r for r in records if r.status == "finished" and r.subset.challenge and r.config["shots"]]
    expected = [r.scores["test"][metric] for r in own for metric in (r.subset.metric, "auc")]
    assert whole.mean == pytest.approx(np.mean(expected)) and len(expected) == 90
    assert results_of_runs(records, "challenge-validation") == {}


def test_two_methods_have_no_aggregate(tmp_path):
    for method in ("lora", "linear"):
        invent_run(tmp_path, subset="endo", shots=5, seed=0, method=method, rows=12)
    with pytest.raises(MedfmcError, match="both of endo 5-shot, seed 0"):
        results_of_runs([record for _, record in find_runs(tmp_path)])


def test_shrunk_and_whole_images_make_no_aggregate(tmp_path):
    for subset, side in (("endo", None), ("colon", 512)):
        folder = invent_run(tmp_path, subset=subset, rows=30)
        record = RunRecord.load(folder)
        record.data["max_side"] = side
        record.save(folder)
    with pytest.raises(MedfmcError, match=r"not pooled, for their images differ: .*shrunk to at most 512"):
        results_of_runs([record for _, record in find_runs(tmp_path)])
