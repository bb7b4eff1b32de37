"""Scored images, wherever they come from: the predictions of a run, a table with labels, or a submission with labels from elsewhere."""

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import tables
from ..data.label_tables import Label, image_id_of, read_list, read_table
from ..errors import MedfmcError
from ..progress import notify
from ..runs import RunRecord, load_predictions
from ..subsets import ConfigName, Subset, subset_of
from ..tables import Row
from ..words import plural
from .experiments import Run, labels_of, names_of
from .jackknife import Jackknife, jackknife

_NO_SCORES = ("image_id", "patient_id", "label", "labels")
_DECLARE = "Name the classes (--classes a,b,c): other columns are then left out."


@dataclass(frozen=True)
class Scored:
    """The predictions of one model for one test set, with the labels.

    Attributes:
        name: what to call it in a table.
        subset: whose classes it has; None for a CSV of other data.
        run: the run whose predictions they are; None for a CSV.
        classes: class names.
        image_ids: n names, each once.
        patient_ids: n ids.
        targets: (n,) class indices or (n, classes) multi-hot.
        scores: (n, classes) float64 probabilities.
    """

    name: str
    subset: Subset | None
    run: Run | None
    classes: tuple[str, ...]
    image_ids: np.ndarray
    patient_ids: np.ndarray
    targets: np.ndarray
    scores: np.ndarray

    @property
    def config(self) -> ConfigName | None:
        """The dataset config of a run; None for a CSV."""
        return self.run.config.dataset_config if self.run else None

    @property
    def multilabel(self) -> bool:
        return self.targets.ndim == 2

    @property
    def main(self) -> str:
        """`map` or `accuracy`: the metric beside AUC."""
        return "map" if self.multilabel else "accuracy"

    @property
    def group(self) -> str:
        """What one patient id stands for, in the plural."""
        return plural(self.subset.group if self.subset else "patient")

    def jackknife(self) -> Jackknife:
        """Of its scores over patients."""
        if self.run and self.run.test and self.run.test.targets is self.targets and (known := self.run.jackknife):
            return known
        return jackknife(self.targets, self.scores, self.patient_ids, classes=self.classes)


def of_run(folder: str | os.PathLike, record: RunRecord, split: str = "test") -> Scored:
    """The labelled predictions of one split of a run.

    Raises:
        MedfmcError: the run failed, has no predictions of the split, or the split's labels are not public.
    """
    if record.status != "finished":
        raise MedfmcError(f"{folder} is a run that failed ({record.error}); run it again.")
    predictions = load_predictions(folder, split)
    if (predictions.targets < 0).any():
        raise MedfmcError(f"the labels of split {split!r} of {folder} are not public, so it cannot be scored.")
    run = Run(record, Path(folder), predictions if split == "test" else None)
    return Scored(
        name=_name_of(run, names_of({"": run.named_options})[""]),
        subset=record.subset,
        run=run,
        classes=record.subset.classes,
        image_ids=predictions.image_ids,
        patient_ids=predictions.patient_ids,
        targets=predictions.targets,
        scores=predictions.probabilities,
    )


def _name_of(run: Run, adaptation: str) -> str:
    """Such as `endo-5shot-seed0 lora · dinov2-small`."""
    return ", ".join([f"{run.config.dataset_config} {adaptation}", *run.again])


def run_names(runs: Sequence[Run]) -> dict[str, str]:
    """By id, a name for each of some runs, in which its adaptation is called as on the board of these runs."""
    labels = labels_of(runs)
    names = {run.record.id: _name_of(run, labels[run.record.id]) for run in runs}
    alike = Counter(names.values())
    return {key: name if alike[name] == 1 else f"{name}, run {key}" for key, name in names.items()}


def of_csv(
    path: str | os.PathLike,
    subset: Subset | None = None,
    labels: Mapping[str, Label] | None = None,
    classes: Sequence[str] | None = None,
) -> Scored:
    """The scored images of a table, in any form that `medfmc_hf.tables` reads.

    Either it has a header: `label` (a class index or name) or `labels` (positive class indices or names, separated by spaces, may be
    empty), optionally `image_id` and `patient_id`, and one column of scores per class, named after it. Where the classes are known, of a
    subset or by `classes`, the columns may have any order, and others are left out and named. Else every other column is a class, and the
    columns are named; a table in which one may be something else is refused. Or it has no header and is a challenge submission
    (`name.png,p0,p1,...`): then the labels come from `labels`.

    Args:
        path: the file.
        subset: whose classes it has; for a submission named `<subset>_<k>-shot_submission.csv` the name tells.
        labels: labels by image id, as `read_labels` returns them.
        classes: class names of other data, in the order of their indices.

    Raises:
        MedfmcError: the file cannot be read as either, or a column cannot be a score.
    """
    path = Path(path)
    rows = [(line, cells) for line, cells in tables.read(path).rows if any(cell.strip() for cell in cells)]
    if subset is None:
        subset = subset_in_name(path)
    return _of_header(path, rows, subset, classes) if has_header(rows[0][1]) else of_submission(path, rows, subset, labels)


def has_header(first: Sequence[str]) -> bool:
    """Whether the cells of the first row name columns: one is label or labels, or none but the first is a number."""
    return any(cell.strip() in ("label", "labels") for cell in first) or not any(_is_number(cell) for cell in first[1:])


def _is_number(cell: str) -> bool:
    try:
        tables.number(cell)
    except ValueError:
        return False
    return True


def subset_in_name(path: Path) -> Subset | None:
    """The subset that the name of a submission file starts with."""
    found = re.match(r"(chest|colon|endo)_", path.name)
    return subset_of(found[1]) if found else None


def numbers(path: Path, rows: Sequence[Row]) -> np.ndarray:
    """The cells of equally long rows as float64.

    Raises:
        MedfmcError: a row is longer or shorter than the first, or a cell is no finite number; the message names the line.
    """
    values = np.empty((len(rows), len(rows[0][1])))
    for place, (line, cells) in enumerate(rows):
        if len(cells) != values.shape[1]:
            raise MedfmcError(f"{path}, line {line}: {len(cells)} scores; the lines before have {values.shape[1]}.")
        try:
            values[place] = [tables.number(cell) for cell in cells]
        except ValueError as error:
            raise MedfmcError(f"{path}, line {line}: {error}; expected a number per class.") from None
        if not np.isfinite(values[place]).all():
            raise MedfmcError(f"{path}, line {line}: the scores {', '.join(cells)} are not all finite; expected a number per class.")
    return values


def _of_header(path: Path, rows: list[Row], subset: Subset | None, declared: Sequence[str] | None) -> Scored:
    header = [cell.strip() for cell in rows[0][1]]
    rows = rows[1:]
    _check_names(path, header)
    kind = next((name for name in ("label", "labels") if name in header), None)
    if kind is None or not rows:
        raise _other_header(path, header, rows)
    if subset and kind != subset.label_column:
        raise MedfmcError(f"{path} has a column {kind}; {subset.key} is {subset.task} and has {subset.label_column}.")
    for line, cells in rows:
        if len(cells) != len(header):
            raise MedfmcError(f"{path}, line {line}: {len(cells)} cells; the header has {len(header)}.")
    lines = [line for line, _ in rows]
    columns = {name: [cells[position] for _, cells in rows] for position, name in enumerate(header)}
    others = {name: cells for name, cells in columns.items() if name not in _NO_SCORES}
    known = subset.classes if subset else declared
    classes = _undeclared_classes(path, others) if known is None else _declared_classes(path, others, known)
    if len(classes) < 2:
        raise _other_header(path, header, rows)
    labels = [_label_of(cell, kind, classes, path, line) for line, cell in zip(lines, columns[kind])]
    scores = numbers(path, [(line, list(cells)) for line, *cells in zip(lines, *(columns[name] for name in classes))])
    if known is None and (doubt := _doubt(classes, columns[kind], labels, scores)):
        raise MedfmcError(f"{path}: one of the columns {', '.join(classes)} may be no class, for {doubt}. {_DECLARE}")
    image_ids = [image_id_of(name) for name in _ids(path, lines, columns, "image_id")] or [f"row {n}" for n in range(2, len(rows) + 2)]
    patient_ids = _ids(path, lines, columns, "patient_id")
    if not patient_ids:
        patient_ids = [subset.patient_id(image_id) for image_id in image_ids] if subset and "image_id" in header else image_ids
    return _assembled(path, subset, classes, image_ids, patient_ids, labels, scores)


def _other_header(path: Path, header: list[str], rows: list[Row]) -> MedfmcError:
    return MedfmcError(
        f"{path} has the header {', '.join(header)} and {len(rows)} rows; expected label or labels, optionally image_id and "
        "patient_id, and a column of scores for each of at least two classes."
    )


def _check_names(path: Path, header: list[str]) -> None:
    """Refuse a header in which a name stands twice, or two columns are the labels. Columns without a name are never read."""
    plain = [tables.unnumbered(name) for name in header]
    twice = sorted({name for name in header if name and plain.count(name) > 1})
    if twice:
        raise MedfmcError(
            f"{path}: the column {', '.join(twice)} comes more than once in the header {', '.join(header)}; leave one of each name."
        )
    if {"label", "labels"} <= set(header):
        raise MedfmcError(f"{path} has both label and labels; leave label for one class an image, or labels for any number.")


def _ids(path: Path, lines: list[int], columns: Mapping[str, list[str]], column: str) -> list[str]:
    """The cells of a column of ids; none where the table lacks it.

    Raises:
        MedfmcError: one is empty, or was rounded by a spreadsheet: several images would become one, or several patients.
    """
    names = [name.strip() for name in columns.get(column, [])]
    for line, name in zip(lines, names):
        if not name:
            raise MedfmcError(f"{path}, line {line}: {column} is empty; fill it, or remove the column.")
        if tables.is_rounded(name):
            raise MedfmcError(f"{path}, line {line}: a spreadsheet has rounded the {column} to {name}; write it as text.")
    return names


def _declared_classes(path: Path, others: Mapping[str, list[str]], declared: Sequence[str]) -> tuple[str, ...]:
    """The classes that are known, each of which must have its column; what stands beside them is named."""
    absent = [name for name in declared if name not in others]
    if absent:
        there = ", ".join(name or "(no name)" for name in others)
        raise MedfmcError(f"{path} has no column of scores for {', '.join(absent)}; expected {', '.join(declared)}, and it has {there}.")
    left = [name or "(no name)" for name in others if name not in declared]
    if left:
        notify(f"{path.name}: left out, for they are no classes: {', '.join(left)}")
    return tuple(declared)


def _undeclared_classes(path: Path, others: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Every column that is nothing else, and named; refused where one cannot be the scores of a class."""
    for name, cells in others.items():
        if why := _no_score(name, cells):
            shown = name or "(no name)"
            raise MedfmcError(f"{path}: the column {shown} {why}. {_DECLARE}")
    notify(f"{path.name}: the classes are {', '.join(others)}")
    return tuple(others)


def _no_score(name: str, cells: list[str]) -> str | None:
    """Why a column cannot be the scores of a class; None if it can."""
    if not name or re.fullmatch(r"Unnamed: \d+|__index_level_\d+__", name):
        return "has no name, as an index that was written along"
    try:
        values = np.array([tables.number(cell) for cell in cells])
    except ValueError:
        return None  # the message about its cells says which line it is
    if np.isfinite(values).all() and not ((values >= 0) & (values <= 1)).all():
        return "has values outside 0 to 1, so it is no probability"
    return None


def _doubt(classes: Sequence[str], cells: Sequence[str], labels: Sequence[Label], scores: np.ndarray) -> str | None:
    """Why one of some undeclared columns may be no class, such as an age in hundred years or the number of a fold; None if all are classes.

    Args:
        classes: the columns.
        cells: the labels as they are written.
        labels: as indices of the columns.
        scores: (n, classes).
    """
    if isinstance(labels[0], tuple):
        positive = {index for label in labels if isinstance(label, tuple) for index in label}
        absent = [name for index, name in enumerate(classes) if index not in positive]
        return f"no image has the label {', '.join(absent)}" if absent else None
    rounding = 0.005 * len(classes)  # of two decimals
    needed = len(classes) == 2 or (scores.max(axis=0) > rounding).all()  # a table has two classes at least
    if set(classes) <= {cell.strip() for cell in cells} or (needed and (abs(scores.sum(axis=1) - 1) <= rounding).all()):
        return None
    return "the labels do not name them all, and their rows do not add up to one with each of them and no other"


def _label_of(cell: str, kind: str, classes: tuple[str, ...], path: Path, line: int) -> Label:
    if kind == "labels" and re.fullmatch(r"\s*\d+\s*,\s*\d+(\s*,\s*\d+)*\s*", cell) and cell.strip() not in classes:
        raise MedfmcError(f"{path}, line {line}: labels is {cell!r}; write several classes with ; or a space between them.")
    words = [cell.strip()] if cell.strip() in classes else cell.replace(";", " ").split()
    found = [_class_index(word, classes) for word in words]
    if -1 in found:
        raise MedfmcError(f"{path}, line {line}: {cell!r} is no class; expected names or indices of {', '.join(classes)}.")
    if kind == "label" and len(found) != 1:
        raise MedfmcError(f"{path}, line {line}: label is {cell!r}; expected one class.")
    return found[0] if kind == "label" else tuple(found)


def _class_index(word: str, classes: tuple[str, ...]) -> int:
    """The place of a class that is given by its name or place, which spreadsheets write as `1.0` too; -1 if it is none."""
    if word in classes:
        return classes.index(word)
    try:
        value = tables.number(word)
    except ValueError:
        return -1
    whole = f"{value:.0f}" if value is not None and math.isfinite(value) and value == round(value) else ""
    if whole in classes:  # a name goes before a place
        return classes.index(whole)
    return int(value) if value in range(len(classes)) else -1


def of_submission(path: Path, rows: list[Row], subset: Subset | None, labels: Mapping[str, Label] | None) -> Scored:
    """The rows of a submission file with their labels; see `of_csv`."""
    if subset is None:
        raise MedfmcError(f"{path} has no header and its name tells no subset; say which with --subset.")
    if labels is None:
        raise MedfmcError(
            f"{path} has no header, so no labels: give a published label table with --labels (such as {subset.table}) "
            "or a build with --data."
        )
    image_ids = [image_id_of(cells[0]) for _, cells in rows]
    unknown = [image_id for image_id in image_ids if labels.get(image_id) is None]
    if unknown:
        raise MedfmcError(f"{len(unknown)} of {len(rows)} images of {path} have no label in what was given, such as {unknown[0]}.")
    scores = numbers(path, [(line, cells[1:]) for line, cells in rows])
    return _assembled(
        path, subset, subset.classes, image_ids, [subset.patient_id(i) for i in image_ids], [labels[i] for i in image_ids], scores
    )


def _assembled(
    path: Path,
    subset: Subset | None,
    classes: Sequence[str],
    image_ids: list[str],
    patient_ids: list[str],
    labels: Sequence[Any],  # class indices, or tuples of them
    scores: np.ndarray,
) -> Scored:
    if scores.shape[1] != len(classes):
        raise MedfmcError(f"{path} has {scores.shape[1]} scores a row; expected {len(classes)}: {', '.join(classes)}.")
    if len(set(image_ids)) < len(image_ids):
        raise MedfmcError(f"{path} names an image more than once, such as {max(image_ids, key=image_ids.count)}.")
    if isinstance(labels[0], tuple):
        targets = np.zeros((len(labels), len(classes)), np.int64)
        for row, positive in enumerate(labels):
            targets[row, list(positive)] = 1
    else:
        targets = np.array(labels)
    return Scored(path.stem, subset, None, tuple(classes), np.array(image_ids), np.array(patient_ids), targets, scores)


def read_labels(path: str | os.PathLike, subset: Subset) -> dict[str, Label]:
    """Labels by image id from a published label table or a labelled list (text).

    Raises:
        MedfmcError: the file has other columns or unknown labels.
    """
    path = Path(path)
    file = read_table(path, subset) if path.suffix.lower() in tables.SUFFIXES else read_list(path, subset, labelled=True)
    if file.problems:
        raise MedfmcError("\n".join(file.problems[:3]))
    return dict(file.rows)


def labels_of_build(data: str | os.PathLike, subset: Subset) -> dict[str, Label]:
    """Labels by image id of every published image of a subset, from a build.

    Raises:
        MedfmcError: `data` is no build or lacks the subset.
    """
    from ..data.loading import load_splits

    labels = {}
    for split in load_splits(data, subset.key).values():
        rows = split.select_columns(["image_id", subset.label_column])
        for row in rows:
            label = row[subset.label_column]
            labels[row["image_id"]] = tuple(label) if isinstance(label, list) else label
    return labels
