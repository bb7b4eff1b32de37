"""Make ./medfmc, a dataset folder for load_dataset, from a MedFMC download.

    python dataset_scripts/build.py PATH/TO/MedFMC --out medfmc --fetch-lists

This is `medfmc build` as a script; medfmc_hf.data.build.build does the work. README.md in this folder explains sources, lists and forms.
"""

import argparse

from medfmc_hf.cli import guarded
from medfmc_hf.commands import build_command
from medfmc_hf.progress import set_quiet


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    build_command.add_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no messages")
    args = parser.parse_args(argv)
    set_quiet(args.quiet)
    build_command.run(args)


if __name__ == "__main__":
    raise SystemExit(guarded("build.py", main))
