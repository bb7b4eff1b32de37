"""The board: which runs make which rows, what is compared, what is missing, and what is said of what is not shown."""

import json
import shutil

import pytest
from invented_runs import invent_run, invent_runs

from medfmc_hf.errors import MedfmcError
from medfmc_hf.reporting.board import make_board
from medfmc_hf.runs import RunRecord, load_predictions, save_predictions


def change(folder, **values):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_records_of_the_old_schema_are_shown_as_such_and_never_pooled(tmp_path):
    for seed in range(4):
        folder = invent_run(tmp_path, subset="endo", seed=seed, rows=40)
        if seed < 2:
            change(folder, schema=1)
    board = make_board(tmp_path)
    assert sorted(result.seeds for result in board.results) == [(0, 1), (2, 3)] and not board.comparisons
    assert sum("schema 1" in adaptation.label for adaptation in board.adaptations) == 1


def test_replaced_images_are_another_experiment(tmp_path):
    for seed in range(3):
        folder = invent_run(tmp_path, subset="endo", seed=seed, rows=40)
        change(folder, data=RunRecord.load(folder).data | {"images_sha256": "one" if seed else "other"})
    board = make_board(tmp_path)
    assert sorted(result.seeds for result in board.results) == [(0,), (1, 2)] and len({a.label for a in board.adaptations}) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 50}, {"learning_rate": 0.01}, {"image_size": 384}, {"select": "best"}, {"protocol": "official"}, {"model": "org/other"},
        {"method_options": {"r": 4}}, {"augmentation": "none"}, {"batch_size": 8}, {"dtype": "bfloat16"},
    ],
    ids=str,
)  # fmt: skip
def test_what_differs_is_another_row(tmp_path, other):
    for seed, options in ((0, {}), (1, other)):
        invent_run(tmp_path, subset="endo", seed=seed, rows=30, **options)
    board = make_board(tmp_path, intervals=False)
    assert len(board.adaptations) == 2 and len({adaptation.label for adaptation in board.adaptations}) == 2
    assert all(len(result.seeds) == 1 for result in board.results)
    if "model" not in other:
        assert all(adaptation.differs.keys() == other.keys() for adaptation in board.adaptations)


def test_asking_for_more_predictions_is_not_another_row(tmp_path):
    for seed, more in ((0, False), (1, True)):
        invent_run(tmp_path, subset="endo", seed=seed, rows=30, predict_challenge=more)
    assert [result.seeds for result in make_board(tmp_path, intervals=False).results] == [(0, 1)]


def test_a_backbone_is_its_weights_not_its_name(tmp_path):
    folders = [
        invent_run(tmp_path, subset="endo", seed=seed, rows=30, model=model) for seed, model in enumerate(("a/vit", "b/vit", "a/vit"))
    ]
    for folder, weights in zip(folders, ("one", "one", "two")):
        change(folder, backbone={"fingerprint": weights})
    board = make_board(tmp_path, intervals=False)
    assert sorted(result.seeds for result in board.results) == [(0, 1), (2,)]
    assert len({adaptation.label for adaptation in board.adaptations}) == 2


def test_seeds_on_other_test_rows_are_another_row(tmp_path):
    for seed, rows in enumerate((30, 30, 40)):
        invent_run(tmp_path, subset="endo", seed=seed, rows=rows)
    board = make_board(tmp_path)
    assert sorted((result.seeds, result.test_rows) for result in board.results) == [((0, 1), 30), ((2,), 40)]
    assert not board.comparisons  # nothing of the two may be paired


def test_what_a_run_does_not_say_makes_no_test_set(tmp_path):
    invent_run(tmp_path, subset="endo", rows=30)
    invent_run(tmp_path, subset="endo", rows=30, method="linear", predictions=False)
    invent_run(tmp_path, subset="endo", method="full", status="failed")
    assert not any("test set" in adaptation.label for adaptation in make_board(tmp_path, intervals=False).adaptations)


def test_a_run_without_predictions_joins_its_row_and_is_named(tmp_path):
    for seed in range(3):
        invent_run(tmp_path, subset="endo", seed=seed, rows=30, predictions=seed != 1)
    board = make_board(tmp_path)
    (result,) = board.results
    assert result.seeds == (0, 1, 2) and result.metrics["auc"].seeds == 3
    assert result.metrics["auc"].test_interval is None  # of two seeds it would be another number than the mean shown
    assert any("predictions.parquet" in note and result.runs[1] in note for note in board.notes)


def test_predictions_that_are_not_the_records_are_told(tmp_path):
    _, tampered, broken = (invent_run(tmp_path, subset="colon", shots=shots, rows=30, patients=9) for shots in (1, 5, 10))
    predictions = load_predictions(tampered)
    predictions.logits[:] = -predictions.logits
    save_predictions(tampered, {"test": predictions})
    (broken / "predictions.parquet").write_bytes(b"PAR1 and then nothing")
    board = make_board(tmp_path)
    by_shots = {result.shots: result for result in board.results}
    assert by_shots["1"].metrics["auc"].test_interval and not by_shots["5"].metrics["auc"].test_interval
    assert any("not those of" in note and RunRecord.load(tampered).id in note for note in board.notes)
    assert any(RunRecord.load(broken).id in note for note in board.notes)


def test_one_run_has_no_spread_and_no_comparison(tmp_path):
    invent_run(tmp_path, subset="retino", shots=None, rows=40)
    board = make_board(tmp_path)
    (result,) = board.results
    estimate = result.metrics["accuracy"]
    assert (estimate.sd, estimate.seed_interval, estimate.seeds) == (None, None, 1) and estimate.test_interval
    assert result.shots == "pool" and not board.comparisons
    assert [(gap["shots"], gap["seeds"]) for gap in board.gaps] == [("pool", [1, 2, 3, 4])]


def test_failures_are_listed_and_count_as_missing(tmp_path):
    invent_run(tmp_path, subset="endo", seed=0, rows=30)
    failed = invent_run(tmp_path, subset="endo", seed=1, status="failed", error="out of memory")
    board = make_board(tmp_path, intervals=False)
    assert len(board.adaptations) == 1  # a run that failed before it knew its backbone stands in the row of those that did not
    assert [(f["id"], f["seed"], f["error"]) for f in board.failed] == [(RunRecord.load(failed).id, 1, "out of memory")]
    assert {"adaptation": board.adaptations[0].key, "subset": "endo", "shots": "5", "seeds": [1, 2, 3, 4]} in board.gaps
    assert board.absent == ["chest", "colon", "neojaundice", "retino"] and board.counts == {"finished": 1, "failed": 1}


def test_only_failures_make_a_board_too(tmp_path):
    invent_run(tmp_path, subset="endo", status="failed")
    board = make_board(tmp_path)
    assert not board.results and len(board.failed) == 1 and not board.references


def test_a_copy_counts_once_and_a_mended_failure_not_at_all(tmp_path):
    folder = invent_run(tmp_path / "a", subset="endo", rows=30)
    shutil.copytree(folder, tmp_path / "b" / folder.name)
    change(tmp_path / "b" / folder.name, status="failed", error="killed")
    board = make_board([tmp_path / "b", tmp_path / "a"], intervals=False)
    assert board.counts == {"finished": 1, "failed": 0} and any("several folders" in note for note in board.notes)


def test_two_runs_of_one_seed_are_not_averaged(tmp_path):
    folder = invent_run(tmp_path / "a", subset="endo", rows=30)
    other = tmp_path / "b" / folder.name
    shutil.copytree(folder, other)
    change(other, id="0123456789abcdef", finished_at="2027-01-01T00:00:00+00:00")
    board = make_board(tmp_path, intervals=False)
    assert board.results[0].runs == ("0123456789abcdef",) and board.left_out == [RunRecord.load(folder).id]
    assert any("another run of the same seed" in " ".join(note.split()) for note in board.notes)


def test_gaps_are_the_seeds_of_the_grid_without_a_run(tmp_path):
    invent_runs(tmp_path, methods=("lora",), subsets=("endo",), shots=(1, 5, 10), seeds=(0, 1, 3), rows=20)
    invent_runs(tmp_path, methods=("linear",), subsets=("colon",), shots=(10,), rows=20, patients=6)
    board = make_board(tmp_path, intervals=False)
    found = {
        (next(s.method for s in board.adaptations if s.key == g["adaptation"]), g["subset"], g["shots"]): g["seeds"] for g in board.gaps
    }
    every = [0, 1, 2, 3, 4]
    assert found == {
        **{("lora", "endo", shots): [2, 4] for shots in ("1", "5", "10")},
        **{("lora", "colon", shots): every for shots in ("1", "5", "10")},
        **{("linear", "endo", shots): every for shots in ("1", "5", "10")},
        **{("linear", "colon", shots): every for shots in ("1", "5")},
    }


def test_pairs_are_compared_on_common_seeds_and_corrected(few_runs, few_board):
    comparison = next(c for c in few_board.comparisons if (c.shots, c.metric) == ("5", "auc"))
    (pair,) = comparison.pairs
    left, right = (few_board.result(key, "endo", "5") for key in comparison.adaptations)
    assert pair["difference"] == pytest.approx(left.metrics["auc"].mean - right.metrics["auc"].mean)
    assert pair["low"] < pair["difference"] < pair["high"] and pair["p_holm"] == pair["p"]
    assert pair["seeds"] == [0, 1, 2, 3, 4] and pair["wins"] + pair["losses"] == 5
    assert (pair["p"] < 0.05) == (not pair["low"] < 0 < pair["high"])


def test_holm_corrects_over_all_pairs_of_a_column(tmp_path):
    invent_runs(tmp_path, methods=("linear", "lora", "vpt-deep", "full"), subsets=("colon",), shots=(5,), rows=60, patients=20)
    comparisons = make_board(tmp_path).comparisons
    assert [comparison.metric for comparison in comparisons] == ["accuracy", "auc", "score"]
    for comparison in comparisons:
        assert len(comparison.pairs) == 6
        smallest = min(comparison.pairs, key=lambda pair: pair["p"])
        assert smallest["p_holm"] == pytest.approx(min(1, 6 * smallest["p"]))


def test_no_runs_and_unknown_folders_are_errors(tmp_path):
    with pytest.raises(MedfmcError, match="no run below"):
        make_board(tmp_path)
    with pytest.raises(MedfmcError, match="does not exist"):
        make_board(tmp_path / "nowhere")


def test_few_patients_are_told(tmp_path):
    invent_run(tmp_path, subset="endo", rows=60, patients=8)
    assert any("8 different studies are too narrow" in note for note in make_board(tmp_path).notes)


@pytest.mark.parametrize("config", [{"subset": "brain"}, {}, {"subset": "endo", "temperature": 1}])
def test_a_record_of_another_kind_is_named(tmp_path, config):
    folder = invent_run(tmp_path, subset="endo", rows=20)
    change(folder, config=config)
    with pytest.raises(MedfmcError, match=folder.name):
        make_board(tmp_path, intervals=False)


# --- images that are not the published ones ---


def with_data(root, **data):
    """Five seeds of one experiment whose records say so of their data."""
    for seed in range(5):
        folder = invent_run(root, subset="endo", shots=5, seed=seed, rows=40)
        change(folder, data=json.loads((folder / "run.json").read_text())["data"] | data)


@pytest.mark.parametrize("mark", ["invented", "incomplete"])
def test_runs_on_unfit_data_are_shown_only_when_asked_for(tmp_path, mark):
    invent_run(tmp_path / "real", subset="endo", method="linear", rows=40)
    with_data(tmp_path / "other", **{mark: True})
    board = make_board(tmp_path, intervals=False)
    assert [adaptation.method for adaptation in board.adaptations] == ["linear"] and board.counts["finished"] == 1
    assert any(f"their images are {mark}" in note and "5 runs" in note and "--all-data" in note for note in board.notes)
    board = make_board(tmp_path, intervals=False, all_data=True)
    (row,) = [adaptation for adaptation in board.adaptations if adaptation.method == "lora"]
    assert mark in row.label and board.counts["finished"] == 6
    with pytest.raises(MedfmcError, match=rf"nothing below .* can be shown.\n.*{mark}"):
        make_board(tmp_path / "other", intervals=False)


def test_shrunk_builds_have_a_row_of_their_own(tmp_path):
    with_data(tmp_path / "shrunk", max_side=512)
    for seed in range(3):
        change(invent_run(tmp_path / "whole", subset="endo", shots=5, seed=seed, rows=40), id=f"{seed:016x}")
    board = make_board(tmp_path, intervals=False)
    labels = {adaptation.label: len(board.result(adaptation.key, "endo", "5").seeds) for adaptation in board.adaptations}
    assert labels == {"lora · vit-base-patch16-224-in21k": 3, "lora · vit-base-patch16-224-in21k, shrunk to at most 512 pixels a side": 5}
