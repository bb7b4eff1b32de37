"""`medfmc score` as it is typed."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
from invented_runs import invent_run, invent_runs
from trees import FORMS, save_table

from medfmc_hf.cli import main
from medfmc_hf.reporting.board import make_board
from medfmc_hf.runs import RunRecord, load_predictions, save_predictions
from medfmc_hf.subsets import SUBSETS

CSV = "image_id,patient_id,label,cat,dog\n" + "".join(
    f"i{n},p{n // 2},{n % 2},{0.9 - 0.1 * (n % 3)},{0.1 + 0.1 * (n % 3)}\n" for n in range(12)
)


@pytest.fixture
def say(capsys):
    """Runs a command, returns what it printed."""

    def run(*words, status=0):
        assert main([*map(str, words), "--quiet"]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return run


def test_a_run(tmp_path, say):
    folder = invent_run(tmp_path, subset="endo", shots=5, seed=0, rows=60, patients=12)
    out = say("score", folder, "--per-class", "--replicates", 200, "--json", tmp_path / "out.json")
    record = RunRecord.load(folder)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["runs"][0]["result"]["map"] == pytest.approx(record.scores["test"]["map"], abs=1e-6)
    low, high = report["runs"][0]["intervals"]["auc"]
    assert f"{100 * low:.2f} to {100 * high:.2f}" in out and low < report["runs"][0]["result"]["auc"] < high
    assert "12 studies" in out and "tumor" in out
    assert "by the interval over 12 studies" in out and "chance (50.00" in out


def test_seeds_are_summed_up(tmp_path, say):
    invent_runs(tmp_path, methods=("lora",), subsets=("endo",), shots=(5,), rows=60, patients=12)
    out = say("score", tmp_path, "--replicates", 200, "--json", tmp_path / "out.json")
    summary = json.loads((tmp_path / "out.json").read_text())["experiments"][0]
    values = [run["result"]["auc"] for run in json.loads((tmp_path / "out.json").read_text())["runs"]]
    assert summary["seeds"] == [0, 1, 2, 3, 4] and summary["metrics"]["auc"]["mean"] == pytest.approx(sum(values) / 5)
    assert "endo-5shot lora · vit-base-patch16-224-in21k, 5 split seeds" in out and "95% over seeds (t)" in out
    assert "95% over studies, these models" in out
    assert "is the larger uncertainty of the score" in out


def test_score_and_report_make_the_same_of_a_folder_with_everything_in_it(tmp_path, capsys):
    """Missing and wrong predictions, a copy, a replaced run, a failed run: the same names and numbers, and nothing silent."""
    folders = invent_runs(tmp_path / "runs", methods=("lora",), subsets=("colon",), shots=(5,), rows=60, patients=20)
    (folders[1] / "predictions.parquet").unlink()
    predictions = load_predictions(folders[2])
    predictions.logits[:] = -predictions.logits
    save_predictions(folders[2], {"test": predictions})
    shutil.copytree(folders[3], tmp_path / "runs" / "copy")
    again = RunRecord.load(folders[4])
    again.id, again.finished_at, again.scores["test"]["auc"] = 16 * "f", "2027-01-01T00:00:00+00:00", 0.875
    again.save(tmp_path / "runs" / "again")
    invent_run(tmp_path / "runs", subset="colon", shots=5, seed=0, method="lora", epochs=3, status="failed")
    assert main(["score", str(tmp_path / "runs"), "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr()
    for words in ("seed1", "seed2", "1 run found in several folders", "is a run that failed"):
        assert words in printed.err
    board = make_board(tmp_path / "runs")
    (result,) = board.results
    label = next(adaptation.label for adaptation in board.adaptations if adaptation.key == result.adaptation)
    assert f"colon-5shot {label}, 5 split seeds" in printed.out
    (summary,) = json.loads((tmp_path / "out.json").read_text())["experiments"]
    for metric, estimate in result.metrics.items():
        assert summary["metrics"][metric] == json.loads(json.dumps(dataclasses.asdict(estimate)))
    rows = [line[: line.index("  ")] for line in printed.out.splitlines() if line.startswith("colon-5shot-seed") and "  " in line]
    assert len(rows) == len(set(rows)) == 6


def test_training_seeds_are_named_where_there_is_one_support_set(tmp_path, say):
    invent_runs(tmp_path, methods=("lora",), subsets=("endo",), shots=(None,), seeds=(0, 1, 2), rows=40)
    out = say("score", tmp_path)
    assert all(f"training seed {seed} " in out for seed in range(3)) and "3 training seeds" in out


def test_the_official_mode_repeats_the_auc_of_the_class_before(tmp_path, say):
    rows = "".join(f"x{n},{labels},.{n}1,.{n}2,.{9 - n},.5\n" for n, labels in enumerate(["0", "1 2", "", "0 1", "2", ""]))
    (tmp_path / "endo.csv").write_text("image_id,labels,ulcer,erosion,polyp,tumor\n" + rows)
    words = ("score", tmp_path / "endo.csv", "--subset", "endo")
    say(*words, "--official", "--json", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())["runs"][0]["result"]
    assert result["per_class"]["tumor"]["auc"] == result["per_class"]["polyp"]["auc"] and result["per_class"]["tumor"]["ap"] == 0
    assert "tumor without positives" in say(*words)


def test_a_csv(tmp_path, say):
    (tmp_path / "mine.csv").write_text(CSV)
    out = say("score", tmp_path / "mine.csv")
    assert "6 patients" in out and "Accuracy" in out and "mAP" not in out
    assert "(" not in say("score", tmp_path / "mine.csv", "--replicates", 0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.csv").write_text(CSV)
    out = say("score", tmp_path / "mine.csv", tmp_path / "other" / "mine.csv")
    assert f"{tmp_path / 'mine.csv'}  " in out and f"{tmp_path / 'other' / 'mine.csv'}  " in out, "two files of one name"


@pytest.mark.parametrize("form", FORMS)
def test_a_table_in_every_form(tmp_path, say, form):
    """What spreadsheets and pandas save; a workbook is a zip, and yet no submission."""
    rows = [line.split(",") for line in CSV.splitlines()]
    typed = [rows[0], *([*row[:2], int(row[2]), *map(float, row[3:])] for row in rows[1:])]
    (tmp_path / "mine.csv").write_text(CSV)
    say("score", tmp_path / "mine.csv", "--json", tmp_path / "plain.json")
    say("score", save_table(tmp_path / "again", "mine", typed, form), "--json", tmp_path / "again.json")
    plain, again = (json.loads((tmp_path / f"{name}.json").read_text())["runs"] for name in ("plain", "again"))
    assert plain == again


def test_columns_beside_the_classes(tmp_path, capsys):
    """They are left out and named where the classes are declared, and refused with the option that does so where they are not."""
    path = tmp_path / "mine.csv"
    lines = CSV.splitlines()
    path.write_text("\n".join([f",age,{lines[0]},fold", *(f"{n},{20 + n},{line},{n % 2}" for n, line in enumerate(lines[1:]))]))
    assert main(["score", str(path)]) == 2
    assert "Name the classes (--classes a,b,c): other columns are then left out." in capsys.readouterr().err
    assert main(["score", str(path), "--classes", "dog,cat,"]) == 0
    assert "mine.csv: left out, for they are no classes: (no name), age, fold" in capsys.readouterr().err
    assert main(["score", str(path), "--classes", "cat,dog,bird"]) == 2
    assert "has no column of scores for bird" in capsys.readouterr().err


def test_what_is_no_table_and_no_run(tmp_path, say):
    (tmp_path / "mine.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    assert "an old or locked Excel workbook" in say("score", tmp_path / "mine.xls", status=2)
    (tmp_path / "mine.csv").mkdir()
    assert "mine.csv cannot be read: Is a directory" in say("score", tmp_path / "mine.csv", status=2)


def test_a_csv_needs_neither_torch_nor_datasets(tmp_path):
    (tmp_path / "mine.csv").write_text(CSV)
    code = (
        "import sys; from medfmc_hf.cli import main; status = main(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'datasets', 'evaluate', 'sklearn'} & set(sys.modules); sys.exit(status)"
    )
    subprocess.run([sys.executable, "-c", code, "score", str(tmp_path / "mine.csv")], check=True, capture_output=True)
    subprocess.run([sys.executable, "-c", code, "compare", "--help"], check=True, capture_output=True)


def test_the_official_sample(shared, say):
    tables = [next(shared.rglob(SUBSETS[key].table)) for key in ("endo", "chest", "colon")]
    sample = shared / "openmedlab" / "result_sample"
    out = say("score", sample, "--labels", *tables, "--official")
    assert "challenge: 58.559064, the mean of 18 numbers" in out
    assert "74.28" in out and "13.45" in out
    one = say("score", sample / "endo_5-shot_submission.csv", "--labels", *tables)
    assert "41 studies" in one and "20.55 (" in one


def test_the_aggregate_of_runs_lists_what_is_missing(tmp_path, say):
    invent_runs(tmp_path, methods=("lora",), seeds=(0,), rows=12)
    assert ", the mean of 18 numbers" in say("score", tmp_path, "--challenge")
    invent_run(tmp_path, method="lora", subset="endo", shots=5, seed=1, rows=12)
    out = say("score", tmp_path, "--challenge")
    assert "not defined, 70 of 90 numbers are missing; the mean of the 20 there are is" in out
    assert "exp2 chest 1-shot mAP" in out and "exp2 endo 5-shot mAP" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "none does not exist"),
        (["none.csv"], "does not exist"),
        (["."], "holds no finished run"),
    ],
)
def test_mistakes(words, message, say, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in say("score", *words, status=2)


def test_a_submission_without_labels(tmp_path, say):
    (tmp_path / "endo_5-shot_submission.csv").write_text("b.png,0.1,0.2,0.3,0.4\n")
    assert "--data" in say("score", tmp_path, status=2)
    (tmp_path / "wrong.csv").write_text("name,label\nb,1\n")
    assert "none of the files given with --labels" in say("score", tmp_path, "--labels", tmp_path / "wrong.csv", status=2)
