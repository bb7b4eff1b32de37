"""Writing submissions from runs and reading any; what makes one valid is in test_submission_check.py."""

import zipfile

import numpy as np
import pytest
from invented_runs import invent_run, invent_runs

from medfmc_hf.errors import MedfmcError
from medfmc_hf.evaluation import submission
from medfmc_hf.evaluation.challenge import places
from medfmc_hf.runs import Predictions, load_predictions, save_predictions
from medfmc_hf.runs.folders import find_runs
from medfmc_hf.subsets import SEEDS


@pytest.fixture
def orders(monkeypatch):
    """The rows a phase asks for: some of the invented test images, in an order of their own."""
    asked = {}

    def order(data, phase, subset):
        assert data == "build"
        return asked[subset]

    monkeypatch.setattr(submission, "challenge_order", order)
    return asked


def fill(orders, runs):
    for folder, record in runs:
        names = [f"{name}.png" for name in load_predictions(folder).image_ids]
        orders[record.subset.key] = names[::-2]


def test_the_validation_zip(tmp_path, orders):
    invent_runs(tmp_path / "runs", methods=("lora",), seeds=(3,), rows=20)
    runs = list(find_runs(tmp_path / "runs"))
    fill(orders, runs)
    out = submission.write(runs, "validation", "build", tmp_path / "result.zip")
    with zipfile.ZipFile(out) as archive:
        assert sorted(archive.namelist()) == sorted(f"result/{submission.file_name(place)}" for place in places((None,)))
        for folder, record in runs:
            config = record.run_config
            text = archive.read(f"result/{config.subset}_{config.shots}-shot_submission.csv").decode()
            rows = [line.split(",") for line in text.splitlines()]
            assert text.endswith("\n") and "\r" not in text
            assert [row[0] for row in rows] == orders[config.subset]
            assert all(len(cell.split(".")[1]) == 8 for row in rows for cell in row[1:])
            predictions = load_predictions(folder)
            expected = dict(zip(predictions.image_ids, predictions.probabilities))
            for name, *cells in rows:
                assert np.array(cells, float) == pytest.approx(np.around(expected[name.removesuffix(".png")], 8), abs=1e-12)
    again = submission.write(runs, "validation", "build", tmp_path / "again.zip")
    assert again.read_bytes() == out.read_bytes()
    read = submission.read(out)
    assert read.phase == "validation" and set(read.files) == set(places((None,))) and read.problems == []


def test_the_final_zip_takes_all_seeds_and_the_private_images(tmp_path, orders):
    invent_runs(tmp_path / "runs", methods=("lora",), rows=12)
    runs = list(find_runs(tmp_path / "runs"))
    fill(orders, runs)
    with pytest.raises(MedfmcError, match=r"no rows of split 'challenge-test'.*\n.*predict_challenge"):
        submission.write(runs, "final", "build", tmp_path / "result.zip")
    assert not (tmp_path / "result.zip").exists()
    for folder, _ in runs:
        test = load_predictions(folder)
        save_predictions(
            folder, {"test": test, "challenge-test": Predictions(test.image_ids, test.patient_ids, test.targets * 0 - 1, test.logits + 1)}
        )
    read = submission.read(submission.write(runs, "final", "build", tmp_path / "result.zip"))
    assert read.phase == "final" and set(read.files) == set(places(SEEDS))
    folder = next(folder for folder, record in runs if str(record.run_config.dataset_config) == "endo-5shot-seed2")
    hidden = load_predictions(folder, "challenge-test")
    row = read.files[2, "endo", 5][0]
    assert np.array(row[1:], float) == pytest.approx(dict(zip(hidden.image_ids, hidden.probabilities))[row[0][:-4]], abs=1e-8)


def test_one_seed_has_to_be_chosen(tmp_path, orders):
    invent_runs(tmp_path / "runs", methods=("lora",), seeds=(0, 4), rows=10)
    runs = list(find_runs(tmp_path / "runs"))
    fill(orders, runs)
    with pytest.raises(MedfmcError, match=r"the seeds 0, 4; .* choose it with --seed"):
        submission.write(runs, "validation", "build", tmp_path / "result.zip")
    with pytest.raises(MedfmcError, match="9 of 9 runs are missing: exp2 chest 1-shot"):
        submission.write(runs, "validation", "build", tmp_path / "result.zip", seed=1)
    submission.write(runs, "validation", "build", tmp_path / "result.zip", seed=4)
    with pytest.raises(MedfmcError, match="exists already"):
        submission.write(runs, "validation", "build", tmp_path / "result.zip", seed=0)
    with pytest.raises(MedfmcError, match="27 of 45 runs are missing: exp2 chest 1-shot"):
        submission.write(runs, "final", "build", tmp_path / "final.zip")


def test_missing_ambiguous_and_short_runs_are_named(tmp_path, orders):
    invent_runs(tmp_path / "runs", methods=("lora",), seeds=(0,), rows=10)
    runs = list(find_runs(tmp_path / "runs"))
    fill(orders, runs)
    with pytest.raises(MedfmcError, match="1 of 9 runs are missing: exp1 chest 10-shot"):
        submission.write(runs[1:], "validation", "build", tmp_path / "result.zip")
    invent_run(tmp_path / "runs", subset="endo", shots=5, seed=0, method="full", rows=10)
    with pytest.raises(MedfmcError, match="2 runs are of exp1 endo 5-shot"):
        submission.write(list(find_runs(tmp_path / "runs")), "validation", "build", tmp_path / "result.zip")
    orders["colon"] = [*orders["colon"], "elsewhere.png"]
    with pytest.raises(MedfmcError, match=r"no prediction of 1 of the 6 images in split 'test', such as elsewhere\.png"):
        submission.write(runs, "validation", "build", tmp_path / "result.zip")
    with pytest.raises(MedfmcError, match="9 of 9 runs are missing"):
        submission.write([], "validation", "build", tmp_path / "result.zip")


def test_reading_zips_and_folders(tmp_path, orders):
    invent_runs(tmp_path / "runs", methods=("lora",), seeds=(0,), rows=8)
    runs = list(find_runs(tmp_path / "runs"))
    fill(orders, runs)
    out = submission.write(runs, "validation", "build", tmp_path / "result.zip")
    expected = submission.read(out).files
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "unpacked")
    (tmp_path / "unpacked" / "result" / ".DS_Store").touch()
    for folder in (tmp_path / "unpacked", tmp_path / "unpacked" / "result"):
        read = submission.read(folder)
        assert read.files == expected and read.problems == []
    flat = tmp_path / "flat.zip"
    with zipfile.ZipFile(flat, "w") as archive:
        for path in (tmp_path / "unpacked" / "result").glob("*.csv"):
            archive.write(path, path.name)
        archive.writestr("__MACOSX/._endo.csv", "junk")
    read = submission.read(flat)
    assert read.files == expected and "expects one folder, result/" in read.problems[0]


def test_files_in_another_form_are_read_and_are_problems(tmp_path):
    """The challenge would not take them, but their numbers are what they are."""
    text = "b.png,0.1,0.25,0.3,0.4\na.png,0.5,0.6,0.7,0.8\n"
    path = tmp_path / "endo_5-shot_submission.csv"
    path.write_text(text)
    plain = submission.scored_files(submission.read(tmp_path), {"endo": {"a": (1,), "b": ()}})[None, "endo", 5]
    for content, problem in (
        (
            text.replace(",", ";").replace(".", ",").replace(",png", ".png").encode(),
            "is not separated by commas: its first row is 'b.png;0",
        ),
        (text.encode("utf-16"), "is not UTF-8 text"),
        ("\n".join(["", *text.split("\n")]).encode(), None),
    ):
        path.write_bytes(content)
        read = submission.read(tmp_path)
        assert [problem in found for found in read.problems] == [True] * bool(problem)
        item = submission.scored_files(read, {"endo": {"a": (1,), "b": ()}})[None, "endo", 5]
        assert item.scores.tolist() == plain.scores.tolist() and item.image_ids.tolist() == ["b", "a"]
    path.write_bytes(b"b.png,\xe9\n")
    assert [problem.split(";")[0] for problem in submission.read(tmp_path).problems] == [f"{path.name} is not UTF-8 text"]


def test_what_is_no_submission_is_named(tmp_path):
    for name, message in (("none", "does not exist"), ("text.zip", "not a zip"), ("empty", "it has nothing"), ("other", "it has a.csv")):
        path = tmp_path / name
        if name == "text.zip":
            path.write_text("hello")
        elif name != "none":
            path.mkdir()
        if name == "other":
            (path / "a.csv").touch()
        with pytest.raises(MedfmcError, match=message):
            submission.read(path)


def test_scoring_the_files(tmp_path):
    (tmp_path / "endo_5-shot_submission.csv").write_text("b.png,0.1,0.2,0.3,0.4\na.png,0.5,0.6,0.7,0.8\n")
    (tmp_path / "colon_5-shot_submission.csv").write_text("x.png,0.1,0.9\n")
    scored = submission.scored_files(submission.read(tmp_path), {"endo": {"a": (1,), "b": ()}})
    assert list(scored) == [(None, "endo", 5)] and scored[None, "endo", 5].targets.tolist() == [[0] * 4, [0, 1, 0, 0]]
    (tmp_path / "endo_5-shot_submission.csv").write_text("image,ulcer,erosion,polyp,tumor\nb.png,0.1,0.2,0.3,0.4\n")
    with pytest.raises(MedfmcError, match="has a header"):
        submission.scored_files(submission.read(tmp_path), {"endo": {"b": ()}})


def test_the_order_comes_from_the_challenge_config(tmp_path, monkeypatch):
    from medfmc_hf.data import loading

    def load_splits(data, config):
        assert (data, str(config)) == ("build", "endo-challenge")
        return {"validation": {"image_id": ["b", "a"]}}

    monkeypatch.setattr(loading, "load_splits", load_splits)
    assert submission.challenge_order("build", "validation", "endo") == ["b.png", "a.png"]
    with pytest.raises(MedfmcError, match="no images of the final phase for endo: its endo-challenge has validation"):
        submission.challenge_order("build", "final", "endo")
