"""Score predictions: accuracy or mAP, AUC and their mean (the score), with intervals and a verdict.

  medfmc score runs/endo-5shot-seed0/lora-...           a run
  medfmc score runs/lora                                every run below a folder; draws of one setting are summed up
  medfmc score predictions.csv                          columns label or labels, a score per class, perhaps image_id and patient_id
  medfmc score endo_5-shot_submission.csv --labels Endo_published_4d.csv
  medfmc score result.zip --data medfmc                 a challenge submission: 18 or 90 numbers and their mean

Numbers are x 100, as the challenge prints them. The interval in brackets resamples the patients of the test set. Over draws of the
support set there is another one, Student's t interval of the mean: the two say different things and are never mixed.
"""

import argparse
import zipfile
from pathlib import Path
from typing import Any

from ..errors import MedfmcError
from ..evaluation import challenge, submission
from ..evaluation.bootstrap import Bootstrap, bootstrap, mean_of
from ..evaluation.challenge import METRIC_TITLES, Aggregate
from ..evaluation.scored import Scored
from ..evaluation.statistics import over_draws
from ..files import write_json
from ..progress import bar
from ..runs.folders import find_runs
from ..scoring import score
from ..subsets import SUBSETS
from ._scored import add_source_arguments, interval, labels_of, load, percent, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="RUN|CSV|SUBMISSION", nargs="+", help="runs, folders of runs, CSV files, or one submission")
    add_source_arguments(parser)
    parser.add_argument("--per-class", action="store_true", help="also print every class")
    parser.add_argument("--official", action="store_true", help="count undefined classes and ties as the official code does; no intervals")
    parser.add_argument(
        "--challenge", action="store_true", help="of runs: print the challenge's aggregate and what it lacks, from run records"
    )
    parser.add_argument(
        "--interval", choices=("normal", "percentile", "bca"), default="normal", help="kind of bootstrap interval (default: %(default)s)"
    )
    parser.add_argument("--replicates", type=int, default=1000, help="of the bootstrap; 0 for no intervals (default: %(default)s)")
    parser.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write everything to this file, as fractions")


def run(args: argparse.Namespace) -> None:
    if len(args.what) == 1 and _is_submission(Path(args.what[0])):
        report = _submission(args)
    elif args.challenge:
        records = [record for _, record in find_runs(args.what)]
        report = {"challenge": _print_aggregate(challenge.aggregate(challenge.results_of_runs(records, args.split)))}
    else:
        report = _scored([item for path in args.what for item in load(path, args)], args)
    if args.json:
        write_json(args.json, report)


def _is_submission(path: Path) -> bool:
    folder = next((p for p in (path / "result", path) if p.is_dir()), path)
    return zipfile.is_zipfile(path) or any(folder.glob("*-shot_submission.csv")) or any(folder.glob("exp?/*-shot_submission.csv"))


def _results(scored: list[Scored], args: argparse.Namespace) -> list[dict[str, Any]]:
    mode = {"undefined": "official", "ties": "official"} if args.official else {}
    return [score(item.targets, item.scores, classes=item.classes, **mode) for item in scored]


def _submission(args: argparse.Namespace) -> dict[str, Any]:
    files = submission.read(args.what[0])
    if not (args.data or args.labels):
        raise MedfmcError(f"{args.what[0]} has no labels: give a build with --data, or the published tables of its subsets with --labels.")
    labels = {key: labels_of(args, SUBSETS[key]) for key in dict.fromkeys(place[1] for place in files.files)}
    scored = submission.scored_files(files, labels)
    results = dict(zip(scored, _results(list(scored.values()), args)))
    rows = [{"file": challenge.title(place)} | _values(result) for place, result in results.items()]
    print(table(rows) + "\n")
    _print_undefined(results={challenge.title(place): result for place, result in results.items()})
    aggregate = challenge.aggregate(results)
    return {"results": {challenge.title(place): result for place, result in results.items()}, "challenge": _print_aggregate(aggregate)}


def _values(result: dict[str, Any]) -> dict[str, str]:
    return {METRIC_TITLES[name]: percent(result[name]) if name in result else "" for name in ("accuracy", "map", "auc", "score")}


def _print_undefined(results: dict[str, dict[str, Any]]) -> None:
    for name, result in results.items():
        if result["undefined"]:
            print(f"{name}: {', '.join(result['undefined'])} without positives or without negatives.")


def _print_aggregate(aggregate: Aggregate) -> dict[str, Any]:
    if aggregate.mean is not None:
        print(f"challenge: {100 * aggregate.mean:.6f}, the mean of {aggregate.expected} numbers")
    else:
        partial = (
            ""
            if aggregate.partial_mean is None
            else f"; the mean of the {len(aggregate.values)} there are is {percent(aggregate.partial_mean)}"
        )
        print(f"challenge: not defined, {len(aggregate.missing)} of {aggregate.expected} numbers are missing{partial}")
        print("missing: " + ", ".join(aggregate.missing))
    return {"mean": aggregate.mean, "numbers": len(aggregate.values), "expected": aggregate.expected, "missing": list(aggregate.missing)}


def _scored(scored: list[Scored], args: argparse.Namespace) -> dict[str, Any]:
    results = _results(scored, args)
    boots: list[Bootstrap | None] = [None] * len(scored)
    if args.replicates and not args.official:
        boots = [_bootstrap(item, args) for item in bar(scored, desc="resampling patients", unit="run")]
    rows = []
    for item, result, boot in zip(scored, results, boots):
        cells = {"": item.name, "pictures": str(len(item.image_ids)), "patients": f"{len(set(item.patient_ids))} {item.group}"}
        for name in ("accuracy", "map", "auc", "score"):
            cells[METRIC_TITLES[name]] = _with_interval(result[name], boot, name, args) if name in result else ""
        rows.append(cells)
    used = [name for name in rows[0] if any(row[name] for row in rows)]
    print(table([{name: row[name] for name in used} for row in rows]) + "\n")
    if args.per_class:
        for item, result, boot in zip(scored, results, boots):
            print(item.name + "\n" + table([_class_cells(name, own, boot, args) for name, own in result["per_class"].items()]) + "\n")
    _print_undefined({item.name: result for item, result in zip(scored, results)})
    report = [
        {"name": item.name, "config": item.config and str(item.config), "result": result, "intervals": _intervals(boot, args)}
        for item, result, boot in zip(scored, results, boots)
    ]
    summaries = []
    groups: dict[tuple, list[int]] = {}
    for index, item in enumerate(scored):
        config = item.config
        groups.setdefault((config.subset, config.shots, config.variant, item.setting) if config else (index,), []).append(index)
    for members in groups.values():
        if len(members) > 1:
            summaries.append(_draws([scored[i] for i in members], [results[i] for i in members], [boots[i] for i in members], args))
        elif boots[members[0]]:
            print(_verdict(scored[members[0]], results[members[0]], boots[members[0]], args))
    return {"runs": report, "draws": summaries}


def _bootstrap(item: Scored, args: argparse.Namespace) -> Bootstrap:
    options = {"replicates": args.replicates, "seed": args.seed, "bca": args.interval == "bca"}
    return bootstrap(item.targets, item.scores, item.patient_ids, classes=item.classes, **options)


def _ends(boot: Bootstrap, name: str, args: argparse.Namespace) -> tuple[float, float]:
    """The interval, cut to what a score can be."""
    low, high = boot.interval(name, args.level, args.interval)
    return (max(low, 0.0), min(high, 1.0)) if low == low else (low, high)


def _with_interval(value: float, boot: Bootstrap | None, name: str, args: argparse.Namespace) -> str:
    if value != value:
        return "-"
    return percent(value) + (f" ({interval(*_ends(boot, name, args))})" if boot else "")


def _class_cells(name: str, own: dict[str, Any], boot: Bootstrap | None, args: argparse.Namespace) -> dict[str, str]:
    cells = {"class": name, "positives": str(own["positives"]), "negatives": str(own["negatives"])}
    if "ap" in own:
        cells["AP"] = _with_interval(own["ap"], boot, f"ap of {name}", args)
    else:
        cells["recall"] = "-" if own["recall"] != own["recall"] else percent(own["recall"])
    return cells | {"AUC": _with_interval(own["auc"], boot, f"auc of {name}", args)}


def _intervals(boot: Bootstrap | None, args: argparse.Namespace) -> dict[str, list[float]] | None:
    return boot and {name: list(_ends(boot, name, args)) for name in boot.point}


def _verdict(item: Scored, result: dict[str, Any], boot: Bootstrap, args: argparse.Namespace) -> str:
    """Whether the model does better than one that has learnt nothing, on other patients."""
    shares = [own["positives"] / result["rows"] for name, own in result["per_class"].items() if name not in result["undefined"]]
    chance = {"auc": 0.5, "accuracy": max(shares, default=1.0), "map": sum(shares) / max(len(shares), 1)}
    told = {"auc": "0.5", "accuracy": "the largest class", "map": "the share of positives"}
    words = []
    for name in (item.main, "auc"):
        low, high = _ends(boot, name, args)
        if low != low:
            words.append(f"{METRIC_TITLES[name]} is undefined")
            continue
        how = "is better than" if low > chance[name] else "is worse than" if high < chance[name] else "cannot be told from"
        words.append(f"{METRIC_TITLES[name]} {how} chance ({percent(chance[name])}, {told[name]})")
    return f"{item.name}: {' and '.join(words)}, by the interval over {boot.patients} {item.group}."


def _draws(scored: list[Scored], results: list[dict[str, Any]], boots: list[Bootstrap | None], args: argparse.Namespace) -> dict[str, Any]:
    """Print and return the mean over draws, with the spread over draws and the test set's interval side by side."""
    first = scored[0]
    config = first.config
    name = f"{config.subset} " + (f"{config.shots}-shot " if config.shots else "") + first.name.partition(" ")[2]
    mean = mean_of(boots) if all(boots) and len({tuple(sorted(item.image_ids)) for item in scored}) == 1 else None

    def width(ends: list[float]) -> float:
        return ends[1] - ends[0]

    rows, report = [], {"name": name, "draws": len(scored), "metrics": {}}
    for metric in (first.main, "auc", "score"):
        spread = over_draws([result[metric] for result in results], args.level)
        patients = _ends(mean, metric, args) if mean else (float("nan"), float("nan"))
        rows.append(
            {"": METRIC_TITLES[metric], "mean": percent(spread.mean), "sd over draws": percent(spread.sd)}
            | {f"{args.level:.0%} over draws (t)": interval(spread.low, spread.high)}
            | {f"{args.level:.0%} over {first.group}, these draws": interval(*patients)}
        )
        report["metrics"][metric] = {
            "mean": spread.mean,
            "sd": spread.sd,
            "over_draws": [spread.low, spread.high],
            "over_patients": list(patients),
        }
    print(f"{name}, {len(scored)} draws\n{table(rows)}")
    over, within = (width(report["metrics"]["score"][kind]) for kind in ("over_draws", "over_patients"))
    if over == over and within == within:
        larger = "support set is the larger" if over > within else "test set is the larger"
        print(f"The {larger} uncertainty of the score: {100 * over:.2f} points wide over draws, {100 * within:.2f} over {first.group}.\n")
    return report
