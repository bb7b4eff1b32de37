"""`medfmc submission` as it is typed."""

import pytest
from invented_runs import invent_runs

from medfmc_hf.cli import main
from medfmc_hf.evaluation import submission
from medfmc_hf.runs import load_predictions


def test_write_and_check(tmp_path, capsys, monkeypatch):
    folders = invent_runs(tmp_path / "runs", methods=("lora",), seeds=(0,), rows=10)
    names = {folder.parent.name.split("-")[0]: load_predictions(folder).image_ids for folder in folders}
    asked = []

    def order(data, phase, subset):
        asked.append((data, phase))
        return [f"{name}.png" for name in names[subset]]

    monkeypatch.setattr(submission, "challenge_order", order)
    monkeypatch.chdir(tmp_path)
    assert main(["submission", "runs", "--phase", "validation", "--out", "mine.zip"]) == 0
    assert capsys.readouterr().out.strip() == "mine.zip" and set(asked) == {("medfmc", "validation")}
    assert main(["submission", "check", "mine.zip", "--data", "build"]) == 1
    out = capsys.readouterr().out
    assert out.count("problem: ") == 9 and "has 10 rows; the validation phase has 2055 images of endo" in out
    assert out.splitlines()[-1] == "mine.zip, validation phase, 9 files: 9 problems."
    assert main(["submission", "runs", "--phase", "validation", "--out", "mine.zip"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_official_sample_is_valid(shared, capsys):
    assert main(["submission", "check", str(shared / "openmedlab" / "result_sample")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("validation phase, 9 files: valid.")


@pytest.mark.parametrize(
    ("words", "message"), [(["check"], "expected one submission"), (["runs"], "--phase"), (["runs", "--phase", "final"], "does not exist")]
)
def test_mistakes(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["submission", *words]) == 2
    assert message in capsys.readouterr().err
