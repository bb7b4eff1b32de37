"""What the hardware allows on a GPU, and how close a sweep comes: python benchmarks/gpu.py

Random weights, because speed does not depend on them, and invented images in the real numbers, sizes and formats (`invented.py`). Without
a GPU it prints so and runs at a toy size, to show that it works: its numbers then mean nothing, and every row is marked OPEN.

- evaluation: throughput of a forward pass, alone and as in the test of a run (`Loop.predict` from cached images, LoRA merged), against a
  bfloat16 matrix product measured alongside; floating-point operations are counted by torch.
- wait: a training step at batch size 4 (`Loop.fit`) with views made from whole images on the GPU, against one with a ready batch.
- grouped: K = 5 runs at batch size 4 in one pass against one by one, including set-up, with images decoded before.
- grid: 5 subsets x 15 splits x {LoRA, VPT, bottleneck}, 20 epochs, by recipes/benchmark.py with empty caches, including start-up. After
  --minutes it is stopped, and the total is extrapolated by the plan's forward passes. Dropout is 0, because a group cannot reproduce it.
  Image files are read from the system's page cache.
- processes: runs of the grid in new processes, each with its own pixel cache (recipes/peft_train.py), one after another. All runs are
  extrapolated from these: training time by rows and the method's mean, the remaining time from the run on the same subset.

Medians of three alternating rounds after a warm-up round. About 25 minutes and 8 GB of disk; at 384, 15 GB. --folder saves the images and
the grid's time, so that the parts can be run one at a time with --only.
"""

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
METHODS = {"lora": {"lora_dropout": 0.0}, "vpt": {}, "adaptformer": {"bottleneck_dropout": 0.0}}
CUT_OFF = "cut off"
ALONE = [  # subset, method and shots of the runs in separate processes: every subset, and every method and number of shots twice
    ("chest", "lora", 5),
    ("colon", "vpt", 1),
    ("endo", "adaptformer", 5),
    ("neojaundice", "lora", 10),
    ("retino", "vpt", 10),
    ("colon", "adaptformer", 1),
]


@dataclass
class Bench:
    """Settings shared by the parts."""

    folder: Path  # folder of the data and of the grid's time
    scratch: Path  # an empty folder for everything else
    data: Path  # the invented build
    backbone: Path
    size: int  # side of the backbone's input, in pixels
    device: torch.device
    toy: bool
    minutes: float  # time limit of the grid

    def shared(self):
        from medfmc_hf.training.one_run import Shared

        return Shared(self.data, cache=self.scratch / "cache")

    def grid(self, methods=tuple(METHODS), *, overrides: dict, **axes) -> dict:
        """The keys of a grid file."""
        chosen = [{"method": name, "method_options": METHODS[name]} for name in methods]
        return {"backbones": [str(self.backbone)], "methods": chosen, "overrides": {"batch_size": 4, **overrides}, **axes}

    def configs(self, *args, **kwargs) -> list:
        from medfmc_hf.benchmark.grid import Grid

        return Grid.from_dict(self.grid(*args, **kwargs)).configs()

    def loop(self, run):
        from medfmc_hf.training import one_run

        return one_run.Loop(run, one_run.make_accelerator(), one_run.Stopwatch())

    def row(self, what: str, floor: str = "", ours: str = "", ratio: str = "", goal: str = "") -> None:
        print(f"| {'OPEN, a toy: ' * self.toy}{what} | {floor} | {ours} | {ratio} | {goal} |", flush=True)

    def in_turn(self, works: dict[str, Callable[[], object]], rounds: int = 3) -> dict[str, float]:
        """Median seconds of each."""
        times: dict[str, list[float]] = {name: [] for name in works}
        for number in range(rounds + 1):
            for name, work in works.items():
                self._wait()
                begin = time.perf_counter()
                work()
                self._wait()
                if number:
                    times[name].append(time.perf_counter() - begin)
        return {name: statistics.median(seconds) for name, seconds in times.items()}

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def operations(model, bench: Bench) -> int:
    """Floating-point operations of a forward pass of one image."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixel_values=torch.zeros(1, 3, bench.size, bench.size, device=bench.device))
    return counter.get_total_flops()


def evaluation(bench: Bench) -> None:
    from medfmc_hf.adaptation.merging import merged
    from medfmc_hf.models.backbones import load_backbone
    from medfmc_hf.subsets import SUBSETS
    from medfmc_hf.training import one_run

    side, count, repeats = (256, 8, 1) if bench.toy else (8192, 256, 10)
    matrix = torch.randn(side, side, dtype=torch.bfloat16, device=bench.device)
    model = load_backbone(str(bench.backbone), SUBSETS["endo"]).to(bench.device)
    images = torch.randn(count, 3, bench.size, bench.size, device=bench.device)

    def product() -> None:
        for _ in range(repeats):
            matrix @ matrix

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(bench.device.type, torch.bfloat16):
            for _ in range(repeats):
                model(pixel_values=images)

    seconds = bench.in_turn({"product": product, "forward": forward})
    peak = repeats * 2 * side**3 / seconds["product"] / 1e12

    def show(what: str, rate: float) -> None:
        bench.row(f"evaluation, {what}, TFLOP/s of a product's", f"{peak:.1f}", f"{rate:.1f}", f"{rate / peak:.0%}", "at least 60 %")

    show(f"the bare forward at batch {count}", repeats * count * operations(model, bench) / seconds["forward"] / 1e12)
    shared = bench.shared()
    config = bench.configs(["lora"], subsets=["endo"], shots=[1], seeds=[0], overrides={"dtype": "bfloat16"})[0]
    run = shared.resolve(config)
    stored = shared.evaluation_pixels(run.scored["test"], run.processing)
    with shared.acquire(run) as backbone, one_run.adapted(backbone, run) as model:
        loop = bench.loop(run)
        with merged(model.eval()):
            flops = operations(model, bench)
        seconds = bench.in_turn({"ours": lambda: loop.predict(model, stored)})
    show(f"Loop.predict of {len(stored)} stored images", len(stored) * flops / seconds["ours"] / 1e12)


class Ready:
    """Replaces `TrainingPixels` by a normalised batch that is already on the device."""

    def __init__(self, batch: torch.Tensor) -> None:
        self._batch = batch

    def batch(self, indices, *seeds) -> torch.Tensor:
        return self._batch[: len(indices)]


def wait(bench: Bench) -> None:
    for key in ("colon", "chest"):
        overrides = {"epochs": 1, "dtype": "bfloat16", "learning_rate": 1e-5}
        config = bench.configs(["vpt"], subsets=[key], shots=[1 if bench.toy else 10], seeds=[0], overrides=overrides)[0]
        floor, ours = _step_seconds(bench, config)
        what = f"data wait of a training step at batch 4, {key}, ms of a step"
        bench.row(what, f"{1e3 * floor:.2f}", f"{1e3 * ours:.2f}", f"{1 - floor / ours:.1%} waited", "at most 5 %")


def _step_seconds(bench: Bench, config) -> tuple[float, float]:
    """Seconds of a training step with a ready batch, and of one that makes its views."""
    from medfmc_hf.training import one_run

    shared = bench.shared()
    run = shared.resolve(config)
    with shared.acquire(run) as backbone, one_run.adapted(backbone, run) as model:
        loop, views = bench.loop(run), shared.training_pixels(run)
        views.precompute()
        ready = Ready(torch.randn(config.batch_size, 3, bench.size, bench.size, device=bench.device))
        seconds = bench.in_turn({"ready": lambda: loop.fit(model, ready), "views": lambda: loop.fit(model, views)})
    return seconds["ready"] / run.steps_per_epoch, seconds["views"] / run.steps_per_epoch


def train_alone(bench: Bench, config, shared) -> None:
    """Train a run by the plain loop, without test and files."""
    from medfmc_hf.training import one_run

    run = shared.resolve(config)
    with shared.acquire(run) as backbone, one_run.adapted(backbone, run) as model:
        bench.loop(run).fit(model, shared.training_pixels(run))


def grouped(bench: Bench) -> None:
    from medfmc_hf.benchmark.grouped import train_group
    from medfmc_hf.training import one_run

    shared = bench.shared()
    for method in METHODS:
        overrides = {"epochs": 1 if bench.toy else 4, "dtype": "bfloat16"}
        configs = bench.configs([method], subsets=["colon"], shots=[1], overrides=overrides)

        def alone(configs=configs) -> None:
            for config in configs:
                train_alone(bench, config, shared)

        def together(configs=configs) -> None:
            if train_group([shared.resolve(config) for config in configs], shared, one_run.make_accelerator()) is None:
                raise RuntimeError("not grouped: the network is random")

        seconds = bench.in_turn({"alone": alone, "together": together})
        ratio = f"{seconds['alone'] / seconds['together']:.2f} times"
        what = f"{method}: {len(configs)} runs in one pass against one by one, s"
        bench.row(what, f"{seconds['alone']:.2f}", f"{seconds['together']:.2f}", ratio, "at least 3 times")


def grid_values(bench: Bench) -> dict:
    """The measured grid; a toy has one split per subset."""
    if bench.toy:
        return bench.grid(overrides={"epochs": 1, "dtype": "bfloat16"}, shots=[1], seeds=[0])
    return bench.grid(overrides={"epochs": 20, "dtype": "bfloat16"})


def python(script: str, *args: str, limit: float, **environment: str) -> tuple[float, str]:
    """Seconds of a recipe in a separate process, and its problem: its last line of output, `CUT_OFF`, or an empty string."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(ROOT / "recipes" / script), *args, "--quiet"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    begin, problem = time.perf_counter(), ""
    try:
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path, **environment}, timeout=limit, **output)
        if done.returncode:
            problem = f"{script} ended with status {done.returncode}: {' '.join(done.stdout.strip().splitlines()[-1:])}"
    except subprocess.TimeoutExpired:
        problem = CUT_OFF
    return time.perf_counter() - begin, problem


def grid(bench: Bench) -> None:
    from medfmc_hf.benchmark.grid import Grid
    from medfmc_hf.benchmark.grid_plan import plan

    values, out, cache = grid_values(bench), bench.scratch / "runs", bench.scratch / "grid-cache"
    file = bench.scratch / "grid.yaml"
    file.write_text(yaml.safe_dump(values))
    arguments = [str(file), f"--data={bench.data}", f"--out={out}", f"--cache={cache}"]
    seconds, problem = python("benchmark.py", *arguments, limit=60 * bench.minutes)
    jobs = plan(Grid.from_dict(values).configs(), bench.shared(), out)
    records = {job.id: job.record for job in jobs}
    done = [job for job in jobs if records[job.id] and records[job.id].status == "finished"]
    if not done:
        raise RuntimeError(f"no run was finished in {seconds:.0f} s: {problem}")
    what = f"the grid, {len(done)} of {len(jobs)} runs{f', {CUT_OFF}' * (problem == CUT_OFF)}, min"
    bench.row(what, "", f"{seconds / 60:.1f}", f"{seconds / len(done):.2f} s per run", "under 15")
    whole = seconds * sum(job.work for job in jobs) / sum(job.work for job in done)
    if len(done) < len(jobs):
        bench.row("the whole grid, extrapolated by forward passes, min", "", f"{whole / 60:.1f}", "", "under 15")
    stages = {"data": "decoding and reading pixels", "train": "training (of groups with decoding for it)", "test": "test"}
    spent = {what: sum(records[job.id].cost["seconds"].get(stage, 0.0) for job in done) for stage, what in stages.items()}
    rest = "start-up, saving, and unfinished runs"
    for what, part in {**spent, rest: seconds - sum(spent.values())}.items():
        bench.row(f"of which {what}, min", "", f"{part / 60:.2f}", f"{part / seconds:.0%}")
    result = {"runs": len(jobs), "seconds": whole, "extrapolated": len(done) < len(jobs)}
    (bench.folder / f"grid-{bench.size}.json").write_text(json.dumps(result))
    shutil.rmtree(cache)
    if problem and problem != CUT_OFF:
        raise RuntimeError(problem)


def processes(bench: Bench) -> None:
    from medfmc_hf.benchmark.grid import Grid
    from medfmc_hf.runs.folders import find_runs

    values, shared = grid_values(bench), bench.shared()
    configs = Grid.from_dict(values).configs()
    rows_of = {c.dataset_config: len(shared.splits(c.dataset_config)["train"]) for c in configs}
    fixed, per_row = {}, {}
    for number, (subset, method, shots) in enumerate(ALONE[:2] if bench.toy else ALONE):
        config = next(c for c in configs if (c.subset, c.method) == (subset, method) and (bench.toy or c.shots == shots))
        home, out = bench.scratch / f"home{number}", bench.scratch / f"alone{number}"
        options = [f"--{name}={getattr(config, name.replace('-', '_'))}" for name in ("subset", "shots", "method", "epochs", "dtype")]
        options += [f"--option={name}={value}" for name, value in METHODS[method].items()]
        arguments = [*options, f"--model={bench.backbone}", f"--data={bench.data}", f"--out={out}"]
        wall, problem = python("peft_train.py", *arguments, limit=600, HF_HOME=str(home), HF_HUB_OFFLINE="1")
        if problem:
            raise RuntimeError(f"{config.dataset_config} {method}: {problem}")
        seconds = next(find_runs(out))[1].cost["seconds"]
        name = f"a separate process: {config.dataset_config} {method}, s"
        parts = ", ".join(f"{stage} {seconds[stage]:.1f}" for stage in ("data", "train", "test"))
        bench.row(name, f"{wall:.1f}", "", parts)
        fixed.setdefault(subset, []).append(wall - seconds["train"])
        per_row.setdefault(method, []).append(seconds["train"] / rows_of[config.dataset_config])
        shutil.rmtree(home, ignore_errors=True)

    def mean(known: dict[str, list[float]], key: str) -> float:
        return statistics.mean(known.get(key) or [value for values in known.values() for value in values])  # for a toy

    peer = sum(mean(fixed, c.subset) + mean(per_row, c.method) * rows_of[c.dataset_config] for c in configs)
    file = bench.folder / f"grid-{bench.size}.json"
    what = f"{len(configs)} runs, extrapolated from {sum(map(len, fixed.values()))}, each in a separate process, against the grid"
    if not file.is_file():
        bench.row(f"{what}, which was not run: s per run", f"{peer / len(configs):.2f}", "", "", "at least 10 times")
        return
    ours = json.loads(file.read_text())
    what += " (extrapolated, too)" * ours["extrapolated"] + ", s per run"
    times = f"{peer / ours['seconds']:.1f} times"
    bench.row(what, f"{peer / len(configs):.2f}", f"{ours['seconds'] / ours['runs']:.2f}", times, "at least 10 times")


PARTS = {part.__name__: part for part in (evaluation, wait, grouped, grid, processes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument("--size", type=int, default=224, help="side of the backbone's input, in pixels (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=15, help="time limit of the grid (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="folder of the data, reused if it exists (default: a temporary folder)")
    args = parser.parse_args()
    from invented import invented_build, make_backbone

    from medfmc_hf.progress import set_quiet
    from medfmc_hf.runs.provenance import versions

    set_quiet(True)
    warnings.simplefilter("ignore")  # torch warns at every size that the CPU's attention has no batching rule
    toy = not torch.cuda.is_available()
    size = 32 if toy else args.size
    if toy:
        print("No GPU here: every number is OPEN. What follows is a toy run on the CPU, to show that it works; it measures nothing.\n")
    else:
        known = ", ".join(f"{name} {version}" for name, version in versions().items())
        print(f"{torch.cuda.get_device_name()}, {os.cpu_count()} CPU cores, ViT-B/16 at {size}; {known}\n")
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.perf_counter()
        data = invented_build(folder / ("toy" if toy else "invented"), toy=toy)
        print(f"The data were ready in {time.perf_counter() - begin:.0f} s.\n")
        print(f"| what | floor or peer | ours | ratio | goal |\n|{'---|' * 5}", flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            backbone = make_backbone(Path(scratch) / "backbone", size, toy=toy)
            device = torch.device("cpu" if toy else "cuda")
            bench = Bench(folder, Path(scratch), data, backbone, size, device, toy, args.minutes)
            for name in args.only:
                begin = time.perf_counter()
                try:
                    PARTS[name](bench)
                except Exception as error:
                    failed.append(name)
                    traceback.print_exc()
                    bench.row(f"{name} FAILED: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}")
                gc.collect()
                torch.cuda.empty_cache()
                print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
