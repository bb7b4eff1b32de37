import builtins

import pytest
from invented_runs import invent_run, invent_runs

from medfmc_hf.cli import main


def test_a_report_and_its_space(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    invent_runs(tmp_path / "runs", methods=("lora",), subsets=("endo",), shots=(5,), seeds=(0, 1), rows=20)
    out, space = tmp_path / "out", tmp_path / "space"
    assert (
        main(["report", str(tmp_path / "runs"), "--out", str(out), "--space", str(space), "--records", "lab/runs", "--replicates", "10"])
        == 0
    )
    printed = capsys.readouterr().out
    for path in (out / "board.html", out / "curves.png", space / "index.html"):
        assert path.is_file() and str(path) in printed
    assert "2 finished and 0 failed runs in 1 row; 13 seeds of the grid are missing." in printed


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--space", "x"], "--records"), (["--records", "a/b"], "--space"), (["--replicates", "-1"], "--replicates")],
)
def test_flags_that_make_no_sense_are_explained(tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    invent_run(tmp_path / "runs", subset="endo", rows=20)
    assert main(["report", "runs", *flags]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "report").exists()


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch, capsys):
    invent_run(tmp_path / "runs", subset="endo", rows=20)
    real = builtins.__import__

    def without(name, *args, **options):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    assert 'pip install "medfmc_hf[report]"' in capsys.readouterr().err
