"""Make a report of runs: a board, curves, costs, classes, paired comparisons, published numbers, and what is missing.

  medfmc report runs/                      writes report/board.html and the same as .md, .csv, .tex and .json, and plots as .png and .svg
  medfmc report a/ b/ --out comparison     several folders of runs in one report
  medfmc report runs/ --space space --records my-lab/medfmc-runs
                                           also writes a static Space that reads its results from a data set on the Hub

board.html needs nothing else: it can be mailed, printed, and opened without a network.
"""

import argparse
from pathlib import Path

from ..errors import MedfmcError
from ..words import plural


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folder or folder of runs")
    parser.add_argument("--out", type=Path, default=Path("report"), metavar="FOLDER", help="where to write (default: report)")
    parser.add_argument("--replicates", type=int, metavar="0", help="0 for no test intervals and comparisons; other numbers do nothing")
    parser.add_argument("--all-data", action="store_true", help="show runs on invented images, or built with --allow-missing, too")
    parser.add_argument("--space", type=Path, metavar="FOLDER", help="also write a static Space here; needs --records")
    parser.add_argument("--records", metavar="ORG/NAME", help="the data set on the Hub that the Space reads")


def run(args: argparse.Namespace) -> None:
    from ..reporting import write_report
    from ..reporting.space import write_space

    if (args.space is None) != (args.records is None):
        raise MedfmcError("--space and --records go together: the folder of the Space, and the data set it reads.")
    if args.replicates is not None and args.replicates < 0:
        raise MedfmcError(f"--replicates is 0 or more; got {args.replicates}.")
    space = write_space(args.space, args.records) if args.space else []  # first: it is quick, and may refuse
    board, paths = write_report(args.runs, args.out, intervals=args.replicates != 0, all_data=args.all_data)
    for path in [*paths, *space]:
        print(path)
    counts = board.counts
    gaps, rows = sum(len(gap["seeds"]) for gap in board.gaps), len(board.adaptations)
    runs = f"{counts['finished']} finished and {counts['failed']} failed runs in {rows} {plural('row', rows)}"
    print(f"\n{runs}; {gaps} {plural('seed', gaps)} of the grid are missing.")
    if board.notes:
        print("What the report cannot show:")
        for note in board.notes[:5]:
            print(f"- {note}")
        if len(board.notes) > 5:
            print(f"- and {len(board.notes) - 5} more, listed in {args.out / 'board.md'}")
