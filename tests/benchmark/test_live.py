import pytest
from invented_runs import invent_run

from medfmc_hf.benchmark.grid_plan import Job
from medfmc_hf.benchmark.live import Table, duration
from medfmc_hf.reporting.board import make_board
from medfmc_hf.runs import RunRecord


def test_a_number_is_the_mean_over_seeds_and_not_over_runs(tmp_path):
    folders = [
        invent_run(tmp_path, subset="retino", rows=60, seed=seed, training_seed=training_seed)
        for seed, training_seed in ((0, None), (1, None), (1, 7), (1, 8))
    ]
    records = [RunRecord.load(folder) for folder in folders]
    table = Table([Job(record.run_config, record.id, folder, record.id) for record, folder in zip(records, folders)], shown=False)
    table.show()
    scores = [record.scores["test"]["accuracy"] for record in records]
    over_seeds, over_runs = (scores[0] + sum(scores[1:]) / 3) / 2, sum(scores) / 4
    assert abs(over_seeds - over_runs) > 5e-5, "the case must be one where the two differ"
    (line,) = [row for row in table.rows() if row.startswith("retino")]
    assert f"{100 * over_seeds:.2f}/" in line and "(4/4)" in line


def test_columns_and_names_are_those_of_the_board(tmp_path):
    folders = [
        invent_run(tmp_path, subset="endo", rows=40, patients=15, **options)
        for options in ({"shots": 5}, {"shots": None}, {"protocol": "transfer"}, {"shots": 5, "method": "linear"})
    ]
    for folder in folders:
        record = RunRecord.load(folder)
        record.data["invented"] = True
        record.save(folder)
    records = [RunRecord.load(folder) for folder in folders]
    table = Table([Job(record.run_config, record.id, folder, record.id) for record, folder in zip(records, folders)], shown=False)
    head, *rows = table.rows()
    assert "5-shot, split seeds  whole pool, training seeds  train_20, training seeds" in head
    labels = {adaptation.label for adaptation in make_board(tmp_path, all_data=True).adaptations}
    assert all("invented" in label and any(label in row for row in rows) for label in labels) and len(labels) == len(rows)


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (600, "10 min"), (3900, "1 h 05 min"), (3599, "1 h 00 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text
