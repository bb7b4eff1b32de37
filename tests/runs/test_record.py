import json
from dataclasses import replace

import numpy as np
import pytest

from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import Predictions, RunConfig, RunRecord, identity, load_predictions, save_predictions
from medfmc_hf.runs.folders import find_runs, run_folder

CONFIG = RunConfig(subset="endo", shots=5, seed=1, model="somewhere/backbone", method_options={"r": 4})


def record(**changes) -> RunRecord:
    values = {"id": identity(CONFIG, "data", "backbone"), "status": "finished", "config": CONFIG.to_dict()}
    return RunRecord(**(values | changes))


def test_config_survives_a_dict():
    assert RunConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


def test_config_names_its_dataset_config():
    assert str(CONFIG.dataset_config) == "endo-5shot-seed1"
    assert str(replace(CONFIG, protocol="official").dataset_config) == "endo-5shot-seed1-official"
    assert str(replace(CONFIG, protocol="transfer").dataset_config) == "endo-transfer"
    assert str(replace(CONFIG, shots=None).dataset_config) == "endo"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"subset": "lung"}, "chest, colon, endo"),
        ({"subset": "endo", "shots": 3}, "(1, 5, 10)"),
        ({"subset": "retino", "protocol": "official"}, "not in the challenge"),
        ({"subset": "endo", "epoch": 3}, "epochs"),
        ({"subset": "endo", "epochs": 1.5}, "whole number"),
        ({"subset": "endo", "learning_rate": float("nan")}, "above 0"),
        ({"subset": "endo", "optimizer": "lion"}, "adamw, sgd"),
    ],
)
def test_a_wrong_config_says_what_is_right(values, says):
    with pytest.raises(MedfmcError) as error:
        RunConfig.from_dict(values)
    assert says in str(error.value)


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


def test_runs_are_found_in_a_stable_order(tmp_path):
    for seed in (2, 0, 1):
        config = replace(CONFIG, seed=seed)
        one = record(id=identity(config, "data", "backbone"), config=config.to_dict())
        one.save(run_folder(tmp_path, config, one.id))
    assert [r.config["seed"] for _, r in find_runs(tmp_path)] == [0, 1, 2]
    with pytest.raises(MedfmcError, match="does not exist"):
        list(find_runs(tmp_path / "none"))


@pytest.mark.parametrize("multilabel", [True, False])
def test_predictions_survive_their_file(tmp_path, multilabel):
    rng = np.random.default_rng(0)
    config = replace(CONFIG, subset="endo" if multilabel else "retino")
    record(config=config.to_dict()).save(tmp_path)
    classes = 4 if multilabel else 5
    targets = rng.integers(0, 2, (7, classes)) if multilabel else rng.integers(0, classes, 7)
    names = np.array([f"image {i}" for i in range(7)])
    saved = Predictions(names, names, targets, rng.normal(size=(7, classes)).astype(np.float32))
    save_predictions(tmp_path, {"validation": saved, "test": saved})
    loaded = load_predictions(tmp_path, "test")
    for name in ("image_ids", "patient_ids", "targets", "logits"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
    with pytest.raises(MedfmcError, match="test, validation"):
        load_predictions(tmp_path, "train")


def test_predictions_are_the_same_bytes_each_time(tmp_path):
    one = Predictions(np.array(["a"]), np.array(["p"]), np.array([1]), np.array([[0.5, 1.5]], np.float32))
    paths = [save_predictions(tmp_path / name, {"test": one}) for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_probabilities_are_softmax_or_sigmoid_and_do_not_overflow():
    names = np.array(["a", "b"])
    logits = np.array([[0.0, 1000.0], [-1000.0, 0.0]], np.float32)
    np.testing.assert_allclose(Predictions(names, names, np.array([0, 1]), logits).probabilities, [[0, 1], [0, 1]])
    np.testing.assert_allclose(Predictions(names, names, np.array([[0, 1], [1, 0]]), logits).probabilities, [[0.5, 1], [0, 0.5]])
