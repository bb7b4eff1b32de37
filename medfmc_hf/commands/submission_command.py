"""Write a submission to the MedFM challenge from runs, or check any.

  medfmc submission RUNS --phase validation --data medfmc --out result.zip [--seed 0]
  medfmc submission RUNS --phase final --data medfmc --out result.zip
  medfmc submission check result.zip [--data medfmc]

The validation phase takes 9 files (three subsets, three shots, one seed), the final phase 45 (five seeds). RUNS are folders of runs of
one method. A check with --data also compares the order of the rows with the challenge's lists; its exit status is 1 for a bad submission.
"""

import argparse
from pathlib import Path

from ..errors import MedfmcError
from ..evaluation import submission, submission_check
from ..runs.folders import find_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="RUNS | check ZIP|FOLDER", nargs="+", help="folders of runs; or `check` and a submission")
    parser.add_argument("--phase", choices=("validation", "final"), help="which phase to write for")
    parser.add_argument("--data", metavar="BUILD", help="the build that gives the order of the rows (to write: default medfmc)")
    parser.add_argument("--out", metavar="ZIP", default="result.zip", help="the zip to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="the seed to submit in the validation phase")


def run(args: argparse.Namespace) -> int:
    return _check(args) if args.what[0] == "check" else _write(args)


def _write(args: argparse.Namespace) -> int:
    if not args.phase:
        raise MedfmcError("say which phase to write for: --phase validation or --phase final.")
    print(submission.write(list(find_runs(args.what)), args.phase, args.data or "medfmc", Path(args.out), args.seed))
    return 0


def _check(args: argparse.Namespace) -> int:
    if len(args.what) != 2:
        raise MedfmcError("expected one submission: medfmc submission check result.zip.")
    files = submission.read(args.what[1])
    subsets = dict.fromkeys(place[1] for place in files.files)
    order = {subset: submission.challenge_order(args.data, files.phase, subset) for subset in subsets} if args.data else None
    submission_check.check(files, order)
    for note in files.notes:
        print(f"note: {note}")
    for problem in files.problems:
        print(f"problem: {problem}")
    verdict = f"{len(files.problems)} problems" if files.problems else "valid"
    print(f"{args.what[1]}, {files.phase} phase, {len(files.files)} files: {verdict}.")
    return 1 if files.problems else 0
