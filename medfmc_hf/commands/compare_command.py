"""Compare models on the same test images: is B better than A, for other patients, and for other support sets?

  medfmc compare runs/linear runs/lora                  folders of runs, paired by dataset config
  medfmc compare runs/linear runs/lora runs/vpt-deep    several against the first
  medfmc compare a.csv b.csv                            CSV files as `medfmc score` reads them

Differences are B minus A in points (x 100). "over patients" leaves out each patient of the test set in turn, the same ones for both models,
with the models as they are. "over seeds" is another interval, of other support sets, from the spread of the differences: the two are never
mixed. p belongs to the interval over patients and is corrected (Holm) over every pair of the models that were given, in this metric and
test, as a report corrects over every pair of its rows; how many pairs these are stands beside it. DeLong's p is not corrected.
"""

import argparse
import dataclasses

from ..errors import MedfmcError
from ..evaluation.compare import Comparison, compare, metric_title
from ..evaluation.scored import Scored
from ..files import write_json
from ..progress import notify
from ..words import interval, p_value, percent
from ._scored import add_source_arguments, load, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="run, folder of runs, or CSV to compare with")
    parser.add_argument("b", metavar="B", nargs="+", help="runs, folders of runs, or CSVs to compare")
    parser.add_argument("--per-class", action="store_true", help="also compare the AUC of each class")
    parser.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the comparison to this file, as fractions")
    add_source_arguments(parser)
    for name in ("--replicates", "--seed"):  # of the bootstrap that earlier versions drew
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    if len({args.a, *args.b}) < 1 + len(args.b):
        raise MedfmcError(f"a model is given twice: {', '.join([args.a, *args.b])}; expected different ones.")
    models: dict[str, list[Scored]] = {path: load(path, args) for path in [args.a, *args.b]}
    base = models.pop(args.a)
    if args.replicates is not None or args.seed is not None:
        notify("--replicates and --seed do nothing: intervals and p values come from the jackknife, which draws nothing.")
    rows = compare(base, models, per_class=args.per_class, level=args.level)
    print(f"A is {args.a}" + (f", B is {args.b[0]}" if len(args.b) == 1 else "") + ".\n")
    print(table([_cells(row, len(args.b) > 1, args.level) for row in rows]) + "\n")
    for row in rows:
        print(row.verdict(args.a, args.level))
    if args.json:
        write_json(args.json, [dataclasses.asdict(row) | {"base": args.a} for row in rows])


def _cells(row: Comparison, several: bool, level: float) -> dict[str, str]:
    cells = {"test": row.test} | ({"model": row.other} if several else {}) | {"metric": metric_title(row.metric)}
    cells |= {"A": percent(row.base_value), "B": percent(row.other_value), "B - A": percent(row.difference, sign="+")}
    cells |= {f"{level:.0%} over patients": interval((row.low, row.high), "+", "-"), "patients": f"{row.patients} {row.group}"}
    over = interval((row.seeds.low, row.seeds.high), "+") if row.seeds else "-"
    cells |= {f"{level:.0%} over seeds": over} | ({"seeds": row.seeds_are} if row.seeds_are else {})
    return cells | {"p (Holm)": p_value(row.p_holm, "-"), "comparisons": str(row.comparisons), "p (DeLong)": p_value(row.p_delong, "-")}
