"""Run a benchmark grid on one or more machines.

    accelerate launch --num_processes 8 recipes/benchmark.py recipes/grids/peft.yaml

Each process takes the costliest run that is still free; --together puts all processes on one run at a time (DDP). This is
`medfmc benchmark` as a script: the grid is in medfmc_hf.benchmark.grid, the plan in medfmc_hf.benchmark.grid_plan, and the sweep in
medfmc_hf.benchmark.sweep.
"""

import argparse

from medfmc_hf.cli import guarded
from medfmc_hf.progress import set_quiet


def main(argv: list[str] | None = None) -> int:
    from medfmc_hf.commands import benchmark_command

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchmark_command.add_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no messages")
    args = parser.parse_args(argv)
    set_quiet(args.quiet)
    return benchmark_command.run(args)


if __name__ == "__main__":
    raise SystemExit(guarded("benchmark.py", main))
