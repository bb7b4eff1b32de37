"""The folder of a run: written whole or not at all, by however many processes; and records that do not count."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from invented_runs import invent_run
from patience import PATIENCE
from safetensors.torch import save_file

from medfmc_hf.cli import main
from medfmc_hf.errors import MedfmcError
from medfmc_hf.reporting.board import make_board
from medfmc_hf.runs import RunConfig, RunRecord, identity
from medfmc_hf.runs.folders import fault_of, find_runs, is_finished, new_run, run_folder


def finished(folder, mark: str = "") -> RunRecord:
    """A record as a run leaves it."""
    config = RunConfig(subset="endo")
    record = RunRecord("0" * 16, "finished", config.to_dict(), versions={"medfmc_hf": "0.2.0"}, error=mark or None)
    record.save(folder)
    return record


def failed(folder) -> None:
    RunRecord("0" * 16, "failed", RunConfig(subset="endo").to_dict(), error="on purpose").save(folder)


def test_nothing_is_seen_before_all_is_there(tmp_path):
    folder = tmp_path / "endo" / "run"
    with new_run(folder) as part:
        (part / "adapter").mkdir()
        (part / "adapter" / "weights").write_text("w")
        finished(part)
        assert not folder.exists() and not list(find_runs(tmp_path))
    assert is_finished(folder) and [path.name for path in folder.parent.iterdir()] == ["run"]
    with pytest.raises(KeyboardInterrupt), new_run(tmp_path / "endo" / "other") as part:
        finished(part)
        raise KeyboardInterrupt
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_whoever_ends_first_stays(tmp_path):
    folder = tmp_path / "run"
    with new_run(folder) as first, new_run(folder) as second:
        assert first != second
        finished(second, "second")
        (second / "predictions.parquet").write_text("second")
        finished(first, "first")
    assert RunRecord.load(folder).error == "second" and (folder / "predictions.parquet").read_text() == "second"
    with new_run(folder) as part:
        failed(part)
    assert is_finished(folder) and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_failure_and_the_remains_of_a_kill_are_replaced_and_files_of_others_kept(tmp_path):
    for name in ("failed", "killed"):
        folder = tmp_path / name
        (folder / "adapter").mkdir(parents=True)
        (folder / "adapter" / "half").touch()
        (folder / "notes.txt").write_text("mine")
        if name == "failed":
            failed(folder)
        with new_run(folder) as part:
            finished(part)
        assert is_finished(folder) and not (folder / "adapter").exists() and (folder / "notes.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"failed", "killed"}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"schema": 99}', b"\xff\xfe\x00", None])
def test_a_record_that_nobody_can_read_is_set_aside(tmp_path, content, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    if content is None:
        (folder / "run.json").mkdir()
    else:
        (folder / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with new_run(folder) as part:
        finished(part)
    assert is_finished(folder) and (tmp_path / ".run.unreadable-1" / "run.json").exists()
    assert "kept as .run.unreadable-1" in capsys.readouterr().err
    assert len(list(find_runs(tmp_path))) == 1


def test_what_killed_processes_left_beside_a_run_is_cleared(tmp_path):
    """A process may be killed between moving a folder away and giving its place to another: what was finished comes back."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    (tmp_path / f".run.part-{host}-{ended.pid}-aa").mkdir()
    alive, elsewhere = tmp_path / f".run.part-{host}-{os.getppid()}-bb", tmp_path / f".run.part-other-{ended.pid}-cc"
    alive.mkdir(), elsewhere.mkdir()
    moved = tmp_path / f".run.old-{host}-{ended.pid}-dd"
    moved.mkdir()
    finished(moved, "before")
    with new_run(tmp_path / "run") as part:
        finished(part, "again")
    assert RunRecord.load(tmp_path / "run").error == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"run", alive.name, elsewhere.name}


def test_many_processes_on_one_run(tmp_path):
    """Each says that it failed or finished, again and again; whatever was finished once stays so, whole and of one process."""
    code = """
import os, random, sys
from pathlib import Path
sys.path[:0] = sys.argv[3].split(os.pathsep)
from test_folders import failed, finished
from medfmc_hf.runs.folders import new_run, is_finished
folder, number = Path(sys.argv[1]), sys.argv[2]
for turn in range(40):
    with new_run(folder) as part:
        (part / "predictions.parquet").write_text(number)
        failed(part) if random.random() < 0.8 else finished(part, number)
    if (folder / "run.json").exists() and is_finished(folder):
        assert (folder / "predictions.parquet").exists()
"""
    argv = [sys.executable, "-c", code, str(tmp_path / "run")]
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    processes = [subprocess.Popen([*argv, str(n), here], stderr=subprocess.PIPE, text=True) for n in range(3)]
    errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    record = RunRecord.load(tmp_path / "run")
    assert record.status == "finished" and (tmp_path / "run" / "predictions.parquet").read_text() == record.error
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_runs_are_found_in_a_stable_order(tmp_path):
    for seed in (2, 0, 1):
        config = RunConfig("endo", seed=seed)
        record = RunRecord(identity(config, "data", "backbone"), "finished", config.to_dict())
        record.save(run_folder(tmp_path, config, record.id))
    assert [record.config["seed"] for _, record in find_runs(tmp_path)] == [0, 1, 2]
    with pytest.raises(MedfmcError, match="does not exist"):
        list(find_runs(tmp_path / "none"))


# --- records that do not count ---


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"schema": 1, "id"',
        "[1]",
        '{"schema": 99}',
        b"\xff\xfe",
        None,
        '{"schema": 1, "id": "x", "status": "running", "config": {"subset": "endo"}}',
    ],
)
def test_one_bad_record_is_named_and_stops_nothing(tmp_path, content, capsys):
    for seed in (0, 1):
        good = invent_run(tmp_path, subset="endo", seed=seed, rows=30)
    bad = invent_run(tmp_path, subset="endo", seed=2, rows=30)
    (bad / "run.json").unlink()
    if content is None:
        (bad / "run.json").mkdir()
    else:
        (bad / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert len(list(find_runs(tmp_path))) == 2
    assert "1 record left out" in (said := capsys.readouterr().err) and str(bad) in said
    assert main(["score", str(tmp_path), "--replicates", "20"]) == 0
    captured = capsys.readouterr()
    assert "2 split seeds" in captured.out and str(bad) in captured.err
    board = make_board(tmp_path, intervals=False)
    assert board.counts["finished"] == 2 and any(str(bad) in note for note in board.notes)
    assert main(["score", str(bad)]) == 2 and "run.json" in capsys.readouterr().err
    assert main(["score", str(good), "--replicates", "0"]) == 0


def faulty(root, **options):
    """A run that medfmc_hf 0.1.0 made, with statistics of batch normalisation among its weights where the method is full."""
    folder = invent_run(root, rows=30, **options)
    record = RunRecord.load(folder)
    record.versions["medfmc_hf"] = "0.1.0"
    record.files = {}
    record.save(folder)
    return folder, record


def test_records_of_known_faults_are_recognised(tmp_path):
    folder, record = faulty(tmp_path / "a", subset="colon", method="full", select="best", epochs=2)
    assert fault_of(record, folder) is None  # nothing says that the backbone has batch normalisation
    (folder / "adapter").mkdir()
    save_file({"bn.running_mean": torch.zeros(2)}, folder / "adapter" / "trained.safetensors")
    assert "statistics of batch normalisation" in fault_of(record, folder)
    save_file({"norm.weight": torch.zeros(2)}, folder / "adapter" / "trained.safetensors")
    assert fault_of(record, folder) is None
    record.backbone["architecture"] = "resnet"
    assert fault_of(record, folder) is None and fault_of(record) is not None
    for changes in ({"select": "last"}, {"method": "lora"}):
        assert fault_of(RunRecord(**{**vars(record), "config": record.config | changes})) is None
    record.versions["medfmc_hf"] = "0.2.0"
    assert fault_of(record) is None

    _, record = faulty(tmp_path / "b", subset="colon", method="lora", loss="weighted", epochs=2)
    assert fault_of(record) is None
    record.cost["processes"] = 2
    assert "each of 2 processes" in fault_of(record)
    record.config["subset"] = "endo"  # weights of positives are the same in every process
    assert fault_of(record) is None


def test_what_a_fault_made_is_done_again_beside_it_and_counted_nowhere(tmp_path, capsys):
    folder, record = faulty(tmp_path, subset="colon", method="lora", loss="weighted", epochs=2)
    record.cost["processes"] = 2
    record.save(folder)
    before = (folder / "run.json").read_bytes()
    again = run_folder(tmp_path, record.run_config, record.id)
    assert again == folder.with_name(folder.name + "-again") and not is_finished(folder)
    assert not list(find_runs(tmp_path)) and "weighted the classes within each" in capsys.readouterr().err
    with pytest.raises(MedfmcError, match="weighted the classes"):
        list(find_runs(folder))
    with new_run(again) as part:
        shutil.copy(folder / "predictions.parquet", part)
        finished(part)
    assert [path for path, _ in find_runs(tmp_path)] == [again]
    assert (folder / "run.json").read_bytes() == before
