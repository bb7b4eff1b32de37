import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from patience import PATIENCE
from small_grids import GRID, grid_of
from torch.nn.modules.module import register_module_forward_hook

from medfmc_hf.benchmark import sweep as sweep_module
from medfmc_hf.benchmark.grid import read_grid
from medfmc_hf.benchmark.grid_plan import plan
from medfmc_hf.benchmark.sweep import sweep
from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.pixels import decodes
from medfmc_hf.runs import RunConfig, RunRecord, load_predictions
from medfmc_hf.runs.folders import find_runs
from medfmc_hf.training import one_run
from medfmc_hf.training.one_run import train
from medfmc_hf.training.shared import Shared

RECIPE = Path(__file__).parents[2] / "recipes" / "benchmark.py"


def contents(root) -> dict[str, bytes | dict]:
    """What runs wrote: every file except cards and locks, by path; records without what depends on time and machine."""
    found = {}
    for path in sorted(Path(root).rglob("*")):
        if path.is_dir() or ".locks" in path.parts or path.name == "README.md":
            continue
        content = path.read_bytes()
        if path.name == "run.json":
            content = json.loads(content)
            content["cost"] = {k: v for k, v in content["cost"].items() if k not in ("seconds", "peak_memory_bytes", "processes")}
            del content["finished_at"]
        found[str(path.relative_to(root))] = content
    return found


def test_a_sweep_carries_out_each_run_once_and_skips_what_is_finished(sample_build, tiny_backbone, cache, tmp_path):
    shared = Shared(sample_build, cache=cache)
    configs = grid_of(tiny_backbone, ["linear", "lora"]).configs()
    table = sweep(plan(configs, shared, tmp_path), shared, tmp_path)
    assert table.count("finished") == 4 == len(list(find_runs(tmp_path)))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("run.json")}

    again = Shared(sample_build, cache=cache)
    decodes.reset()
    sweep(plan([*configs, *grid_of(tiny_backbone, ["prototype"]).configs()], again, tmp_path), again, tmp_path)
    assert len(list(find_runs(tmp_path))) == 6
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    assert decodes.count == 0, "the second sweep decodes no image"


METHODS = ["linear", "lora", {"method": "partial", "augmentation": "fixed-views"}]


def test_a_run_alone_and_in_a_sweep_are_the_same(sample_build, tiny_backbone, tmp_path):
    shared = Shared(sample_build, cache=tmp_path / "cache")
    configs = grid_of(tiny_backbone, METHODS).configs()
    random.Random(0).shuffle(configs)
    sweep(plan(configs, shared, tmp_path / "runs"), shared, tmp_path / "runs")
    swept = contents(tmp_path / "runs")
    for config in (config for config in configs if config.seed == 1):
        folder, _ = train(config, shared=Shared(sample_build, cache=tmp_path / "alone"), out=tmp_path / "one")
        name = str(folder.relative_to(tmp_path / "one"))
        alone = {path: content for path, content in contents(tmp_path / "one").items() if path.startswith(name)}
        assert alone == {path: swept[path] for path in alone}, config.method
        assert len(alone) > 2


def test_the_backbone_is_loaded_once_for_all_subsets(sample_build, tiny_backbone, cache, tmp_path, monkeypatch):
    loads, load = [], sys.modules["medfmc_hf.models.backbones"].load_backbone
    monkeypatch.setattr("medfmc_hf.models.backbones.load_backbone", lambda *args, **options: loads.append(args) or load(*args, **options))
    shared = Shared(sample_build, cache=cache)
    configs = grid_of(tiny_backbone, ["linear", "lora"], subsets=["retino", "colon"], seeds=[0]).configs()
    table = sweep(plan(configs, shared, tmp_path), shared, tmp_path)
    assert table.count("finished") == 4 and len(loads) == 1


def test_fifteen_configs_on_frozen_features_cost_their_distinct_images(sample_build, tiny_backbone, tmp_path):
    forwards = []

    def count(module, args, output):
        if type(module).__name__ == "ViTLayer":
            forwards.append(len(args[0]))

    shared = Shared(sample_build, cache=tmp_path / "cache")
    configs = grid_of(tiny_backbone, ["linear", "prototype", "knn"], shots=[1, 5, 10], seeds=[0, 1, 2, 3, 4]).configs()
    assert len(configs) == 45
    decodes.reset()
    hook = register_module_forward_hook(count)
    table = sweep(plan(configs, shared, tmp_path / "runs"), shared, tmp_path / "runs")
    hook.remove()
    images = {
        image
        for config in configs
        for split in ("train", "test")
        for image in shared.splits(config.dataset_config)[split]["image_id"]
    }  # fmt: skip
    assert table.count("finished") == 45
    assert decodes.count == len(images), "the decode law"
    assert len(images) <= sum(forwards) / 4 <= 1.1 * len(images), "the frozen law; the backbone has four blocks"


def test_training_and_frozen_features_decode_an_image_once_between_them(sample_build, tiny_backbone, tmp_path):
    shared = Shared(sample_build, cache=tmp_path / "cache")
    jobs = plan(grid_of(tiny_backbone, ["linear", "lora", "vpt"], shots=[1, 5]).configs(), shared, tmp_path / "runs")
    images = {
        image
        for job in jobs
        for split in ("train", "test")
        for image in shared.splits(job.config.dataset_config)[split]["image_id"]
    }  # fmt: skip
    decodes.reset()
    assert sweep(jobs, shared, tmp_path / "runs").count("finished") == 12
    assert decodes.count == len(images)


def test_a_failing_run_is_recorded_the_rest_goes_on_and_can_be_tried_again(sample_build, tiny_backbone, cache, tmp_path, monkeypatch):
    shared = Shared(sample_build, cache=cache)
    diverging = {"method": "full", "learning_rate": 1e6, "optimizer": "sgd", "gradient_clip": 0, "warmup_epochs": 0, "epochs": 5}
    configs = grid_of(tiny_backbone, ["lora", diverging, {"method": "vpt", "method_options": {"num_prompts": -1}}], seeds=[0]).configs()
    configs += grid_of(tmp_path / "nothing", ["linear"], seeds=[0]).configs()
    configs.append(RunConfig("retino", shots=1, method="linear", model=configs[0].model))
    real = one_run.carry_out

    def out_of_memory(run, *args, **options):
        if run.config.method == "lora":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(run, *args, **options)

    monkeypatch.setattr(one_run, "carry_out", out_of_memory)
    table = sweep(plan(configs, shared, tmp_path), shared, tmp_path)
    assert (table.count("finished"), table.count("failed")) == (1, 4)
    errors = {(record.config["method"], record.error) for _, record in find_runs(tmp_path) if record.status == "failed"}
    said = " ".join(text for _, text in errors)
    assert "lower the learning rate" in said and "OutOfMemoryError" in said and "num_prompts" in said and "nothing" in said

    monkeypatch.setattr(one_run, "carry_out", real)
    before = contents(tmp_path)
    sweep(plan(configs, shared, tmp_path), shared, tmp_path)
    assert contents(tmp_path) == before, "a failure is kept until a retry is asked for"
    table = sweep(plan(configs[:1], shared, tmp_path), shared, tmp_path, retry_failed=True)
    assert (table.count("finished"), table.count("failed")) == (1, 0)


def test_ctrl_c_stops_the_sweep_and_leaves_finished_runs(sample_build, tiny_backbone, cache, tmp_path, monkeypatch):
    shared, real, begun = Shared(sample_build, cache=cache), one_run.carry_out, []

    def interrupted(run, *args, **options):
        begun.append(run)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return real(run, *args, **options)

    monkeypatch.setattr(one_run, "carry_out", interrupted)
    jobs = plan(grid_of(tiny_backbone, ["lora"]).configs(), shared, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sweep(jobs, shared, tmp_path)
    assert [record.status for _, record in find_runs(tmp_path)] == ["finished"]
    assert sweep(jobs, shared, tmp_path).count("finished") == 2


# --- processes ---


def command(grid: Path, data, cache, out, *flags: str, processes: int = 1) -> list[str]:
    """The recipe as `accelerate launch` runs it: one process directly, several by torch's launcher."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--local_addr=127.0.0.1", f"--nproc_per_node={processes}"]
    where = ["--data", str(data), "--cache", str(cache), "--out", str(out)]
    return [sys.executable, *(launch if processes > 1 else []), str(RECIPE), str(grid), *where, "--quiet", *flags]


@pytest.fixture(scope="module")
def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


@pytest.fixture(scope="module")
def grid_file(tiny_backbone, tmp_path_factory):
    path = tmp_path_factory.mktemp("grid") / "grid.yaml"
    path.write_text(yaml.safe_dump(GRID | {"backbones": [str(tiny_backbone)], "methods": ["linear", "lora"]}))
    return path


@pytest.fixture(scope="module")
def through(grid_file, sample_build, environment, tmp_path_factory):
    """An uninterrupted sweep in one process."""
    out = tmp_path_factory.mktemp("through")
    subprocess.run(
        command(grid_file, sample_build, out / "cache", out / "runs"), env=environment, check=True, capture_output=True, timeout=PATIENCE
    )
    return contents(out / "runs")


def test_two_processes_leave_what_one_does(grid_file, through, sample_build, environment, tmp_path):
    argv = command(grid_file, sample_build, tmp_path / "cache", tmp_path / "runs", processes=2)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "runs") == through
    assert done.stdout.count("4 of 4 done") == 1


def test_two_processes_on_one_run_train_it_as_one_does(tiny_backbone, sample_build, environment, cache, tmp_path):
    """Up to rounding: they see the same views of the same images, each process half of a batch."""
    grid = tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump(GRID | {"backbones": [str(tiny_backbone)], "methods": ["linear", "vpt"]}))
    argv = command(grid, sample_build, cache, tmp_path / "two", "--together", processes=2)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    shared = Shared(sample_build, cache=cache)
    sweep(plan(read_grid(grid).configs(), shared, tmp_path / "one"), shared, tmp_path / "one")
    runs = [dict(find_runs(tmp_path / name)) for name in ("one", "two")]
    assert len(runs[0]) == len(runs[1]) == 4
    for (alone, own), (together, record) in zip(*(sorted(part.items()) for part in runs)):
        assert alone.name == together.name and record.status == "finished" and record.cost["processes"] == 2
        np.testing.assert_allclose(load_predictions(together).logits, load_predictions(alone).logits, atol=1e-3)
        assert [epoch["loss"] for epoch in record.history] == pytest.approx([epoch["loss"] for epoch in own.history], rel=1e-4)


def test_a_sweep_killed_again_and_again_ends_as_one_that_ran_through(grid_file, through, sample_build, environment, tmp_path):
    argv, rng = command(grid_file, sample_build, tmp_path / "cache", tmp_path / "runs"), random.Random(0)

    def records() -> list[Path]:
        return list((tmp_path / "runs").glob("*/[!.]*/run.json"))

    for _ in range(2):
        process, before = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), len(records())
        while process.poll() is None and len(records()) == before:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))  # so that it is killed at a random point of the next run
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = {path: path.stat().st_mtime_ns for path in records()}
    assert finished
    assert all(RunRecord.load(path).status == "finished" for path in finished)
    subprocess.run(argv, env=environment, check=True, capture_output=True, timeout=PATIENCE)
    assert contents(tmp_path / "runs") == through
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items()), "nothing finished is done again"


WITHOUT_LOCKS = """
import fcntl, runpy, sys
fcntl.flock = lambda *arguments: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_locks_that_do_not_work_only_cost_time(grid_file, through, sample_build, environment, tmp_path):
    """Some network file systems have no working locks; one of three processes is killed in the middle."""
    argv = command(grid_file, sample_build, tmp_path / "cache", tmp_path / "runs")
    argv = [argv[0], "-c", WITHOUT_LOCKS, *argv[1:]]
    processes = [subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    while processes[0].poll() is None and not list(tmp_path.glob("runs/*/*/run.json")):
        time.sleep(0.02)
    processes[0].kill()
    for process in processes:
        said = process.communicate(timeout=PATIENCE)[1]
        assert process is processes[0] or process.returncode == 0, said
    subprocess.run(argv, env=environment, check=True, capture_output=True, timeout=PATIENCE)
    assert contents(tmp_path / "runs") == through


def test_a_bad_record_in_a_grid_is_set_aside_and_its_run_is_done_again(sample_build, tiny_backbone, cache, tmp_path):
    shared = Shared(sample_build, cache=cache)
    configs = grid_of(tiny_backbone, ["linear"]).configs()
    sweep(plan(configs, shared, tmp_path), shared, tmp_path)
    for (folder, _), content in zip(list(find_runs(tmp_path)), (b"", b"\xff\xfe")):
        (folder / "run.json").write_bytes(content)
    table = sweep(plan(configs, shared, tmp_path), shared, tmp_path)
    assert table.count("finished") == 2 == len(list(find_runs(tmp_path)))
    assert len(list(tmp_path.glob("*/.*.unreadable-1"))) == 2


def test_a_claimed_batch_is_left_to_its_holder(sample_build, tiny_backbone, cache, tmp_path, monkeypatch):
    """A process waits for a batch that another one holds, and takes it over when the other is gone."""
    from filelock import FileLock

    shared = Shared(sample_build, cache=cache)
    jobs = plan(grid_of(tiny_backbone, ["lora"]).configs(), shared, tmp_path)
    (tmp_path / ".locks").mkdir()
    lock = FileLock(tmp_path / ".locks" / f"{sweep_module._file_name(jobs[0].batch)}.lock")
    lock.acquire()
    naps = []

    def nap(seconds):
        naps.append([job.id for job in jobs if job.record])
        lock.release()

    monkeypatch.setattr(sweep_module.time, "sleep", nap)
    table = sweep(jobs, shared, tmp_path)
    assert naps == [[jobs[1].id]] and table.count("finished") == 2


def test_a_grid_that_contradicts_the_launcher_ends_before_its_first_run(monkeypatch, tmp_path):
    from medfmc_hf.benchmark.grid_plan import plan
    from medfmc_hf.training.shared import Shared

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(MedfmcError, match="--mixed_precision no"):
        plan([RunConfig("endo", dtype=dtype) for dtype in ("bfloat16", "float32")], Shared(tmp_path), tmp_path)
    assert not any(tmp_path.rglob("run.json"))
