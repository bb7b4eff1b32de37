"""Score predictions: accuracy or mAP, AUC and their mean (the score), with intervals and a verdict.

  medfmc score runs/endo-5shot-seed0/lora-...           a run
  medfmc score runs/lora                                every run below a folder; the seeds of an experiment are summed up
  medfmc score predictions.csv                          columns label or labels, a score per class, perhaps image_id and patient_id
  medfmc score endo_5-shot_submission.csv --labels Endo_published_4d.csv
  medfmc score result.zip --data medfmc                 a challenge submission: 18 or 90 numbers and their mean

Numbers are x 100, as the challenge prints them. The interval in brackets is over the patients of the test set: each is left out in turn
(jackknife). Over seeds, which are other support sets, there is another one, Student's t interval of the mean: the two say different things
and are never mixed.
"""

import argparse
import dataclasses
import zipfile
from pathlib import Path
from typing import Any

from ..errors import MedfmcError
from ..evaluation import challenge, submission
from ..evaluation.bootstrap import bootstrap
from ..evaluation.challenge import Aggregate
from ..evaluation.experiments import Experiment, group, seedless
from ..evaluation.intervals import Resampled, estimate
from ..evaluation.jackknife import jackknife
from ..evaluation.scored import Scored, told_apart
from ..files import write_json
from ..progress import bar
from ..runs.folders import find_runs
from ..scoring import score
from ..subsets import SUBSETS
from ..words import METRICS, interval, percent, plural
from ._scored import add_source_arguments, labels_of, load, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="RUN|CSV|SUBMISSION", nargs="+", help="runs, folders of runs, CSV files, or one submission")
    add_source_arguments(parser)
    parser.add_argument("--per-class", action="store_true", help="also print every class")
    parser.add_argument("--official", action="store_true", help="count undefined classes and ties as the official code does; no intervals")
    parser.add_argument(
        "--challenge", action="store_true", help="of runs: print the challenge's aggregate and what it lacks, from run records"
    )
    parser.add_argument(
        "--interval",
        choices=("jackknife", "normal", "percentile", "bca"),
        default="jackknife",
        help="kind of interval over patients; the last three by a bootstrap (default: %(default)s, which every other command prints)",
    )
    parser.add_argument("--replicates", type=int, default=1000, help="of a bootstrap; 0 for no intervals (default: %(default)s)")
    parser.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of a bootstrap (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write everything to this file, as fractions")


def run(args: argparse.Namespace) -> None:
    if len(args.what) == 1 and _is_submission(Path(args.what[0])):
        report = _submission(args)
    elif args.challenge:
        records = [record for _, record in find_runs(args.what)]
        report = {"challenge": _print_aggregate(challenge.aggregate(challenge.results_of_runs(records, args.split)))}
    else:
        report = _scored(told_apart([item for path in args.what for item in load(path, args)]), args)
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
    return {METRICS[name]: percent(result[name]) if name in result else "" for name in ("accuracy", "map", "auc", "score")}


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
    sure: list[Resampled | None] = [None] * len(scored)
    if args.replicates and not args.official:
        sure = [_resampled(item, args) for item in bar(scored, desc="intervals over patients", unit="run")]
    rows = []
    for item, result, own in zip(scored, results, sure):
        cells = {"": item.name, "images": str(len(item.image_ids)), "patients": f"{len(set(item.patient_ids))} {item.group}"}
        for name in ("accuracy", "map", "auc", "score"):
            cells[METRICS[name]] = _with_interval(result[name], own, name, args) if name in result else ""
        rows.append(cells)
    used = [name for name in rows[0] if any(row[name] for row in rows)]
    print(table([{name: row[name] for name in used} for row in rows]) + "\n")
    if args.per_class:
        for item, result, own in zip(scored, results, sure):
            print(item.name + "\n" + table([_class_cells(name, each, own, args) for name, each in result["per_class"].items()]) + "\n")
    _print_undefined({item.name: result for item, result in zip(scored, results)})
    report = [
        {"name": item.name, "config": item.config and str(item.config), "result": result, "intervals": _intervals(own, args)}
        for item, result, own in zip(scored, results, sure)
    ]
    places = {item.run.record.id: n for n, item in enumerate(scored) if item.run}
    adaptations, experiments = group([item.run for item in scored if item.run])
    labels = {adaptation.key: adaptation.label for adaptation in adaptations}
    in_means = {run.record.id for experiment in experiments for run in experiment.runs if len(experiment.runs) > 1}
    for item, result, own in zip(scored, results, sure):
        if own and not (item.run and item.run.record.id in in_means):
            print(_verdict(item, result, own, args))
    summaries = []
    for experiment in experiments:
        if len(experiment.runs) > 1:
            members = [places[run.record.id] for run in experiment.runs]
            name = f"{seedless(str(experiment.config.dataset_config))} {labels[experiment.adaptation]}"
            summaries.append(_over_seeds(name, experiment, [(scored[n], results[n], sure[n]) for n in members], args))
        for run in experiment.replaced:
            print(
                f"not in the mean: {scored[places[run.record.id]].name} (run {run.record.id}), for another run of this seed finished later."
            )
    return {"runs": report, "experiments": summaries}


def _resampled(item: Scored, args: argparse.Namespace) -> Resampled:
    if args.interval == "jackknife":
        return jackknife(item.targets, item.scores, item.patient_ids, classes=item.classes)
    options = {"replicates": args.replicates, "seed": args.seed, "method": args.interval}
    return bootstrap(item.targets, item.scores, item.patient_ids, classes=item.classes, **options)


def _with_interval(value: float, own: Resampled | None, name: str, args: argparse.Namespace) -> str:
    if value != value:
        return "-"
    return percent(value) + (f" ({interval(own.interval(name, args.level), missing='-')})" if own else "")


def _class_cells(name: str, result: dict[str, Any], own: Resampled | None, args: argparse.Namespace) -> dict[str, str]:
    cells = {"class": name, "positives": str(result["positives"]), "negatives": str(result["negatives"])}
    if "ap" in result:
        cells["AP"] = _with_interval(result["ap"], own, f"ap of {name}", args)
    else:
        cells["recall"] = percent(result["recall"], "-")
    return cells | {"AUC": _with_interval(result["auc"], own, f"auc of {name}", args)}


def _intervals(own: Resampled | None, args: argparse.Namespace) -> dict[str, list[float]] | None:
    return own and {name: list(own.interval(name, args.level)) for name in own.point}


def _verdict(item: Scored, result: dict[str, Any], own: Resampled, args: argparse.Namespace) -> str:
    """Whether the model does better than one that has learnt nothing, on other patients."""
    shares = [each["positives"] / result["rows"] for name, each in result["per_class"].items() if name not in result["undefined"]]
    chance = {"auc": 0.5, "accuracy": max(shares, default=1.0), "map": sum(shares) / max(len(shares), 1)}
    told = {"auc": "0.5", "accuracy": "the largest class", "map": "the share of positives"}
    words = []
    for name in (item.main, "auc"):
        low, high = own.interval(name, args.level)
        if low != low:
            words.append(f"{METRICS[name]} is undefined")
            continue
        how = "is better than" if low > chance[name] else "is worse than" if high < chance[name] else "cannot be told from"
        words.append(f"{METRICS[name]} {how} chance ({percent(chance[name])}, {told[name]})")
    return f"{item.name}: {' and '.join(words)}, by the interval over {own.patients} {item.group}."


def _over_seeds(
    name: str, experiment: Experiment, members: list[tuple[Scored, dict, Resampled | None]], args: argparse.Namespace
) -> dict[str, Any]:
    """Print and return the mean over seeds, with the spread over seeds and the test set's interval side by side."""
    first, seeds = members[0][0], [run.seed for run in experiment.runs]
    rows, report = [], {"name": name, "seeds": experiment.seeds, "runs": len(members), "metrics": {}}
    for metric in (first.main, "auc", "score"):
        found = estimate(metric, [result[metric] for _, result, _ in members], seeds, [own for *_, own in members], args.level)
        row = {"": METRICS[metric], "mean": percent(found.mean, "-"), "sd over seeds": percent(found.sd, "-")}
        if found.training_sd is not None:
            row |= {"of it, split": percent(found.split_sd, "-"), "sd over training seeds": percent(found.training_sd, "-")}
        row |= {f"{args.level:.0%} over seeds (t)": interval(found.seed_interval, missing="-")}
        rows.append(row | {f"{args.level:.0%} over {first.group}, these models": interval(found.test_interval, missing="-")})
        report["metrics"][metric] = dataclasses.asdict(found)
    times = f", {len(members)} runs" if len(members) > len(experiment.seeds) else ""
    print(f"{name}, {len(experiment.seeds)} {plural('seed', len(experiment.seeds))}{times}\n{table(rows)}")
    if found.seed_interval and found.test_interval:
        over, within = (ends[1] - ends[0] for ends in (found.seed_interval, found.test_interval))
        larger = "support set is the larger" if over > within else "test set is the larger"
        print(f"The {larger} uncertainty of the score: {100 * over:.2f} points wide over seeds, {100 * within:.2f} over {first.group}.\n")
    return report
