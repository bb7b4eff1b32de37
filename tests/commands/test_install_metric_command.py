"""`medfmc install-metric` as it is typed."""

from pathlib import Path

from medfmc_hf import metric
from medfmc_hf.cli import main


def test_install_and_space(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(metric, "modules_cache", lambda: tmp_path / "cache")
    assert main(["install-metric"]) == 0
    assert Path(capsys.readouterr().out.strip()).name == "medfm_score.py"
    assert main(["install-metric", "--space", str(tmp_path / "medfm_score")]) == 0
    assert (tmp_path / "medfm_score" / "app.py").is_file()
    assert main(["install-metric", "--space", str(tmp_path / "medfm_score")]) == 2
    assert "not empty" in capsys.readouterr().err
