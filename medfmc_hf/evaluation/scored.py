"""Scored images, wherever they come from: the predictions of a run, a CSV with labels, or a submission CSV with labels from elsewhere."""

import csv
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.label_tables import Label, image_id_of, read_list, read_table
from ..errors import MedfmcError
from ..progress import notify
from ..runs import RunRecord, load_predictions
from ..subsets import ConfigName, Subset, subset_of
from ..words import plural
from .experiments import Run, names_of
from .jackknife import Jackknife, jackknife


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
    again = f", training seed {run.training_seed}" if run.training_seed != run.seed else ""
    return f"{run.config.dataset_config} {adaptation}{again}"


def told_apart(items: Sequence[Scored]) -> list[Scored]:
    """The same, with names that tell runs of different adaptations apart."""
    names = names_of({number: item.run.named_options for number, item in enumerate(items) if item.run})
    return [replace(item, name=_name_of(item.run, names[n])) if item.run else item for n, item in enumerate(items)]


def of_csv(
    path: str | os.PathLike,
    subset: Subset | None = None,
    labels: Mapping[str, Label] | None = None,
    classes: Sequence[str] | None = None,
) -> Scored:
    """The scored images of a CSV file.

    Either it has a header: `label` (a class index or name) or `labels` (positive class indices or names, separated by spaces, may be
    empty), optionally `image_id` and `patient_id`, and one column of scores per class, named after it. Where the classes are known, of a
    subset or by `classes`, other columns are left out and named; else every other column is a class, and the columns are named. Or it has
    none and is a challenge submission (`name.png,p0,p1,...`): then the labels come from `labels`.

    Args:
        path: the file.
        subset: whose classes it has; for a submission named `<subset>_<k>-shot_submission.csv` the name tells.
        labels: labels by image id, as `read_labels` returns them.
        classes: class names of other data, in the order of their indices.

    Raises:
        MedfmcError: the file cannot be read as either, or a column cannot be a score.
    """
    path = Path(path)
    rows = read_rows(path)
    if subset is None:
        subset = subset_in_name(path)
    return _of_header(path, rows, subset, classes) if has_header(rows) else of_submission(path, rows, subset, labels)


def read_rows(path: Path) -> list[list[str]]:
    """The cells of a CSV file, without empty lines.

    Raises:
        MedfmcError: it is absent, empty or not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MedfmcError(f"{path} does not exist; expected a CSV file of scores, or a run.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MedfmcError(f"{path} cannot be read as text: {error}.") from None
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    if not rows:
        raise MedfmcError(f"{path} is empty; expected a row of scores per image.")
    return rows


def has_header(rows: list[list[str]]) -> bool:
    """Whether the first row names columns: none of its cells but the first may be a number."""
    return not any(_is_number(cell) for cell in rows[0][1:])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def subset_in_name(path: Path) -> Subset | None:
    """The subset that the name of a submission file starts with."""
    found = re.match(r"(chest|colon|endo)_", path.name)
    return subset_of(found[1]) if found else None


def numbers(rows: list[list[str]], path: Path, first_line: int) -> np.ndarray:
    """The cells of equally long rows as float64.

    Raises:
        MedfmcError: a row is longer or shorter than the first, or a cell is no number; the message names the line.
    """
    values = np.empty((len(rows), len(rows[0])))
    for number, row in enumerate(rows):
        if len(row) != values.shape[1]:
            raise MedfmcError(f"{path}, row {number + first_line}: {len(row)} scores; the rows before have {values.shape[1]}.")
        try:
            values[number] = [float(cell) for cell in row]
        except ValueError as error:
            raise MedfmcError(f"{path}, row {number + first_line}: {error}; expected a number per class.") from None
    return values


def _of_header(path: Path, rows: list[list[str]], subset: Subset | None, declared: Sequence[str] | None) -> Scored:
    header = [cell.strip() for cell in rows[0]]
    rows = rows[1:]
    kind = next((name for name in ("label", "labels") if name in header), None)
    known: dict[str, int] = {name: header.index(name) for name in ("image_id", "patient_id", "label", "labels") if name in header}
    if kind is None or not rows:
        raise _other_header(path, header, rows)
    if subset and kind != subset.label_column:
        raise MedfmcError(f"{path} has a column {kind}; {subset.key} is {subset.task} and has {subset.label_column}.")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise MedfmcError(f"{path}, row {number}: {len(row)} cells; the header has {len(header)}.")
    classes = _score_columns(path, header, rows, known, subset.classes if subset else declared)
    if len(classes) < 2:
        raise _other_header(path, header, rows)
    image_ids = [image_id_of(row[known["image_id"]]) if "image_id" in known else f"row {n}" for n, row in enumerate(rows, 2)]
    if "patient_id" in known:
        patient_ids = [row[known["patient_id"]].strip() for row in rows]
    else:
        patient_ids = [subset.patient_id(image_id) for image_id in image_ids] if subset and "image_id" in known else image_ids
    positions = [header.index(name) for name in classes]
    labels: list[Label] = []
    for number, row in enumerate(rows, 2):
        positive = _classes_of(row[known[kind]], classes, path, number)
        if kind == "label" and len(positive) != 1:
            raise MedfmcError(f"{path}, row {number}: label is {row[known[kind]]!r}; expected one class.")
        labels.append(positive[0] if kind == "label" else positive)
    scores = numbers([[row[i] for i in positions] for row in rows], path, 2)
    return _assembled(path, subset, classes, image_ids, patient_ids, labels, scores)


def _other_header(path: Path, header: list[str], rows: list[list[str]]) -> MedfmcError:
    return MedfmcError(
        f"{path} has the header {', '.join(header)} and {len(rows)} rows; expected label or labels, optionally image_id and "
        "patient_id, and a column of scores for each of at least two classes."
    )


def _score_columns(
    path: Path, header: list[str], rows: list[list[str]], known: Collection[str], declared: Sequence[str] | None
) -> tuple[str, ...]:
    """The columns that are scores: those of the classes, where these are known, else all that are nothing else and could be scores.

    Raises:
        MedfmcError: a class has no column, a name comes twice, or a column cannot be a score.
    """
    twice = sorted({name or "(no name)" for name in header if header.count(name) > 1})
    if twice:
        raise MedfmcError(f"{path}: the column {', '.join(twice)} comes more than once in the header {', '.join(header)}.")
    others = [name for name in header if name not in known]
    if declared is not None:
        absent = [name for name in declared if name not in others]
        if absent:
            there = ", ".join(name or "(no name)" for name in others)
            raise MedfmcError(
                f"{path} has no column of scores for {', '.join(absent)}; expected {', '.join(declared)}, and it has {there}."
            )
        left = [name or "(no name)" for name in others if name not in declared]
        if left:
            notify(f"{path.name}: left out, for they are no classes: {', '.join(left)}")
        return tuple(declared)
    for name in others:
        if why := _no_score(name, [row[header.index(name)] for row in rows]):
            shown = name or "(no name)"
            raise MedfmcError(f"{path}: the column {shown} {why}. Name the classes (--classes a,b,c): other columns are then left out.")
    notify(f"{path.name}: the classes are {', '.join(others)}")
    return tuple(others)


def _no_score(name: str, cells: list[str]) -> str | None:
    """Why a column cannot be the scores of a class; None if it can."""
    if not name or re.fullmatch(r"Unnamed: \d+", name):
        return "has no name, as an index that was written along"
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        return None  # the message about its cells says which line it is
    if len(values) and not ((values >= 0) & (values <= 1)).all():
        return "has values outside 0 to 1, so it is no probability"
    if len(values) > 1 and (values == np.round(values)).all() and (np.diff(values) > 0).all():
        return "only counts up, as an index does"
    return None


def _classes_of(cell: str, classes: tuple[str, ...], path: Path, number: int) -> tuple[int, ...]:
    words = [cell.strip()] if cell.strip() in classes else cell.replace(";", " ").split()
    found = [classes.index(word) if word in classes else int(word) if word.isdecimal() else -1 for word in words]
    if any(not 0 <= index < len(classes) for index in found):
        raise MedfmcError(f"{path}, row {number}: {cell!r} is no class; expected names or indices of {', '.join(classes)}.")
    return tuple(found)


def of_submission(path: Path, rows: list[list[str]], subset: Subset | None, labels: Mapping[str, Label] | None) -> Scored:
    """The rows of a submission file with their labels; see `of_csv`."""
    if subset is None:
        raise MedfmcError(f"{path} has no header and its name tells no subset; say which with --subset.")
    if labels is None:
        raise MedfmcError(
            f"{path} has no header, so no labels: give a published label table with --labels (such as {subset.table}) "
            "or a build with --data."
        )
    image_ids = [image_id_of(row[0]) for row in rows]
    unknown = [image_id for image_id in image_ids if labels.get(image_id) is None]
    if unknown:
        raise MedfmcError(f"{len(unknown)} of {len(rows)} images of {path} have no label in what was given, such as {unknown[0]}.")
    scores = numbers([row[1:] for row in rows], path, 1)
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
    """Labels by image id from a published label table (CSV) or a labelled list (text).

    Raises:
        MedfmcError: the file has other columns or unknown labels.
    """
    path = Path(path)
    file = read_table(path, subset) if path.suffix.lower() == ".csv" else read_list(path, subset, labelled=True)
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
