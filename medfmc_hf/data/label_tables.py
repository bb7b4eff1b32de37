"""Reads the label files of MedFMC's releases: CSV tables and the text lists, one file at a time, with every quirk they are known to have.

Nothing is raised here: what is wrong with a file is collected in `LabelFile.problems`, so that a build can name everything at once.
"""

import csv
import io
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..subsets import Subset

Label = int | tuple[int, ...] | None  # class index, or indices of the positive classes in order; None where the label is not public

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

_IMAGE_COLUMNS = ("img_id", "image_idx", "image_id", "image", "img", "image_name", "file_name", "filename", "name")
_LABEL_COLUMNS = {"colon": ("tumor",), "neojaundice": ("Treatment", "jaundiced"), "retino": ("grade", "label", "level", "class")}
_IGNORED_COLUMNS = ("", "slide_id", "study_id", "patient_id")  # ids are derived from file names, see `Subset.patient_id`
_EXTRA_COLUMNS = {  # NeoJaundice's table has more than labels
    "gender": "gender",
    "gestational_age": "gestational_age",
    "age(day)": "age",
    "weight": "weight",
    "blood(mg/dL)": "bilirubin",
}
SITES = {"1": "head", "2": "face", "3": "chest"}  # NeoJaundice: the number after the infant in an image's name


@dataclass
class LabelFile:
    """What one table or list says.

    Attributes:
        path: where it is.
        rows: (image_id, label) in file order, repeats kept.
        extra: what NeoJaundice's table says besides, by image_id: gender, gestational_age, age, weight, bilirubin.
        problems: what is wrong with it, one sentence each.
        notes: what is odd but harmless.
    """

    path: Path
    rows: list[tuple[str, Label]] = field(default_factory=list)
    extra: dict[str, dict[str, str | float | None]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def first_few(items: list, most: int = 3) -> str:
    """The first few of many: `a, b, c and 4 more`."""
    shown = ", ".join(str(item) for item in items[:most])
    return shown + (f" and {len(items) - most:,} more" if len(items) > most else "")


def image_id_of(name: str) -> str:
    """An image's file name without folder and extension. Only extensions of images are cut: ids may contain dots."""
    name = PurePosixPath(name.strip().replace("\\", "/")).name
    stem, dot, extension = name.rpartition(".")
    return stem if dot and f".{extension.lower()}" in IMAGE_EXTENSIONS else name


def _text(file: LabelFile) -> str:
    try:
        content = file.path.read_bytes()
    except OSError as error:
        file.problems.append(f"{file.path} cannot be read: {error.strerror}.")
        return ""
    if content.startswith(b"version https://git-lfs"):
        file.problems.append(f"{file.path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository.")
        return ""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        file.problems.append(f"{file.path} is not UTF-8 text; take the file of the release, or save it again as CSV UTF-8.")
        return ""
    if not text.strip():
        file.problems.append(f"{file.path} is empty.")
    return text


def _number(cell: str) -> float | None:
    """The value of a cell: None where empty; ValueError where it is no number. Spreadsheets write `1.0`, or `1,0` beside semicolons."""
    cell = cell.strip().replace(",", ".")
    return None if cell.lower() in ("", "nan") else float(cell)


def _key(header: str) -> str:
    return re.sub(r"[\s_]+", "_", header.strip().lower())


def read_table(path: Path, subset: Subset) -> LabelFile:
    """Read a CSV label table of any release: the published ones, and `<subset>_train.csv` and `<subset>_val.csv` of Grand Challenge.

    Accepted as they come: an index column with or without a name, a junk column at the end, rows without an image, CRLF, a byte
    order mark, `;` or tab for `,`, labels as floats, labels left empty. Retino's header is not known, so any will do, or none.
    """
    file = LabelFile(Path(path))
    text = _text(file)
    if file.problems:
        return file
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    header = [cell.strip() for cell in rows[0]]
    if subset.key == "retino" and re.fullmatch(r"\d+(\.0*)?", header[-1]):
        header, first = ["image"] + [""] * (len(header) - 2) + ["grade"], 0
    else:
        first = 1
    columns = {_key(name): position for position, name in reversed(list(enumerate(header)))}
    sample = next((row for row in rows[first:] if any(cell.strip() for cell in row)), [])
    image = next((columns[name] for name in _IMAGE_COLUMNS if name in columns), None)
    if image is None:
        image = next((i for i, cell in enumerate(sample) if cell.strip().lower().endswith(IMAGE_EXTENSIONS)), None)
    if image is None and subset.key == "retino":
        image = 0
    labels = _label_columns(subset, columns, header)
    if image is None or labels is None:
        expected = "img_id and " + ", ".join(subset.classes if subset.multilabel else _LABEL_COLUMNS[subset.key][:1])
        missing = [] if not subset.multilabel else [name for name in subset.classes if _key(name) not in columns]
        what = f"has no column {first_few(missing, 5)}" if missing and image is not None else "has not the columns of its subset"
        file.problems.append(f"{file.path} {what}; expected {expected}; its header is {first_few(header, 25)!r}.")
        return file
    extras = {
        ours: columns[_key(theirs)] for theirs, ours in _EXTRA_COLUMNS.items() if subset.key == "neojaundice" and _key(theirs) in columns
    }
    if subset.multilabel:
        _unknown_classes(file, subset, header, rows[first:], {image, *labels})
    empty = 0
    for number, row in enumerate(rows[first:], first + 1):
        name = row[image].strip() if image < len(row) else ""
        if not name or name == header[image]:
            empty += bool(row) and not name
            continue
        if re.fullmatch(r"\d([.,]\d+)?E\+?\d+", name, re.IGNORECASE):
            file.problems.append(f"{file.path}, line {number}: a spreadsheet has rounded the name to {name}; take the file of the release.")
            break
        if max(labels) >= len(row):
            file.problems.append(f"{file.path}, line {number}: {len(row)} columns instead of {len(header)}; the file seems cut off.")
            continue
        image_id = image_id_of(name)
        file.rows.append((image_id, _label(file, number, subset, [row[position] for position in labels])))
        if extras:
            file.extra[image_id] = _extra(file, number, {ours: row[i] if i < len(row) else "" for ours, i in extras.items()})
    if empty:
        file.notes.append(f"{file.path.name}: {empty:,} rows without an image left out")
    return file


def _label_columns(subset: Subset, columns: dict[str, int], header: list[str]) -> list[int] | None:
    if subset.multilabel:
        found = [columns.get(_key(name)) for name in subset.classes]
        return None if None in found else found
    found = next((columns[_key(name)] for name in _LABEL_COLUMNS[subset.key] if _key(name) in columns), None)
    if found is None and subset.key == "retino":
        found = max(i for i, name in enumerate(header) if name or i == 0) or None  # the last column that has a name
    return None if found is None else [found]


def _unknown_classes(file: LabelFile, subset: Subset, header: list[str], rows: list[list[str]], known: set[int]) -> None:
    """A further column of zeros and ones is a class that the subset does not have."""
    for position, name in enumerate(header):
        if position in known or _key(name) in _IGNORED_COLUMNS or _key(name).startswith("unnamed"):
            continue
        values = {row[position].strip() for row in rows if position < len(row)} - {""}
        if values and values <= {"0", "1", "0.0", "1.0"}:
            file.problems.append(f"{file.path}: {name!r} is no class of {subset.name}, which has {', '.join(subset.classes)}.")


def _label(file: LabelFile, number: int, subset: Subset, cells: list[str]) -> Label:
    try:
        values = [_number(cell) for cell in cells]
    except ValueError:
        values = [-1.0]
    if all(value is None for value in values):
        return None
    allowed = range(2 if subset.multilabel else len(subset.classes))
    if any(value not in allowed for value in values):
        expected = "0 or 1" if len(allowed) == 2 else f"0 to {len(allowed) - 1}"
        file.problems.append(f"{file.path}, line {number}: unknown class {first_few(cells, 20)}; expected {expected}.")
        return None
    return tuple(i for i, value in enumerate(values) if value) if subset.multilabel else int(values[0])


def _extra(file: LabelFile, number: int, cells: dict[str, str]) -> dict[str, str | float | None]:
    values: dict[str, str | float | None] = {}
    for name, cell in cells.items():
        try:
            values[name] = (cell.strip() or None) if name == "gender" else _number(cell)
        except ValueError:
            file.problems.append(f"{file.path}, line {number}: {name} is {cell!r}; expected a number.")
            values[name] = None
    return values


def read_list(path: Path, subset: Subset, labelled: bool) -> LabelFile:
    """Read a text list: a name a line, then its label as `0,1,...` (chest), `0 1 0 0` (endo) or `1`, split from the right.

    Names may contain spaces and may lack their extension.

    Args:
        path: the list.
        subset: whose list it is.
        labelled: whether every line must have a label; lists of unlabelled images have none.
    """
    file = LabelFile(Path(path))
    values = rf"[01](?:[ ,][01]){{{len(subset.classes) - 1}}}" if subset.multilabel else r"\d+"
    pattern = re.compile(rf"(.*\S)\s+({values})")
    for number, line in enumerate(_text(file).splitlines(), 1):
        line = line.strip()
        if not line:
            continue
        found = pattern.fullmatch(line)
        if found:
            numbers = [int(value) for value in re.split("[ ,]", found[2])]
            if not subset.multilabel and numbers[0] >= len(subset.classes):
                file.problems.append(f"{file.path}, line {number}: unknown class {numbers[0]}; expected 0 to {len(subset.classes) - 1}.")
                continue
            label = tuple(i for i, value in enumerate(numbers) if value) if subset.multilabel else numbers[0]
            file.rows.append((image_id_of(found[1]), label))
        elif labelled:
            expected = f"{len(subset.classes)} values of 0 or 1" if subset.multilabel else "a class number"
            file.problems.append(f"{file.path}, line {number}: {line[:80]!r} is not a file name and {expected}.")
        else:
            file.rows.append((image_id_of(line), None))
    return file
