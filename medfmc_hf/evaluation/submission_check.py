"""Whether a challenge submission is valid, in the challenge's own terms: files, rows, order, columns, values."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from ..subsets import CHALLENGE_IMAGES, SEEDS, SUBSETS
from ..words import first_few
from .challenge import Place, places
from .scored import has_header
from .submission import DECIMALS, Submission, file_name


def check(submission: Submission, order: Mapping[str, list[str]] | None = None) -> Submission:
    """Find everything that the challenge would not accept, and add it to `problems`.

    Args:
        submission: as `read` returns it.
        order: the images of each subset in the order of its rows, as `challenge_order` returns them. Without it the number of rows and
            the agreement of the files with each other are checked, but not which images they name.
    """
    expected = places(SEEDS if submission.phase == "final" else (None,))
    absent = [file_name(place) for place in expected if place not in submission.files]
    if absent:
        submission.problems.append(f"{len(absent)} of {len(expected)} files are missing: {first_few(absent, 5)}.")
    first: dict[str, tuple[str, list[str]]] = {}
    for place in expected:
        if place in submission.files:
            names = _check_file(submission, place)
            _check_names(submission, place, names, (order or {}).get(place[1]), first)
    if not order:
        submission.notes.append(
            "the order of the rows was compared between files only; give a build with --data to compare it with the lists."
        )
    return submission


def _check_file(submission: Submission, place: Place) -> list[str]:
    """Check the cells of one file; returns the names in its rows."""
    name, rows, subset = file_name(place), submission.files[place], SUBSETS[place[1]]
    problems, classes = submission.problems, len(subset.classes)
    if not rows:
        problems.append(f"{name} is empty.")
        return []
    if len(rows[0]) == 1 and any(mark in rows[0][0] for mark in ";\t "):
        problems.append(f"{name} is not separated by commas: its first row is {rows[0][0][:60]!r}.")
        return []
    if has_header(rows[0]) and len(rows[0]) > 1:
        problems.append(f"{name} has a header ({','.join(rows[0])[:60]}); a submission has none, and its first image would be lost.")
        rows = rows[1:]
    wanted = CHALLENGE_IMAGES[submission.phase][place[1]]
    if len(rows) != wanted:
        problems.append(f"{name} has {len(rows)} rows; the {submission.phase} phase has {wanted} images of {place[1]}.")
    long = [i for i, row in enumerate(rows, 1) if len(row) != classes + 1]
    if long:
        problems.append(
            f"{name}: {len(long)} rows have not a name and {classes} probabilities ({', '.join(subset.classes[:4])}"
            f"{', ...' if classes > 4 else ''}), the first is row {long[0]}: {','.join(rows[long[0] - 1])[:60]!r}."
        )
        return [row[0] if row else "" for row in rows]
    try:
        values = np.array([row[1:] for row in rows], dtype=float)
    except ValueError as error:
        problems.append(f"{name}: a cell is no number ({error}).")
        return [row[0] for row in rows]
    outside = ~((values >= 0) & (values <= 1))  # true for NaN as well
    if outside.any():
        row, column = np.argwhere(outside)[0]
        cell, count = rows[row][column + 1], np.count_nonzero(outside)
        problems.append(f"{name}: {count} values are no probabilities in [0, 1], the first in row {row + 1}: {cell!r}.")
    elif not subset.multilabel and (abs(values.sum(axis=1) - 1) > 1e-3).any():
        submission.notes.append(f"{name}: the probabilities of a row do not sum to 1.")
    if any(len(cell.partition(".")[2]) > DECIMALS and "e" not in cell.lower() for row in rows[:100] for cell in row[1:]):
        submission.notes.append(f"{name} has more than {DECIMALS} decimals; the official code rounds to {DECIMALS}.")
    return [row[0] for row in rows]


def _check_names(
    submission: Submission, place: Place, names: list[str], order: list[str] | None, first: dict[str, tuple[str, list[str]]]
) -> None:
    """Check which images a file names, against the list or else against the first file of its subset."""
    if not names:
        return
    name, problems = file_name(place), submission.problems
    bare = [cell for cell in names if not cell.lower().endswith(".png")]
    if bare:
        problems.append(f"{name}: {len(bare)} rows do not start with an image's file name ending in .png, such as {bare[0][:60]!r}.")
        return
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        problems.append(f"{name} names {len(names) - len(set(names))} images more than once, such as {twice}.")
    against, reference = (f"the list of the {submission.phase} phase", order) if order else first.setdefault(place[1], (name, names))
    if names == reference:
        return
    named, listed = set(names), set(reference)
    lacking, foreign = [n for n in reference if n not in named], [n for n in names if n not in listed]
    if lacking or foreign:
        parts = [f"{len(lacking)} images are missing, such as {lacking[0]}"] if lacking else []
        parts += [f"{len(foreign)} do not belong there, such as {foreign[0]}"] if foreign else []
        problems.append(f"{name} has not the images of {against}: {'; '.join(parts)}.")
    elif len(names) == len(reference):
        row = next(i for i, (a, b) in enumerate(zip(names, reference)) if a != b)
        problems.append(
            f"{name} has the right images in another order than {against}: row {row + 1} is {names[row]}, expected {reference[row]}."
        )
