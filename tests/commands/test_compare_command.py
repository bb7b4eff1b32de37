"""`medfmc compare` as it is typed."""

import json

from invented_runs import invent_runs

from medfmc_hf.cli import main


def test_folders_of_runs(tmp_path, capsys):
    for method in ("linear", "lora", "full"):
        invent_runs(tmp_path / method, methods=(method,), subsets=("endo", "colon"), shots=(5,), seeds=(0, 1, 2), rows=80, patients=25)
    a, b, c = (str(tmp_path / method) for method in ("linear", "lora", "full"))
    assert main(["compare", a, b, "--replicates", "300", "--json", str(tmp_path / "out.json")]) == 0
    out = capsys.readouterr().out
    rows = json.loads((tmp_path / "out.json").read_text())
    assert len(rows) == 4 and all(row["base"] == a and row["other"] == b for row in rows)
    for row in rows:
        assert f"{100 * row['difference']:+.2f}" in out and f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}" in out
    assert "95% over patients" in out and "95% over seeds" in out and "p (Holm)" in out
    assert len([line for line in out.splitlines() if line.startswith(("endo 5-shot,", "colon 5-shot,"))]) == 4  # the verdicts
    assert main(["compare", a, b, c, "--per-class", "--replicates", "100"]) == 0
    assert "model" in capsys.readouterr().out


def test_csv_files(tmp_path, capsys):
    for name, noise in (("a", 0), ("b", 1)):
        rows = "".join(f"i{n},{n % 2},{0.5 - 0.4 * (n % 2) + noise * (n % 5) / 10},0.5\n" for n in range(30))
        (tmp_path / f"{name}.csv").write_text("image_id,label,cat,dog\n" + rows)
    assert main(["compare", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--classes", "cat,dog"]) == 0
    assert "30 patients" in capsys.readouterr().out


def test_mistakes(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("label,cat,dog\n0,0.1,0.9\n1,0.4,0.6\n")
    assert main(["compare", str(tmp_path / "a.csv"), str(tmp_path / "a.csv")]) == 2
    assert "given twice" in capsys.readouterr().err
    (tmp_path / "b.csv").write_text("label,cat,dog\n0,0.1,0.9\n")
    assert main(["compare", str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]) == 2
    assert "different images" in capsys.readouterr().err
