import pytest

from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig, RunRecord, identity

CONFIG = RunConfig(subset="endo", shots=5, seed=1, model="somewhere/backbone", method_options={"r": 4})


def record(**changes) -> RunRecord:
    values = {"id": identity(CONFIG, "data", "backbone"), "status": "finished", "config": CONFIG.to_dict()}
    return RunRecord(**(values | changes))


def test_record_survives_its_file(tmp_path):
    path = record(scores={"test": {"map": 0.25, "auc": float("nan")}}).save(tmp_path)
    loaded = RunRecord.load(path)
    assert loaded.scores == {"test": {"map": 0.25, "auc": None}}
    assert loaded.run_config == CONFIG and loaded.subset.key == "endo"


@pytest.mark.parametrize(
    ("text", "says"), [("{", "not JSON"), ("[]", "schema 'list'"), ('{"schema": 1}', "not a run record"), ('{"schema": 99}', "99")]
)
def test_a_file_that_is_no_record_is_named(tmp_path, text, says):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(MedfmcError, match=r"run\.json") as error:
        RunRecord.load(tmp_path)
    assert says in str(error.value)


def test_seconds_of_a_runs_own_leave_out_what_runs_share(tmp_path):
    record = RunRecord("0" * 16, "finished", RunConfig("endo").to_dict())
    assert record.own_seconds is None
    record.cost = {"seconds": {"start": 3.0, "data": 2.0, "features": 4.0, "train": 5.0, "test": 1.0, "total": 15.5}}
    assert record.own_seconds == pytest.approx(6.5)


@pytest.mark.parametrize(("method", "trained", "known"), [("linear", 100, None), ("linear", 7, 7), ("full", 100, 100), ("lora", 9, 9)])
def test_older_records_count_a_whole_backbone_for_a_head(method, trained, known):
    record = RunRecord("0" * 16, "finished", RunConfig("endo", method=method).to_dict())
    record.cost = {"trainable_parameters": trained, "total_parameters": 100}
    assert record.trained_parameters == known
