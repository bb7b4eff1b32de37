"""The files of a report."""

import json

import pytest
from invented_runs import invent_run, invent_runs

pytest.importorskip("matplotlib")

from medfmc_hf.reporting import write_report


def test_the_same_runs_give_the_same_bytes(tmp_path):
    for place in ("a", "elsewhere/b"):
        invent_runs(tmp_path / place, methods=("lora", "linear"), subsets=("endo",), shots=(1, 5), seeds=(1, 0), rows=30, patients=9)
        write_report(tmp_path / place, tmp_path / f"{place}-report")
    first, second = tmp_path / "a-report", tmp_path / "elsewhere/b-report"
    names = sorted(path.name for path in first.iterdir())
    assert names == ["board.csv", "board.html", "board.json", "board.md", "board.tex", "cost.png", "cost.svg", "curves.png", "curves.svg"]
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []


def test_the_paths_are_those_of_the_files_and_the_json_is_the_board(tmp_path):
    invent_run(tmp_path / "runs", subset="endo", rows=30, patients=9)
    board, paths = write_report(tmp_path / "runs", tmp_path / "out")
    assert sorted(paths) == sorted((tmp_path / "out").iterdir())
    data = json.loads((tmp_path / "out" / "board.json").read_text())
    assert data["results"][0]["metrics"]["map"]["mean"] == board.results[0].metrics["map"].mean
    assert set(data["figures"]) == {"curves", "cost", "legend"}
