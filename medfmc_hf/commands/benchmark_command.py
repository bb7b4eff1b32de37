"""Run a grid of adaptations: every method on every subset, shots, seed and backbone that a grid file names.

    medfmc benchmark GRID.yaml --dry-run      what it would run, how long it takes here, and how much disk
    medfmc benchmark GRID.yaml                run what is not finished yet; stop and start again at will
    medfmc benchmark GRID.yaml --retry failed run what failed, too

Images are decoded once, the backbone is loaded once, and features of a frozen backbone are computed once for all runs. Several
processes share the work by themselves, started by `accelerate launch`, by Slurm, or by hand in two terminals: each takes the costliest
run that nobody has. A failed run leaves a record with its error and the rest goes on; the exit status is then 1.
"""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import notify
from ..runs import SCHEMA
from ..runs.folders import find_runs
from ..words import plural

if TYPE_CHECKING:
    from ..benchmark.grid_plan import Job

_LAUNCHED = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grid", metavar="GRID.yaml", help="grid file; recipes/grids has examples")
    parser.add_argument("--data", default="medfmc", help="folder that `medfmc build` made, or a dataset repository (default: medfmc)")
    parser.add_argument("--out", default="runs", help="folder of the runs (default: runs)")
    parser.add_argument("--cache", metavar="FOLDER", help="folder of the pixel and feature cache (default: the user's, see `medfmc cache`)")
    parser.add_argument("--dry-run", action="store_true", help="print runs, estimated time and disk, and run nothing")
    parser.add_argument("--retry", choices=["failed"], help="run failed runs again")
    parser.add_argument("--together", action="store_true", help="all processes work on one run at a time (DDP), not each on its own")
    parser.add_argument("--group", metavar="K", type=_group, default="auto",
                        help="train up to K alike runs in one pass; auto is 5 on a GPU and 1 on a CPU, where it does not pay")  # fmt: skip


def _group(text: str) -> int | str:
    if text == "auto":
        return text
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"K is a whole number of at least 1, or auto; got {text!r}")


def run(args: argparse.Namespace) -> int:
    from ..benchmark.grid import read_grid

    configs = read_grid(args.grid).configs()
    rank = int(os.environ.get("RANK", 0))
    if not args.together:
        _work_alone()

    from ..benchmark.grid_plan import forecast, plan
    from ..benchmark.live import duration, run_of
    from ..benchmark.sweep import sweep
    from ..evaluation.scored import run_names
    from ..training.shared import Shared

    shared = Shared(args.data, cache=args.cache)
    jobs = plan(configs, shared, args.out, group=1 if args.together else _group_size(args.group))
    if rank == 0 and (older := _older_runs(args.out)):
        notify(
            f"{older} {plural('run', older)} in {args.out} were made by version 0.2 or before, whose ids did not depend on what the images "
            "are. They stay, and are not taken for runs of this grid."
        )
    records = {job.id: job.record for job in jobs}
    status = [record.status if record else None for record in records.values()]
    problems = [job for job in jobs if job.problem]
    if args.dry_run:
        retried = ("failed",) if args.retry else ()
        left = [job for job in jobs if (record := records[job.id]) is None or record.status in retried]
        cost = forecast([job for job in left if not job.problem], shared)
        print(f"{len(jobs)} runs: {status.count('finished')} finished, {status.count('failed')} failed, {len(left)} to run")
        for line in _by_adaptation(jobs, left):
            print(line)
        print(f"time: about {duration(cost.decode_seconds + cost.compute_seconds)} in one process on this machine,")
        print(f"      {duration(cost.decode_seconds)} of it to decode images (forward passes and decoding probed now)")
        print(f"disk: about {cost.disk_bytes / 1e9:.2f} GB for pixels, cached features and adapters")
        names = run_names(list(map(run_of, jobs)))
        for job in problems:
            print(f"cannot start {names[job.id]}: {job.problem}")
        return 1 if problems else 0

    table = sweep(jobs, shared, args.out, retry_failed=args.retry == "failed", together=args.together, shown=rank == 0)
    if rank == 0:
        print("\n".join([table.headline(), *table.rows()]))
        for record in table.records.values():
            if record.status == "failed":
                print(f"failed: {table.names[record.id]}: {(record.error or '').strip().splitlines()[-1]}")
    return 1 if table.count("failed") else 0


def _older_runs(out: str) -> int:
    if not Path(out).is_dir():
        return 0
    return sum(record.schema < SCHEMA and record.status == "finished" for _, record in find_runs(out, left_out=[]))


def _work_alone() -> None:
    """Leave the process group of `accelerate launch`: every process works for itself, so that none waits for another, or dies with it."""
    local = os.environ.get("LOCAL_RANK")
    for name in _LAUNCHED:
        os.environ.pop(name, None)
    if local is not None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(int(local) % torch.cuda.device_count())


def _group_size(group: int | str) -> int:
    if isinstance(group, int):
        return group
    import torch

    return 5 if torch.cuda.is_available() else 1


def _by_adaptation(jobs: Sequence["Job"], left: Sequence["Job"]) -> list[str]:
    from ..benchmark.live import run_of
    from ..evaluation.experiments import labels_of

    labels = labels_of(map(run_of, jobs))
    counts = Counter(f"{job.config.subset:12} {labels[job.id]}" for job in left)
    return [f"  {count:4}  {key}" for key, count in counts.items()]
