import pytest
from invented_runs import invent_run

from medfmc_hf.benchmark.grid_plan import Job
from medfmc_hf.benchmark.live import Table, duration
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


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (600, "10 min"), (3900, "1 h 05 min"), (3599, "1 h 00 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text
