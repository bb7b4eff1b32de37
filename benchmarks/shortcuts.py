"""What each shortcut of a run saves: python benchmarks/shortcuts.py

The invented data and the ViT-S/16 of adaptation.py. Whole runs with a few seeds in one process, as in a sweep, with and without a shortcut
in alternation; processor seconds without the imports, median over rounds. A shortcut is worth having if it saves 5 %.

- frozen blocks: their outputs are computed once per image (`medfmc_hf/training/frozen_blocks.py`), for test images and, with
  `augmentation: fixed-views`, for the training views.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from adaptation import prepare, splits_of

# name: epochs, and options of the run with and without the shortcut; `split` switches it. The recipes have twenty epochs.
CASES: dict[str, tuple[int, dict, dict]] = {
    "frozen blocks of test images, partial": (4, {"method": "partial"}, {"method": "partial", "split": False}),
    "fixed views, partial": (20, {"method": "partial", "augmentation": "fixed-views"}, {"method": "partial"}),
    "fixed views, linear-sgd": (20, {"method": "linear-sgd", "augmentation": "fixed-views"}, {"method": "linear-sgd"}),
}


def child(folder: Path, args: argparse.Namespace, options: dict) -> None:
    """Run a few seeds in this process and print processor seconds per run."""
    from medfmc_hf.progress import set_quiet
    from medfmc_hf.runs import RunConfig
    from medfmc_hf.training import frozen_blocks
    from medfmc_hf.training.one_run import Shared, train

    class Invented(Shared):
        def splits(self, name):
            return self.cached(("splits", name), lambda: splits_of(folder, args, name.seed))

    set_quiet(True)
    if not options.pop("split", True):
        frozen_blocks.split = lambda model, process: model
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        shared = Invented(cache=Path(scratch) / "cache")
        for seed in range(args.draws):
            config = RunConfig("colon", shots=1, seed=seed, model=str(folder / "backbone"), batch_size=4, **options)
            train(config, shared=shared, out=Path(scratch) / "runs")
    print(json.dumps((time.process_time() - begin) / args.draws))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"train": 16, "validation": 1, "test": 32, "rounds": 3, "draws": 2}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"(default: {value})")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(Path(args.folder), args, json.loads(args.child))
        return
    print(f"{args.train} training images at batch 4, {args.test} test images, {args.draws} seeds, ", end="")
    print(f"{args.rounds} rounds\n")
    print("| shortcut | epochs | with, s per run | without | saved | goal |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), args.draws * args.train + args.validation + args.test)
        flags = [f"--{name}={getattr(args, name)}" for name in ("train", "validation", "test", "draws")]
        for name, (epochs, *pair) in CASES.items():
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(args.rounds):
                for options, measured in zip(pair, times):
                    argv = [sys.executable, __file__, f"--child={json.dumps(options | {'epochs': epochs})}", f"--folder={folder}", *flags]
                    done = subprocess.run(argv, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
                    if done.returncode:
                        raise SystemExit(done.stderr)
                    measured.append(json.loads(done.stdout.splitlines()[-1]))
            own, without = map(statistics.median, times)
            print(f"| {name} | {epochs} | {own:.1f} | {without:.1f} | {1 - own / without:.1%} | at least 5 % |", flush=True)


if __name__ == "__main__":
    main()
