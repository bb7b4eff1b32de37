import pytest
import yaml

from medfmc_hf.cli import main
from medfmc_hf.runs.folders import find_runs


@pytest.fixture
def grid(tiny_backbone, tmp_path):
    path = tmp_path / "grid.yaml"
    methods = ["linear", {"method": "lora", "epochs": 1, "batch_size": 8}]
    values = {"backbones": [str(tiny_backbone)], "methods": methods, "subsets": ["retino"], "shots": 1, "seeds": 0}
    path.write_text(yaml.safe_dump(values))
    return path


def benchmark(grid, data, folder, *flags) -> int:
    return main(["benchmark", str(grid), "--data", str(data), "--out", str(folder / "runs"), "--cache", str(folder / "cache"), *flags])


def test_a_grid_from_the_command_line(grid, sample_build, tmp_path, capsys):
    assert benchmark(grid, sample_build, tmp_path, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "2 runs: 0 finished, 0 failed, 2 to run" in said
    assert "retino       lora · tiny-vit, invented" in said and "time: about" in said and "disk: about" in said
    assert not (tmp_path / "runs").exists(), "a dry run runs nothing"

    assert benchmark(grid, sample_build, tmp_path) == 0
    printed = capsys.readouterr()
    assert "2 of 2 done, 0 left" in printed.out and "(1/1)" in printed.out
    assert "retino-1shot-seed0 lora · tiny-vit, invented finished" in printed.err, "a log gets a line a run"
    assert len(list(find_runs(tmp_path / "runs"))) == 2

    assert benchmark(grid, sample_build, tmp_path, "--dry-run") == 0
    assert "2 runs: 2 finished, 0 failed, 0 to run" in capsys.readouterr().out
    assert benchmark(grid, sample_build, tmp_path, "--quiet") == 0
    printed = capsys.readouterr()
    assert "2 of 2 done" in printed.out and "finished" not in printed.err


def test_a_failure_is_told_and_makes_the_status_one(grid, sample_build, tmp_path, capsys):
    values = yaml.safe_load(grid.read_text())
    values["backbones"] = [str(tmp_path / "nothing")]
    grid.write_text(yaml.safe_dump(values))
    assert benchmark(grid, sample_build, tmp_path, "--dry-run") == 1
    assert "cannot start" in capsys.readouterr().out
    assert benchmark(grid, sample_build, tmp_path, "--quiet") == 1
    assert capsys.readouterr().out.count("failed: retino-1shot-seed0") == 2
    assert benchmark(grid, sample_build, tmp_path, "--quiet", "--retry", "failed") == 1


@pytest.mark.parametrize(
    ("text", "says"), [("methods: [linear]", "no backbones"), ("backbones: [a/b]\nmethods: [magic]", "magic"), ("x: 1", "x in grid")]
)
def test_mistakes_in_the_grid_are_one_line(text, says, sample_build, tmp_path, capsys):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    assert benchmark(path, sample_build, tmp_path) == 2
    assert says in capsys.readouterr().err


def test_a_group_is_a_number(grid, sample_build, tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmark(grid, sample_build, tmp_path, "--group", "many")
    assert "or auto; got 'many'" in capsys.readouterr().err
