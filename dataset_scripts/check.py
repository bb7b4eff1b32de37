"""Audit a dataset folder: counts, repeats, and overlap of train, validation and test.

    python dataset_scripts/check.py medfmc

This is `medfmc check` as a script; medfmc_hf.data.audit.check_build does the work. The exit status is 1 if anything is wrong.
"""

import argparse

from medfmc_hf.cli import guarded
from medfmc_hf.commands import check_command
from medfmc_hf.progress import set_quiet


def main(argv: list[str] | None = None) -> int | None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    check_command.add_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no messages")
    args = parser.parse_args(argv)
    set_quiet(args.quiet)
    return check_command.run(args)


if __name__ == "__main__":
    raise SystemExit(guarded("check.py", main))
