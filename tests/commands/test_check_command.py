import json

import pytest
from trees import figshare

from medfmc_hf import cli
from medfmc_hf.data.build import build


@pytest.fixture
def folder(tmp_path):
    build([figshare(tmp_path / "download", "endo")], tmp_path / "medfmc")
    return tmp_path / "medfmc"


def test_a_sound_build(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert cli.main(["check"]) == 0
    out = capsys.readouterr().out
    assert "No mistakes in 33 configs." in out and "By design:" in out
    row = next(line for line in out.splitlines() if line.startswith("endo  ") and " train " in line)
    assert row.split()[:5] == ["endo", "train", "12", "0", "4"]
    assert any(line.startswith("endo-5shot-seed0-official") and "train and validation share" in line for line in out.splitlines())


def test_a_mistake_ends_in_status_1(folder, capsys):
    next((folder.parent / "download/Endo/images").iterdir()).unlink()
    assert cli.main(["check", str(folder)]) == 1
    assert "mistakes:" in capsys.readouterr().out


def test_json(folder, capsys):
    assert cli.main(["check", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sound"] and len(report["configs"]) == 33
    (audit,) = [audit for audit in report["configs"] if audit["config"] == "endo-1shot-seed0-official"]
    assert audit["splits"]["train"]["positives"] and audit["overlaps"][0]["splits"] == ["train", "validation"]
    (folder / "README.md").write_text(
        (folder / "README.md").read_text().replace("config_name: endo-transfer", "config_name: endo-nonsense")
    )
    assert cli.main(["check", str(folder), "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["sound"]


def test_no_build(tmp_path, capsys):
    assert cli.main(["check", str(tmp_path)]) == 2
    assert "is not a build" in capsys.readouterr().err
