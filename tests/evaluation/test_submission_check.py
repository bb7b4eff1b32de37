"""Every way in which a submission can be wrong, said in the challenge's terms."""

import numpy as np
import pytest

from medfmc_hf.evaluation import submission_check
from medfmc_hf.evaluation.challenge import places
from medfmc_hf.evaluation.submission import Submission, file_name, read
from medfmc_hf.subsets import SEEDS, SUBSETS

ROWS = {"chest": 5, "colon": 7, "endo": 6}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(submission_check, "CHALLENGE_IMAGES", {"validation": ROWS, "final": ROWS})


def make(phase="validation"):
    """A valid submission."""
    files = {}
    for place in places(SEEDS if phase == "final" else (None,)):
        values = np.random.default_rng(0).random((ROWS[place[1]], len(SUBSETS[place[1]].classes)))
        values = values if SUBSETS[place[1]].multilabel else values / values.sum(axis=1, keepdims=True)
        files[place] = [[f"{place[1]}-{row}.png", *(f"{value:.8f}" for value in values[row])] for row in range(len(values))]
    return Submission("made", phase, files)


def order():
    return {subset: [f"{subset}-{row}.png" for row in range(rows)] for subset, rows in ROWS.items()}


PLACE = (None, "endo", 5)


@pytest.mark.parametrize("phase", ["validation", "final"])
def test_a_valid_one_is_valid(phase):
    without = submission_check.check(make(phase))
    assert without.problems == [] and "give a build with --data" in without.notes[0]
    with_lists = submission_check.check(make(phase), order())
    assert (with_lists.problems, with_lists.notes) == ([], [])


def test_the_official_sample_is_valid(shared, monkeypatch):
    monkeypatch.undo()
    assert submission_check.check(read(shared / "openmedlab" / "result_sample")).problems == []


def cell(row, column, value):
    def change(rows):
        rows[row][column] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.clear(), "is empty"),
        (lambda rows: rows.insert(0, ["img_id", "ulcer", "erosion", "polyp", "tumor"]), "has a header (img_id,ulcer,erosion,polyp,tumor)"),
        (lambda rows: rows.pop(), "has 5 rows; the validation phase has 6 images of endo"),
        (lambda rows: [row.pop() for row in rows], "6 rows have not a name and 4 probabilities (ulcer, erosion, polyp, tumor), the first"),
        (lambda rows: rows[2].append("0.1"), "1 rows have not a name and 4 probabilities (ulcer, erosion, polyp, tumor), the first"),
        (lambda rows: rows.__setitem__(slice(None), [[" ".join(row)] for row in rows]), "not separated by commas"),
        (lambda rows: rows.__setitem__(slice(None), [[";".join(row)] for row in rows]), "not separated by commas"),
        (cell(1, 2, "1.2"), "1 values are no probabilities in [0, 1], the first in row 2: '1.2'"),
        (cell(1, 2, "-0.1"), "the first in row 2: '-0.1'"),
        (cell(3, 1, "nan"), "the first in row 4: 'nan'"),
        (cell(3, 1, ""), "a cell is no number"),
        (cell(0, 0, "endo-0"), "do not start with an image's file name ending in .png, such as 'endo-0'"),
        (cell(4, 0, "endo-0.png"), "names 1 images more than once, such as endo-0.png"),
        (cell(4, 0, "other.png"), "1 images are missing, such as endo-4.png; 1 do not belong there, such as other.png"),
        (lambda rows: rows.reverse(), "another order than the list of the validation phase: row 1 is endo-5.png, expected endo-0.png"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file(change, message):
    made = make()
    change(made.files[PLACE])
    problems = submission_check.check(made, order()).problems
    assert any(message in problem and problem.startswith(file_name(PLACE)) for problem in problems), problems
    assert all(file_name(PLACE) in problem for problem in problems)


def test_files_are_compared_with_each_other_where_there_are_no_lists():
    made = make()
    made.files[PLACE].reverse()
    problems = submission_check.check(made).problems
    assert len(problems) == 1 and "another order than endo_1-shot_submission.csv" in problems[0]


def test_missing_files_are_listed():
    made = make("final")
    del made.files[1, "endo", 5], made.files[4, "chest", 10]
    assert submission_check.check(made, order()).problems == [
        "2 of 45 files are missing: exp2/endo_5-shot_submission.csv, exp5/chest_10-shot_submission.csv."
    ]


def test_harmless_things_are_notes():
    made = make()
    made.files[None, "colon", 1][0][1:] = ["0.5", "0.9"]
    made.files[None, "chest", 1][0][1] = "0.123456789"
    made = submission_check.check(made, order())
    assert made.problems == []
    assert made.notes == [
        "chest_1-shot_submission.csv has more than 8 decimals; the official code rounds to 8.",
        "colon_1-shot_submission.csv: the probabilities of a row do not sum to 1.",
    ]


def test_strange_files_and_misplaced_ones(tmp_path):
    (tmp_path / "exp1").mkdir()
    for name in ("exp1/endo_5-shot_submission.csv", "endo_1-shot_submission.csv", "exp9.csv", "exp1/endo_3-shot_submission.csv"):
        (tmp_path / name).write_text("a.png,0.1,0.2,0.3,0.4\n")
    (tmp_path / "exp1" / "colon_1-shot_submission.csv").write_bytes(b"\xff\xfe")
    problems = read(tmp_path).problems
    assert problems == [
        "unexpected files: exp1/endo_3-shot_submission.csv, exp9.csv. A submission holds nothing but its CSV files.",
        "endo_1-shot_submission.csv lies beside the folders exp1 to exp5; in the final phase every file is in one.",
        "exp1/colon_1-shot_submission.csv is not UTF-8 text.",
    ]
