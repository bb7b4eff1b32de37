"""The file of predictions: what was written is read back, and no file of another run is."""

import json

import numpy as np
import pytest
from invented_runs import invent_run

from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import Predictions, RunConfig, RunRecord, hashes_of, load_predictions, save_predictions
from medfmc_hf.runs.folders import record_in


@pytest.mark.parametrize("multilabel", [True, False])
def test_predictions_survive_their_file(tmp_path, multilabel):
    rng = np.random.default_rng(0)
    RunRecord("0" * 16, "finished", RunConfig("endo" if multilabel else "retino").to_dict()).save(tmp_path)
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


def test_predictions_of_another_run_are_not_taken(tmp_path):
    folders = [invent_run(tmp_path, subset="endo", seed=seed, rows=30) for seed in (0, 1)]
    for folder in folders:
        record = RunRecord.load(folder)
        record.files = hashes_of(folder)
        record.save(folder)
        load_predictions(folder)
    first, second = (folder / "predictions.parquet" for folder in folders)
    swapped = first.read_bytes(), second.read_bytes()
    first.write_bytes(swapped[1]), second.write_bytes(swapped[0])
    for folder in folders:
        with pytest.raises(MedfmcError, match=r"predictions.parquet is not the file that this run wrote"):
            load_predictions(folder)
    record = RunRecord.load(folders[0])
    record.files = {}  # as records were before
    record.save(folders[0])
    assert len(load_predictions(folders[0]).image_ids) == 30
    assert record.check_file(folders[0], "predictions.parquet") is False


def test_a_damaged_parquet_file_is_no_traceback(tmp_path):
    folder = invent_run(tmp_path, subset="endo", rows=30)
    path = folder / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(MedfmcError, match=r"predictions\.parquet cannot be read \(.*damaged"):
        load_predictions(folder)
    assert record_in(folder) is not None and np.isfinite(json.loads((folder / "run.json").read_text())["scores"]["test"]["auc"])
