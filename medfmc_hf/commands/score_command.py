"""Score predictions: accuracy or mAP, AUC and their mean (the score), with intervals and a verdict.

  medfmc score runs/endo-5shot-seed0/lora-...           a run
  medfmc score runs/lora                                every run below a folder; the seeds of an experiment are summed up
  medfmc score predictions.csv                          columns label or labels, a score per class, perhaps image_id and patient_id
  medfmc score endo_5-shot_submission.csv --labels Endo_published_4d.csv
  medfmc score result.zip --data medfmc                 a challenge submission: 18 or 90 numbers and their mean

A table may be CSV with `,`, `;` or tabs in UTF-8 or UTF-16, Parquet, or XLSX (which needs: pip install "medfmc_hf[tables]"). Columns that
are no class are left out and named with --classes, or of a subset of MedFMC.

Numbers are x 100, as the challenge prints them. The interval in brackets is over the patients of the test set: each is left out in turn
(jackknife). Over split seeds, which are other support sets, there is another one, Student's t interval of the mean: the two say different
things and are never mixed. A run whose predictions are missing, or are not those of its record, has the record's scores and no interval.
"""

import argparse
import dataclasses
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import tables
from ..errors import MedfmcError
from ..evaluation import challenge, submission
from ..evaluation.bootstrap import bootstrap
from ..evaluation.challenge import Aggregate
from ..evaluation.experiments import Experiment, Run, group, seedless
from ..evaluation.intervals import Resampled, estimate
from ..evaluation.scored import Scored, run_names
from ..files import write_json
from ..progress import bar, notify
from ..runs.folders import find_runs
from ..scoring import score
from ..subsets import SUBSETS
from ..words import METRICS, interval, is_defined, percent, plural
from ._scored import add_source_arguments, labels_of, sources, table

COLUMNS = ("accuracy", "map", "auc", "score")
_RECORD_ALONE = "the scores are those of run.json, without interval: "


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
        report = _scored(*_tests(args), args)
    if args.json:
        write_json(args.json, report)


def _is_submission(path: Path) -> bool:
    folder = next((p for p in (path / "result", path) if p.is_dir()), path)
    zipped = path.suffix.lower() not in tables.SUFFIXES and zipfile.is_zipfile(path)  # an XLSX workbook is a zip too
    return zipped or any(folder.glob("*-shot_submission.csv")) or any(folder.glob("exp?/*-shot_submission.csv"))


def _result(item: Scored, args: argparse.Namespace) -> dict[str, Any]:
    if item.run and item.run.test and not args.official and (recorded := item.run.record.scores.get("test")):
        return recorded  # as every other command prints them
    if args.official:
        return score(item.targets, item.scores, classes=item.classes, undefined="official", ties="official")
    return score(item.targets, item.scores, classes=item.classes)


def _submission(args: argparse.Namespace) -> dict[str, Any]:
    files = submission.read(args.what[0])
    if not (args.data or args.labels):
        raise MedfmcError(f"{args.what[0]} has no labels: give a build with --data, or the published tables of its subsets with --labels.")
    labels = {key: labels_of(args, SUBSETS[key]) or {} for key in dict.fromkeys(subset for _, subset, _ in files.files)}
    results = {place: _result(item, args) for place, item in submission.scored_files(files, labels).items()}
    by_file = {challenge.title(place): result for place, result in results.items()}
    print(table([{"file": name} | _values(result) for name, result in by_file.items()]) + "\n")
    _print_undefined(by_file)
    return {"results": by_file, "challenge": _print_aggregate(challenge.aggregate(results))}


def _values(result: dict[str, Any]) -> dict[str, str]:
    return {METRICS[name]: percent(result[name]) if name in result else "" for name in COLUMNS}


def _print_undefined(results: dict[str, dict[str, Any]]) -> None:
    for name, result in results.items():
        if result["undefined"]:
            print(f"{name}: {', '.join(result['undefined'])} without positives or without negatives.")


def _print_aggregate(aggregate: Aggregate) -> dict[str, Any]:
    if aggregate.mean is not None:
        print(f"challenge: {100 * aggregate.mean:.6f}, the mean of {aggregate.expected} numbers")
    else:
        known = aggregate.partial_mean
        partial = "" if known is None else f"; the mean of the {len(aggregate.values)} there are is {percent(known)}"
        print(f"challenge: not defined, {len(aggregate.missing)} of {aggregate.expected} numbers are missing{partial}")
        print("missing: " + ", ".join(aggregate.missing))
    return {"mean": aggregate.mean, "numbers": len(aggregate.values), "expected": aggregate.expected, "missing": list(aggregate.missing)}


@dataclass(frozen=True)
class _Test:
    """A test set, its scores, and what its intervals of some level come from.

    Attributes:
        name: what to call it.
        run: whose it is; None for a CSV.
        result: the scores.
        resampled: what the intervals come from; None where none were asked for, or there are none.
        images: how many.
        patients: how many.
        group: what a patient id stands for, in the plural.
        level: coverage of the intervals.
    """

    name: str
    run: Run | None
    result: dict[str, Any]
    resampled: Resampled | None
    images: int
    patients: int
    group: str
    level: float

    def shown(self, value: float | None, name: str) -> str:
        """A value in percent with the interval of the statistic of that name."""
        if not is_defined(value):
            return "-"
        return percent(value) + (f" ({interval(self.resampled.interval(name, self.level), missing='-')})" if self.resampled else "")

    def report(self) -> dict[str, Any]:
        """What the JSON file says of it."""
        own = self.resampled
        intervals = own and {name: list(own.interval(name, self.level)) for name in own.point}
        config = self.run and str(self.run.config.dataset_config)
        return {"name": self.name, "config": config, "result": self.result, "intervals": intervals}


def _tests(args: argparse.Namespace) -> tuple[list[_Test], list[Run]]:
    """What was named on the command line, scored, at the end the runs of which there is no more than the record; and the failed runs."""
    items, without, failed = sources(args.what, args)
    recorded = [] if args.official else [run for run, _ in without if args.split in run.record.scores]
    if not items and not recorded:
        raise MedfmcError("\n".join(why for _, why in without))
    for run, why in without:
        notify((_RECORD_ALONE if run in recorded else "left out: ") + why)
    names = run_names([*(item.run for item in items if item.run), *recorded, *failed])
    tests = []
    for item in bar(items, desc="intervals over patients", unit="run"):
        name = names[item.run.record.id] if item.run else item.name
        sizes = len(item.image_ids), len(set(item.patient_ids))
        tests.append(_Test(name, item.run, _result(item, args), _resampled(item, args), *sizes, item.group, args.level))
    for run in recorded:
        sizes = run.record.data["rows"].get(args.split, 0), run.record.data["patients"].get(args.split, 0)
        group_of = plural(run.record.subset.group)
        tests.append(_Test(names[run.record.id], run, run.record.scores[args.split], None, *sizes, group_of, args.level))
    return tests, failed


def _scored(tests: list[_Test], failed: list[Run], args: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for test in tests:
        cells = {"": test.name, "images": str(test.images), "patients": f"{test.patients} {test.group}"}
        rows.append(cells | {METRICS[name]: test.shown(test.result[name], name) if name in test.result else "" for name in COLUMNS})
    used = [name for name in rows[0] if any(row[name] for row in rows)]
    print(table([{name: row[name] for name in used} for row in rows]) + "\n")
    if args.per_class:
        for test in tests:
            print(test.name + "\n" + table([_class_cells(test, name) for name in test.result["per_class"]]) + "\n")
    _print_undefined({test.name: test.result for test in tests})
    return {"runs": [test.report() for test in tests], "experiments": _experiments(tests, failed)}


def _resampled(item: Scored, args: argparse.Namespace) -> Resampled | None:
    if args.official or not args.replicates:
        return None
    if item.run and item.run.test and (why := item.run.no_jackknife):
        notify(f"{_RECORD_ALONE}{item.run.folder}: {why}.")
        return None
    if args.interval == "jackknife":
        return item.jackknife()
    options = {"replicates": args.replicates, "seed": args.seed, "method": args.interval}
    return bootstrap(item.targets, item.scores, item.patient_ids, classes=item.classes, **options)


def _class_cells(test: _Test, name: str) -> dict[str, str]:
    result = test.result["per_class"][name]
    cells = {"class": name, "positives": str(result["positives"]), "negatives": str(result["negatives"])}
    if "ap" in result:
        cells["AP"] = test.shown(result["ap"], f"ap of {name}")
    else:
        cells["recall"] = percent(result["recall"], "-")
    return cells | {"AUC": test.shown(result["auc"], f"auc of {name}")}


def _experiments(tests: list[_Test], failed: list[Run]) -> list[dict[str, Any]]:
    """Print a verdict on each test set that stands alone, and sum up the seeds of each experiment."""
    by_id = {test.run.record.id: test for test in tests if test.run}
    adaptations, experiments = group(
        [*(test.run for test in tests if test.run), *failed]
    )  # as on the board, whose rows failed runs name, too
    labels = {adaptation.key: adaptation.label for adaptation in adaptations}
    in_means = {run.record.id for experiment in experiments for run in experiment.runs if len(experiment.runs) > 1}
    for test in tests:
        if test.resampled and not (test.run and test.run.record.id in in_means):
            print(_verdict(test, test.resampled))
    summaries = []
    for experiment in experiments:
        if len(experiment.runs) > 1:
            name = f"{seedless(str(experiment.config.dataset_config))} {labels[experiment.adaptation]}"
            summaries.append(_over_seeds(name, experiment, [by_id[run.record.id] for run in experiment.runs]))
        for run in experiment.replaced:
            print(f"not in the mean: {by_id[run.record.id].name}, for another run of this seed finished later.")
    return summaries


def _verdict(test: _Test, own: Resampled) -> str:
    """Whether the model does better than one that has learnt nothing, on other patients."""
    result = test.result
    main = "map" if "map" in result else "accuracy"
    shares = [each["positives"] / result["rows"] for name, each in result["per_class"].items() if name not in result["undefined"]]
    chance = {"auc": 0.5, "accuracy": max(shares, default=1.0), "map": sum(shares) / max(len(shares), 1)}
    told = {"auc": "0.5", "accuracy": "the largest class", "map": "the share of positives"}
    words = []
    for name in (main, "auc"):
        low, high = own.interval(name, test.level)
        if low != low:
            words.append(f"{METRICS[name]} is undefined")
            continue
        how = "is better than" if low > chance[name] else "is worse than" if high < chance[name] else "cannot be told from"
        words.append(f"{METRICS[name]} {how} chance ({percent(chance[name])}, {told[name]})")
    return f"{test.name}: {' and '.join(words)}, by the interval over {own.patients} {test.group}."


def _over_seeds(name: str, experiment: Experiment, members: list[_Test]) -> dict[str, Any]:
    """Print and return the mean over seeds, with the spread over seeds and the test set's interval side by side."""
    level, seeds, over = members[0].level, [run.seed for run in experiment.runs], members[0].group
    rows, found = [], {}
    for metric in (experiment.subset.metric, "auc", "score"):
        values, resampled = [test.result[metric] for test in members], [test.resampled for test in members]
        found[metric] = own = estimate(metric, values, seeds, resampled, level)
        row = {"": METRICS[metric], "mean": percent(own.mean, "-"), "sd over seeds": percent(own.sd, "-")}
        if own.training_sd is not None:
            row |= {"of it, split": percent(own.split_sd, "-"), "sd over training seeds": percent(own.training_sd, "-")}
        row |= {f"{level:.0%} over seeds (t)": interval(own.seed_interval, missing="-")}
        rows.append(row | {f"{level:.0%} over {over}, these models": interval(own.test_interval, missing="-")})
    print(f"{name}, {experiment.seeds_words}\n{table(rows)}")
    ends = found["score"]
    if ends.seed_interval and ends.test_interval:
        between, within = (high - low for low, high in (ends.seed_interval, ends.test_interval))
        larger = "support set is the larger" if between > within else "test set is the larger"
        print(f"The {larger} uncertainty of the score: {percent(between)} points wide over seeds, {percent(within)} over {over}.\n")
    metrics = {metric: dataclasses.asdict(own) for metric, own in found.items()}
    return {"name": name, "seeds": experiment.seeds, "seeds_are": experiment.seeds_words, "runs": len(members), "metrics": metrics}
