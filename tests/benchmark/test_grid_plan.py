"""The order of the jobs of a grid, and the estimate of what they cost."""

from small_grids import grid_of

from medfmc_hf.benchmark.grid_plan import forecast, plan
from medfmc_hf.benchmark.sweep import sweep
from medfmc_hf.training.shared import Shared


def test_the_plan_puts_the_costliest_unit_first_and_keeps_sharers_together(sample_build, tiny_backbone, cache, tmp_path):
    shared = Shared(sample_build, cache=cache)
    jobs = plan(grid_of(tiny_backbone, ["linear", "knn", "lora", "full"], shots=[1, 5]).configs(), shared, tmp_path)
    batches: dict[str, float] = {}
    for job in jobs:
        batches[job.batch] = batches.get(job.batch, 0) + job.work
    assert list(batches.values()) == sorted(batches.values(), reverse=True)
    assert len(batches) == 9 and [job.batch for job in jobs] == sorted((job.batch for job in jobs), key=list(batches).index)


def test_the_estimate_of_disk_is_what_a_sweep_then_takes(sample_build, tiny_backbone, tmp_path):
    shared = Shared(sample_build, cache=tmp_path / "cache")
    methods = [
        "linear",
        "knn",
        {"method": "partial", "augmentation": "fixed-views"},
        {"method": "linear-sgd", "augmentation": "none"},
        "vpt",
    ]
    jobs = plan(grid_of(tiny_backbone, methods).configs(), shared, tmp_path / "runs")
    expected = forecast(jobs, shared).disk_bytes
    assert sweep(jobs, shared, tmp_path / "runs").count("finished") == len(jobs) == 10
    stored = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("pixels.bin"))
    weights = sum(path.stat().st_size for path in (tmp_path / "runs").rglob("*.safetensors"))
    assert stored < expected < 1.1 * (stored + weights)
    assert {path.parent.name.split("-")[1].rstrip("0123456789") for path in (tmp_path / "cache").rglob("pixels.bin")} >= {
        "features",
        "frozen",
    }
