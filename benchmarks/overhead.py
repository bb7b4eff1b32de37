"""The overhead of a sweep: python benchmarks/overhead.py

On the invented MedFMC and a tiny backbone, in one process unless stated otherwise; medians.

- start-up: new processes that import or print, compared with the imports of a script with Trainer.
- few-shot selection: the rows of a config, by the config and by the obvious `filter`, which decodes every image.
- grid: one more train-free run in a sweep with cached features; and planning a grid of finished runs.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def fresh(code: list[str], rounds: int) -> float:
    """Median seconds of a new process."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *code], check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def start_up(rounds: int) -> None:
    bare = fresh(["-c", "pass"], rounds)
    peer = fresh(["-c", "from transformers import Trainer, AutoImageProcessor; import peft, datasets, evaluate"], rounds)
    for what, code, goal in (
        ("import medfmc_hf", ["-c", "import medfmc_hf"], "0.05 above floor"),
        ("medfmc --help", ["-c", "import sys; from medfmc_hf.cli import main; sys.argv[1:] = ['--help']; main()"], "0.25"),
        ("import medfmc_hf.training", ["-c", "import medfmc_hf.training"], ""),
    ):
        own = fresh(code, rounds)
        print(f"| start-up: {what}, s | {bare:.2f} | {own:.2f} | {peer:.2f} | {own / peer:.2f} | {goal} |")


def selection(data: Path, rounds: int) -> None:
    from medfmc_hf.data import loading
    from medfmc_hf.images.pixels import decodes
    from medfmc_hf.subsets import SUBSETS

    def seconds(work) -> float:
        times = []
        for _ in range(rounds):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    splits = loading.load_splits(data, "retino-5shot-seed0")
    whole = splits["test"]
    decodes.reset()
    own = 1e3 * seconds(lambda: loading.targets_of(whole, SUBSETS["retino"]))
    touched = decodes.count
    peer = 1e3 * seconds(lambda: whole.filter(lambda row: row["label"] == 1, load_from_cache_file=False))
    floor = 1e3 * seconds(lambda: whole.data.column("label").to_numpy())
    print(f"| labels of {len(whole)} rows after loading ({touched} images decoded), ms | {floor:.2f} | {own:.2f} | {peer:.1f} (filter) "
          f"| {own / peer:.3f} | 10 |")  # fmt: skip


def grid(data: Path, scratch: Path) -> None:
    from medfmc_hf.benchmark.grid import Grid
    from medfmc_hf.benchmark.grid_plan import plan
    from medfmc_hf.benchmark.sweep import sweep
    from medfmc_hf.quickstart import make_backbone
    from medfmc_hf.training.shared import Shared

    shared = Shared(data, cache=scratch / "cache")
    values = {"backbones": [str(make_backbone(scratch / "backbone"))], "subsets": ["retino"], "methods": ["prototype"]}
    sweep(plan(Grid.from_dict(values).configs(), shared, scratch / "runs"), shared, scratch / "runs")
    jobs = plan(
        Grid.from_dict(values | {"methods": [{"method": "prototype", "method_options": {"temperature": 5.0}}]}).configs(), shared, scratch
    )
    begin = time.perf_counter()
    sweep(jobs, shared, scratch / "runs")
    each = (time.perf_counter() - begin) / len(jobs)
    print(f"| one more run in a sweep, s | 0 | {each:.3f} | {fresh(['-c', 'import medfmc_hf.training'], 1):.1f} (a process) | | 0.3 |")
    again = Shared(data, cache=scratch / "cache")
    begin = time.perf_counter()
    plan(Grid.from_dict(values).configs(), again, scratch / "runs")
    print(f"| planning a finished grid, s per run | 0 | {(time.perf_counter() - begin) / len(jobs):.3f} | | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s)")
    args = parser.parse_args()
    from medfmc_hf.progress import set_quiet

    set_quiet(True)
    print(f"| what | floor | ours | peer | ours / peer | goal |\n|{'---|' * 6}")
    start_up(args.rounds)
    from medfmc_hf.data.build import build
    from medfmc_hf.data.sample import make_sample

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        build([make_sample(scratch / "sample")], scratch / "medfmc")
        selection(scratch / "medfmc", args.rounds)
        grid(scratch / "medfmc", scratch)


if __name__ == "__main__":
    main()
