"""The order of the jobs of a grid, and the estimate of their cost."""

from collections import Counter
from dataclasses import replace

import pytest
from small_grids import grid_of

from medfmc_hf.benchmark.grid_plan import forecast, plan
from medfmc_hf.benchmark.sweep import sweep
from medfmc_hf.errors import MedfmcError
from medfmc_hf.training.shared import Shared


def test_the_costliest_batch_is_first_and_jobs_that_share_work_are_together(sample_build, tiny_backbone, cache, tmp_path):
    shared = Shared(sample_build, cache=cache)
    jobs = plan(grid_of(tiny_backbone, ["linear", "knn", "lora", "full"], shots=[1, 5]).configs(), shared, tmp_path)
    batches: dict[str, float] = {}
    for job in jobs:
        batches[job.batch] = batches.get(job.batch, 0) + job.work
    assert list(batches.values()) == sorted(batches.values(), reverse=True)
    assert len(batches) == 9 and [job.batch for job in jobs] == sorted((job.batch for job in jobs), key=list(batches).index)


def test_the_estimate_of_disk_space_is_what_a_sweep_takes(sample_build, tiny_backbone, tmp_path):
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


def test_work_is_counted_in_forward_passes_and_shared_images_once(sample_build, tiny_backbone, cache, tmp_path):
    shared = Shared(sample_build, cache=cache)
    last_block = {"method": "adaptformer", "method_options": {"blocks": 1}}
    grid = grid_of(tiny_backbone, ["linear", "knn", "lora", "full", "partial", last_block], seeds=[0], overrides={"epochs": 3})
    work = {job.config.method: job.work for job in plan(grid.configs(), shared, tmp_path)}
    splits = shared.splits(grid.configs()[0].dataset_config)
    train, test = (len(splits[name]) for name in ("train", "test"))
    assert sorted((work["linear"], work["knn"])) == [0, train + test], "both read features of the same images"
    assert work["full"] == 3 * train * 3.0 + test
    assert work["lora"] == pytest.approx(3 * train * 2.2 + test)
    assert work["partial"] == work["adaptformer"] == pytest.approx(3 * train * 1.4 + test)


def test_an_unavailable_backbone_is_a_job_with_a_problem_and_an_unknown_method_an_error(sample_build, tiny_backbone, cache, tmp_path):
    shared = Shared(sample_build, cache=cache)
    configs = grid_of(tmp_path / "nowhere", ["lora"], seeds=[0]).configs() + grid_of(tiny_backbone, ["lora"], seeds=[0]).configs()
    problems = {job.config.model: (job.problem, job.run, job.written, job.record) for job in plan(configs, shared, tmp_path)}
    assert problems[str(tiny_backbone)][0] is None and problems[str(tiny_backbone)][1] is not None
    problem, *rest = problems[str(tmp_path / "nowhere")]
    assert str(tmp_path / "nowhere") in problem and rest == [None, None, None]
    with pytest.raises(MedfmcError, match="magic"):
        plan([replace(configs[1], method="magic", recipe="none")], shared, tmp_path)


def test_similar_runs_make_groups_of_at_most_the_given_size(sample_build, tiny_backbone, cache, tmp_path):
    shared = Shared(sample_build, cache=cache)
    configs = grid_of(tiny_backbone, ["bitfit", "linear"], seeds=[0, 1, 2]).configs()
    batches = Counter(job.batch for job in plan(configs, shared, tmp_path, group=2) if job.config.method == "bitfit")
    assert sorted(batches.values()) == [1, 2] and all(batch.startswith("group ") for batch in batches)
    assert not any(job.batch.startswith("group ") for job in plan(configs, shared, tmp_path))
    assert len(plan([*configs, *configs], shared, tmp_path)) == 6, "the same run twice is one job"


def test_duplicate_runs_run_once_with_a_message(sample_build, tiny_backbone, cache, tmp_path, capsys):
    shared = Shared(sample_build, cache=cache)
    grid = replace(grid_of(tiny_backbone, ["knn", "lora"], seeds=[0]), repeat=3)
    jobs = plan(grid.configs(), shared, tmp_path)
    assert Counter(job.config.method for job in jobs) == {"knn": 1, "lora": 3}
    assert "2 of 6 runs are duplicates" in capsys.readouterr().err
