"""What `medfmc score` and `medfmc compare` share: where scored images come from, and tables in plain text."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .. import tables
from ..data.label_tables import Label
from ..errors import MedfmcError
from ..evaluation import scored
from ..evaluation.experiments import Run
from ..evaluation.scored import Scored
from ..progress import bar, notify
from ..runs.folders import find_runs
from ..subsets import SUBSETS, Subset, subset_of
from ..words import plural


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="test", help="of a run: test, challenge-validation or validation (default: %(default)s)")
    parser.add_argument("--subset", choices=SUBSETS, help="whose classes a CSV has, where its name does not tell")
    parser.add_argument(
        "--labels", metavar="FILE", nargs="+", default=[], help="published label tables or labelled lists, for a submission"
    )
    parser.add_argument("--classes", metavar="A,B,C", help="class names of a CSV of other data, in the order of their indices")
    parser.add_argument("--data", metavar="BUILD", help="a build that has the labels, for a submission")


def load(path: str, args: argparse.Namespace) -> list[Scored]:
    """The scored images of a table, a run, or every finished run of a folder; a run whose predictions cannot be used is left out and named.

    Raises:
        MedfmcError: nothing is left.
    """
    found, without, _ = sources([path], args)
    used = []
    for item in bar(found, desc="intervals over patients", unit="run"):
        if item.run and item.run.test and item.run.no_jackknife:
            without.append((item.run, f"{item.run.folder}: {item.run.no_jackknife}."))
        else:
            used.append(item)
    if not used:
        raise MedfmcError("\n".join(why for _, why in without))
    for _, why in without:
        notify(f"left out: {why}")
    return used


def sources(paths: Sequence[str], args: argparse.Namespace) -> tuple[list[Scored], list[tuple[Run, str]], list[Run]]:
    """The scored images of tables, runs, and every finished run of folders; the runs without predictions of the split, and why; and
    the failed runs, which are named.

    Raises:
        MedfmcError: a table cannot be read, or a path holds no finished run.
    """
    found, without, failed, seen = [], [], [], Counter[str]()
    for path in paths:
        if Path(path).suffix.lower() in tables.SUFFIXES or (Path(path).is_file() and Path(path).suffix.lower() != ".json"):
            alike = sum(Path(other).stem == Path(path).stem for other in paths) > 1
            item = _of_table(path, args)
            found.append(replace(item, name=path) if alike else item)
            continue
        finished = 0
        for folder, record in find_runs(path):
            finished += record.status == "finished"
            seen[record.id] += record.status == "finished"
            if seen[record.id] > 1:
                continue
            try:
                found.append(scored.of_run(folder, record, args.split))
            except MedfmcError as error:
                if record.status == "finished":
                    without.append((Run(record, folder), str(error)))
                else:
                    failed.append(Run(record, folder))
                    notify(f"left out: {error}")
        if not finished:
            raise MedfmcError(f"{path} holds no finished run; expected a CSV file, a run or a folder of runs.")
    if repeated := sum(count > 1 for count in seen.values()):
        notify(f"{repeated} {plural('run', repeated)} found in several folders, counted once.")
    return found, without, failed


def _of_table(path: str, args: argparse.Namespace) -> Scored:
    subset = subset_of(args.subset) if args.subset else scored.subset_in_name(Path(path))
    classes = [name.strip() for name in args.classes.split(",") if name.strip()] if args.classes else None
    if subset and classes:
        raise MedfmcError(f"--classes names the classes of other data, and {path} is of {subset.key}, whose classes are known.")
    return scored.of_csv(path, subset, labels_of(args, subset) if subset else None, classes)


def labels_of(args: argparse.Namespace, subset: Subset) -> Mapping[str, Label] | None:
    """The labels of a subset from `--data` or `--labels`; None if neither is given."""
    if args.data:
        return scored.labels_of_build(args.data, subset)
    if not args.labels:
        return None
    labels: dict[str, Label] = {}
    problems = []
    for path in args.labels:
        try:
            # A table of another subset may be readable too (endo also has a class tumor), but names other images.
            labels |= scored.read_labels(path, subset)
        except MedfmcError as error:
            problems.append(str(error))
    if not labels:
        raise MedfmcError(f"none of the files given with --labels has labels of {subset.key}:\n" + "\n".join(problems))
    return labels


def table(rows: list[dict[str, str]]) -> str:
    """Columns of text under the keys of the first row, numbers to the right."""
    header = list(rows[0])
    lines = [header, *([row[name] for name in header] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    right = [all(not cell or cell[0] in "+-.0123456789" for cell in column) for column in zip(*lines[1:])]
    return "\n".join("  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right)).rstrip() for line in lines)
