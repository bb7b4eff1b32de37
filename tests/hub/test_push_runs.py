"""Run records on the Hub: enough for a board, without patient data unless asked for and without paths of this machine."""

import json

import numpy as np
import pytest
from adapted_runs import adapted_run
from invented_runs import invent_run
from PIL import Image

from medfmc_hf.errors import MedfmcError
from medfmc_hf.hub.push_runs import RecordsPush
from medfmc_hf.predict import load_adapted
from medfmc_hf.reporting.board import make_board
from medfmc_hf.runs import RunRecord, load_predictions


@pytest.fixture(scope="module")
def runs(tmp_path_factory, backbone):
    """A finished and a failed run on a local backbone; both name folders of this machine, in notes and in the error."""
    root = tmp_path_factory.mktemp("records")
    folder = adapted_run(root, backbone)
    record = RunRecord.load(folder)
    record.data["notes"] = [f"3 images are there more than once; the first is used, such as {root}/a/x.png and not {root}/b/x.png"]
    record.save(folder)
    failed = invent_run(
        root,
        subset="endo",
        seed=1,
        model=str(backbone),
        status="failed",
        error=f"Traceback\n{backbone}/model.safetensors of {backbone} is truncated",
    )
    assert failed.is_dir()
    return root


def contents(hub) -> dict[str, bytes]:
    files = hub.repos["dataset", "clinic/runs"].files
    return {path: hub.content("dataset", "clinic/runs", path) for path in files}


@pytest.mark.parametrize("adapters", [False, True])
def test_records_hold_no_patients_and_no_folders(client, runs, backbone, adapters):
    RecordsPush([runs], "clinic/runs", adapters=adapters)()
    repo = client.repos["dataset", "clinic/runs"]
    assert repo.private and sum(path.endswith("run.json") for path in repo.files) == 2
    assert any(path.endswith("adapter_model.safetensors") for path in repo.files) is adapters
    rows = load_predictions(next(path.parent for path in runs.rglob("predictions.parquet")))
    for path, content in contents(client).items():
        assert str(runs).encode() not in content and str(backbone.parent).encode() not in content, path
        assert not any(str(image).encode() in content for image in {*rows.image_ids, *rows.patient_ids}), path


def test_predictions_go_when_asked_for_and_a_board_is_made_of_them(client, runs, tmp_path):
    RecordsPush([runs], "clinic/runs", predictions=True)()
    for path, content in contents(client).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    board = make_board(tmp_path / "runs")
    assert board.counts == {"finished": 1, "failed": 1} and board.results[0].metrics["auc"].test_interval


def test_a_second_push_adds_and_leaves_the_card(client, runs, tmp_path):
    RecordsPush([runs], "clinic/runs")()
    repo = client.repos["dataset", "clinic/runs"]
    before = set(repo.files)
    client.commit(repo, "mine", {**repo.files, "README.md": b"mine"})
    invent_run(tmp_path, subset="colon", rows=30)
    assert "README.md" not in RecordsPush([tmp_path], "clinic/runs").preview().files
    assert "README.md" in RecordsPush([tmp_path], "clinic/runs").preview(offline=True).files
    RecordsPush([tmp_path], "clinic/runs")()
    assert before < set(repo.files) and repo.files["README.md"] == b"mine"
    assert json.loads(client.content("dataset", "clinic/runs", next(path for path in repo.files if "colon" in path)))["id"]


def test_what_is_not_ours_is_left_alone(client, runs, tmp_path):
    client.add_repo("dataset", "clinic/runs", {"data.csv": b"theirs"})
    with pytest.raises(MedfmcError, match="holds something else"):
        RecordsPush([runs], "clinic/runs")()
    with pytest.raises(MedfmcError, match="there is no run"):
        RecordsPush([tmp_path], "clinic/runs")()


def test_a_downloaded_sweep_predicts(client, runs, backbone, tmp_path):
    """Adapters that name a folder of another machine are rewritten when sent, and still match the hashes in the record."""
    RecordsPush([runs], "clinic/runs", predictions=True, adapters=True)()
    for path, content in contents(client).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(image)
    (here,) = [path.parent for path in runs.rglob("predictions.parquet")]
    (home,) = [path.parent for path in (tmp_path / "runs").rglob("predictions.parquet")]
    np.testing.assert_array_equal(load_predictions(home).logits, load_predictions(here).logits)
    expected = load_adapted(here).probabilities([image])
    np.testing.assert_array_equal(load_adapted(home, backbone=backbone).probabilities([image]), expected)
