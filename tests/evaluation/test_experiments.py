"""Which runs are seeds of one thing, what it is called, and that every surface says the same of it."""

import json
import re

import pytest
from invented_runs import invent_run, invent_runs

from medfmc_hf.benchmark.grid_plan import Job
from medfmc_hf.benchmark.live import run_of
from medfmc_hf.cli import main
from medfmc_hf.errors import MedfmcError
from medfmc_hf.evaluation.experiments import adaptation_of, experiment_of, group, labels_of, one_experiment, read_run
from medfmc_hf.model_card import model_card
from medfmc_hf.reporting.board import make_board
from medfmc_hf.runs import RunConfig, RunRecord
from medfmc_hf.runs.folders import find_runs
from medfmc_hf.runs.identity import BORN


def runs_of(root):
    return [read_run(folder, record) for folder, record in find_runs(root)]


def test_a_record_names_the_adaptation_that_it_is_found_in(tmp_path):
    for method in ("lora", "vpt"):
        for shots in (1, 5):
            invent_run(tmp_path, subset="endo", method=method, shots=shots, rows=30)
    adaptations, experiments = group(runs_of(tmp_path))
    assert (len(adaptations), len(experiments)) == (2, 4)
    for experiment in experiments:
        assert {adaptation_of(run.record) for run in experiment.runs} == {experiment.adaptation}


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"epochs": 3}, "epochs"),
        ({"shots": 1}, "shots"),
        ({"model": "org/other"}, "backbone"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"rows": 31}, "test_rows"),
        ({"method_options": {"r": 4}}, "method_options"),
    ],
)
def test_what_differs_is_another_experiment(tmp_path, changes, differs):
    invent_run(tmp_path, **{"subset": "endo", "seed": 0, "rows": 30})
    invent_run(tmp_path, **{"subset": "endo", "seed": 1, "rows": 30} | changes)
    with pytest.raises(MedfmcError, match=rf"not seeds of one experiment, for they differ in .*{differs}"):
        one_experiment(runs_of(tmp_path))


@pytest.mark.parametrize("changes", [{}, {"training_seed": 7}, {"recipe": "none"}, {"predict_challenge": True}])
def test_what_does_not_is_the_same(tmp_path, changes):
    options = {"r": 4, "lora_alpha": 16, "lora_dropout": 0.1}
    for seed, more in ((0, {}), (1, changes)):
        invent_run(tmp_path, subset="endo", seed=seed, rows=30, method_options=options, learning_rate=0.01, weight_decay=0.1, **more)
    assert one_experiment(runs_of(tmp_path)).seeds == [0, 1]


def test_the_same_digits_on_every_surface(tmp_path, capsys):
    """score, report and the model card, of the same five runs."""
    for folder in invent_runs(tmp_path / "runs", methods=("lora",), subsets=("endo",), shots=(5,), rows=90, patients=26):
        (folder / "adapter").mkdir()
    (result,) = make_board(tmp_path / "runs").results
    assert main(["score", str(tmp_path / "runs"), "--json", str(tmp_path / "out.json"), "--quiet"]) == 0
    printed = capsys.readouterr().out
    (summary,) = json.loads((tmp_path / "out.json").read_text())["experiments"]
    card = model_card(experiment_of([tmp_path / "runs"]))
    for metric, title in (("map", "mAP"), ("auc", "AUC"), ("score", "Score")):
        estimate, said = result.metrics[metric], summary["metrics"][metric]
        assert said["test_interval"] == pytest.approx(estimate.test_interval, abs=1e-12)
        assert said["seed_interval"] == pytest.approx(estimate.seed_interval, abs=1e-12) and said["sd"] == pytest.approx(estimate.sd)
        for ends in (estimate.test_interval, estimate.seed_interval):
            shown = f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"
            assert shown in printed and re.search(rf"\| {title} \|.*{shown}", card)


def test_the_live_table_has_the_names_of_the_board(tmp_path):
    for epochs in (3, 5):
        invent_run(tmp_path, subset="endo", rows=30, epochs=epochs)
    board = {adaptation.label for adaptation in make_board(tmp_path, intervals=False).adaptations}
    records = [RunRecord.load(path) for path in tmp_path.rglob("run.json")]
    jobs = [Job(record.run_config, record.id, tmp_path, record.id) for record in records]
    assert set(labels_of(map(run_of, jobs)).values()) == board


def test_a_new_option_at_its_default_splits_no_row(tmp_path, monkeypatch):
    record = RunRecord.load(invent_run(tmp_path, subset="endo", rows=30))
    before, options = adaptation_of(record), RunConfig.to_dict
    monkeypatch.setitem(BORN, "of_the_next_version", "as ever")
    monkeypatch.setattr(RunConfig, "to_dict", lambda self: options(self) | {"of_the_next_version": "as ever"})
    assert adaptation_of(record) == before
    monkeypatch.setattr(RunConfig, "to_dict", lambda self: options(self) | {"of_the_next_version": "otherwise"})
    assert adaptation_of(record) != before


def test_options_that_a_method_does_not_read_neither_split_nor_name_its_rows(tmp_path):
    for seed in (0, 1):
        invent_run(tmp_path, RunConfig("endo", seed=seed, method="lora"), rows=30)
        invent_run(tmp_path, RunConfig("endo", seed=seed, method="knn", epochs=5 + seed), rows=30)
    adaptations, experiments = group([read_run(folder, record) for folder, record in find_runs(tmp_path)])
    assert [len(each.runs) for each in experiments] == [2, 2]
    assert [row.label.split(" · ")[0] for row in adaptations] == ["knn", "lora"] and all("epochs" not in row.label for row in adaptations)
    assert not any("epochs" in row.differs for row in adaptations)
