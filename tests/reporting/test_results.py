"""The numbers of a result against the records and predictions of its runs."""

import numpy as np
import pytest
from invented_runs import invent_run
from scipy.special import stdtrit

from medfmc_hf.reporting.board import make_board
from medfmc_hf.runs import RunRecord, load_predictions
from medfmc_hf.scoring import score


def test_a_result_holds_what_its_records_hold(few_runs, few_board):
    records = [RunRecord.load(path) for path in few_runs.rglob("run.json")]
    assert [adaptation.method for adaptation in few_board.adaptations] == ["linear", "lora"] and len(few_board.results) == 4
    for adaptation in few_board.adaptations:
        for shots in (1, 5):
            own = sorted(
                (r for r in records if r.config["method"] == adaptation.method and r.config["shots"] == shots),
                key=lambda r: r.config["seed"],
            )
            result = few_board.result(adaptation.key, "endo", str(shots))
            assert result.seeds == (0, 1, 2, 3, 4) and result.runs == tuple(r.id for r in own)
            for metric in ("map", "auc", "score"):
                values = [r.scores["test"][metric] for r in own]
                estimate = result.metrics[metric]
                assert estimate.mean == pytest.approx(np.mean(values)) and estimate.sd == pytest.approx(np.std(values, ddof=1))
                half = 2.7764451 * np.std(values, ddof=1) / np.sqrt(5)  # Student's t, 4 degrees of freedom
                assert estimate.seed_interval == pytest.approx((np.mean(values) - half, np.mean(values) + half))
            polyp = [r.scores["test"]["per_class"]["polyp"]["ap"] for r in own]
            assert result.per_class["polyp"]["ap"] == pytest.approx(np.mean(polyp))
            assert result.cost["seconds"] == pytest.approx(np.mean([r.cost["seconds"]["total"] for r in own]))


def test_the_test_interval_is_that_of_a_plain_jackknife_over_patients(few_runs):
    """The mean over seeds, each patient left out of all of them at once, against the same done slowly."""
    result = make_board(few_runs).results[0]
    folders = [path.parent for path in few_runs.rglob("run.json") if RunRecord.load(path).id in result.runs]
    predictions = [load_predictions(folder) for folder in folders]
    patients = np.unique(predictions[0].patient_ids)
    point = np.mean([score(p.targets, p.probabilities)["auc"] for p in predictions])
    left_out = np.array(
        [
            np.mean([score(p.targets[rows], p.probabilities[rows])["auc"] for p in predictions])
            for patient in patients
            if (rows := np.flatnonzero(predictions[0].patient_ids != patient)).any()
        ]
    )
    n = len(patients)
    center = point - (n - 1) * (left_out.mean() - point)
    half = stdtrit(n - 1, 0.975) * np.sqrt((n - 1) * left_out.var()) / (center * (1 - center))
    expected = [1 / (1 + np.exp(-(np.log(center / (1 - center)) + sign * half))) for sign in (-1, 1)]
    assert result.metrics["auc"].test_interval == pytest.approx(tuple(expected), abs=1e-9)


def test_training_seeds_are_no_other_experiment_and_their_spread_is_told_apart(tmp_path):
    for seed in (0, 1):
        for training_seed in (None, 100, 200):
            invent_run(tmp_path, subset="endo", seed=seed, training_seed=training_seed, rows=40)
    (result,) = make_board(tmp_path).results
    estimate = result.metrics["map"]
    assert (result.seeds, len(result.runs), estimate.seeds, estimate.runs) == ((0, 1), 6, 2, 6)
    values = [RunRecord.load(path).scores["test"]["map"] for path in sorted(tmp_path.rglob("run.json"))]
    assert estimate.mean == pytest.approx(np.mean(values)) and estimate.training_sd > 0 and estimate.split_sd >= 0


def test_undefined_scores_are_none(tmp_path):
    folder = invent_run(tmp_path, subset="endo", rows=30)
    record = RunRecord.load(folder)
    record.scores["test"] |= {"map": float("nan"), "score": float("nan")}
    record.save(folder)
    (result,) = make_board(tmp_path).results
    assert result.metrics["map"].mean is None and result.metrics["auc"].mean is not None


def test_costs_are_means_over_the_runs_that_say_them(tmp_path):
    for seed, (seconds, device) in enumerate(((10.0, "cuda: b"), (20.0, "cpu: a"), (None, None))):
        folder = invent_run(tmp_path, subset="endo", seed=seed, rows=20)
        record = RunRecord.load(folder)
        record.cost = {"trainable_parameters": 100 * (seed + 1)} | ({"seconds": {"total": seconds}, "device": device} if device else {})
        record.save(folder)
    (result,) = make_board(tmp_path, intervals=False).results
    assert result.cost == {
        "trainable_parameters": 200, "total_parameters": None, "adapter_bytes": None, "peak_memory_bytes": None,
        "seconds": 15, "own_seconds": 15, "train_seconds": None, "devices": ["cpu: a", "cuda: b"],
    }  # fmt: skip


def test_numbers_of_a_class_are_means_over_seeds_and_not_over_runs(tmp_path):
    folders = [
        invent_run(tmp_path, subset="endo", rows=60, seed=seed, training_seed=training_seed)
        for seed, training_seed in ((0, None), (0, 7), (0, 8), (1, None))
    ]
    tables = [RunRecord.load(folder).scores["test"]["per_class"] for folder in folders]
    (result,) = make_board(tmp_path, intervals=False).results
    for name, row in result.per_class.items():
        values = [table[name]["auc"] for table in tables]
        assert row["auc"] == pytest.approx((np.mean(values[:3]) + values[3]) / 2)
