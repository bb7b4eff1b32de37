"""Reads the label files of MedFMC's releases, tables and text lists, one file at a time, with every quirk they are known to have.

Nothing is raised here: what is wrong with a file is collected in `LabelFile.problems`, so that a build can name everything at once.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .. import tables
from ..errors import MedfmcError
from ..subsets import Subset
from ..tables import Row
from ..words import first_few
from .lists import digest_of

Label = int | tuple[int, ...] | None  # class index, or indices of the positive classes in order; None where the label is not public

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

_IMAGE_COLUMNS = ("img_id", "image_idx", "image_id", "image", "img", "image_name", "file_name", "filename", "name")
_LABEL_COLUMNS = {"colon": ("tumor",), "neojaundice": ("Treatment", "jaundiced"), "retino": ("grade", "label", "level", "class")}
_IGNORED_COLUMNS = ("", "slide_id", "study_id", "patient_id")  # ids are derived from file names, see `Subset.patient_id`
EXTRA_COLUMNS = {  # of NeoJaundice's table, and what they are called here
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
        rows: (image_id, label) in file order, repeats included.
        extra: what NeoJaundice's table says besides, by image_id: gender, gestational_age, age, weight, bilirubin.
        problems: what is wrong with it, one sentence each.
        notes: what is odd but harmless.
        digest: of its content, see `medfmc_hf.data.lists.digest_of`; empty where it cannot be read.
    """

    path: Path
    rows: list[tuple[str, Label]] = field(default_factory=list)
    extra: dict[str, dict[str, str | float | None]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    digest: str = ""

    @property
    def image_ids(self) -> list[str]:
        return [image_id for image_id, _ in self.rows]


def image_id_of(name: str) -> str:
    """An image's file name without folder and extension. Only extensions of images are cut: ids may contain dots."""
    name = PurePosixPath(name.strip().replace("\\", "/")).name
    stem, dot, extension = name.rpartition(".")
    return stem if dot and f".{extension.lower()}" in IMAGE_EXTENSIONS else name


def _content(file: LabelFile) -> bytes:
    content = tables.content_of(file.path)
    file.digest = digest_of(content)
    return content


def _number(cell: str) -> float | None:
    """The value of a cell: None where empty; ValueError where it is no number."""
    return None if cell.strip().lower() in ("", "nan") else tables.number(cell)


def _key(header: str) -> str:
    return re.sub(r"[\s_]+", "_", header.strip().lower())


@dataclass(frozen=True)
class _Columns:
    """Where a table has what is read of it, as positions in a row.

    Attributes:
        image: of the image's name.
        labels: of the labels, one a class for a multi-label subset and one otherwise.
        extra: of NeoJaundice's further columns, by our names for them.
    """

    image: int
    labels: list[int]
    extra: dict[str, int]


def read_table(path: Path, subset: Subset) -> LabelFile:
    """Read a label table of any release: the published ones, and `<subset>_train.csv` and `<subset>_val.csv` of Grand Challenge.

    It may be saved in any form that `medfmc_hf.tables` reads. Accepted as they come: an index column with or without a name, a junk column
    at the end, rows without an image, labels as floats, labels left empty. Retino's header is not known, so any will do, or none.
    """
    file = LabelFile(Path(path))
    header, rows = _header_and_rows(file, subset)
    if file.problems:
        return file
    by_name = {_key(name): position for position, name in reversed(list(enumerate(header)))}
    image, labels = _image_column(by_name, rows, subset), _label_columns(by_name, header, subset)
    if image is None or not labels:
        missing = [name for name in subset.classes if _key(name) not in by_name] if subset.multilabel and image is not None else []
        what = f"has no column {first_few(missing, 5)}" if missing else "has not the columns of its subset"
        expected = "img_id and " + ", ".join(subset.classes if subset.multilabel else _LABEL_COLUMNS[subset.key][:1])
        file.problems.append(f"{file.path} {what}; expected {expected}; its header is {first_few(header, 25)!r}.")
        return file
    extra = {ours: by_name[_key(theirs)] for theirs, ours in EXTRA_COLUMNS.items() if _key(theirs) in by_name}
    columns = _Columns(image, labels, extra if subset.key == "neojaundice" else {})
    _report_repeated(file, subset, header, columns)
    if file.problems:
        return file
    if subset.multilabel:
        _report_unknown_classes(file, subset, header, rows, {image, *labels})
    _read_rows(file, subset, header, rows, columns)
    return file


def _header_and_rows(file: LabelFile, subset: Subset) -> tuple[list[str], list[Row]]:
    """The names of a table's columns, made up where a Retino table has none, and its other lines but for blank ones."""
    try:
        rows = tables.parse(file.path, _content(file)).rows
    except MedfmcError as error:
        file.problems.append(str(error))
        return [], []
    if not rows:
        file.problems.append(f"{file.path} is empty.")
        return [], []
    header = [cell.strip() for cell in rows[0][1]]
    if subset.key == "retino" and re.fullmatch(r"\d+(\.0*)?", header[-1]):
        return ["image"] + [""] * (len(header) - 2) + ["grade"], rows
    return header, rows[1:]


def _image_column(by_name: dict[str, int], rows: list[Row], subset: Subset) -> int | None:
    """The column of image names: one that is called so, else the first that holds a file name, else the first of a Retino table."""
    for name in _IMAGE_COLUMNS:
        if name in by_name:
            return by_name[name]
    cells = next((row for _, row in rows if any(cell.strip() for cell in row)), [])
    found = next((i for i, cell in enumerate(cells) if cell.strip().lower().endswith(IMAGE_EXTENSIONS)), None)
    return 0 if found is None and subset.key == "retino" else found


def _label_columns(by_name: dict[str, int], header: list[str], subset: Subset) -> list[int]:
    """The column of each class, or the one of the class index; empty where any is absent. Retino's may be the last one with a name."""
    names = [_key(name) for name in (subset.classes if subset.multilabel else _LABEL_COLUMNS[subset.key])]
    found = [by_name[name] for name in names if name in by_name]
    if subset.multilabel:
        return found if len(found) == len(names) else []
    if not found and subset.key == "retino":
        return [i for i, name in enumerate(header) if name and i > 0][-1:]
    return found[:1]


def _report_repeated(file: LabelFile, subset: Subset, header: list[str], columns: _Columns) -> None:
    """A column that is read may stand but once under its name, and the label under but one of its names."""
    plain = [tables.unnumbered(_key(name)) for name in header]
    for position in (columns.image, *columns.labels, *columns.extra.values()):
        names = {plain[position]} - {""}
        if position in columns.labels and not subset.multilabel:
            names |= {_key(name) for name in _LABEL_COLUMNS[subset.key]}
        same = [name for name, key in zip(header, plain) if key in names]
        if len(same) > 1:
            file.problems.append(
                f"{file.path} has {len(same)} columns for the same, {' and '.join(same)}, and nothing says which one counts; "
                f"leave one of them, even if they agree. Its header is {first_few(header, 25)!r}."
            )


def _report_unknown_classes(file: LabelFile, subset: Subset, header: list[str], rows: list[Row], known: set[int]) -> None:
    """A further column of zeros and ones is a class that the subset does not have."""
    for position, name in enumerate(header):
        if position in known or _key(name) in _IGNORED_COLUMNS or _key(name).startswith("unnamed"):
            continue
        values = {row[position].strip() for _, row in rows if position < len(row)} - {""}
        if values and values <= {"0", "1", "0.0", "1.0"}:
            file.problems.append(f"{file.path}: {name!r} is no class of {subset.name}, which has {', '.join(subset.classes)}.")


def _read_rows(file: LabelFile, subset: Subset, header: list[str], rows: list[Row], columns: _Columns) -> None:
    without_image = 0
    last = max(columns.image, *columns.labels, *columns.extra.values())
    for number, row in rows:
        name = row[columns.image].strip() if columns.image < len(row) else ""
        if not name:
            without_image += 1
        elif name == header[columns.image]:
            continue  # tables that were joined repeat the header
        elif tables.is_rounded(name):
            file.problems.append(f"{file.path}, line {number}: a spreadsheet has rounded the name to {name}; take the file of the release.")
            break
        elif last >= len(row):
            file.problems.append(f"{file.path}, line {number}: {len(row)} columns instead of {len(header)}; the file seems cut off.")
        elif len(row) > len(header):
            why = "a cell that holds the separator has to stand in quotes"
            file.problems.append(f"{file.path}, line {number}: {len(row)} columns instead of {len(header)}; {why}.")
        else:
            image_id = image_id_of(name)
            file.rows.append((image_id, _label(file, number, subset, [row[position] for position in columns.labels])))
            if columns.extra:
                file.extra[image_id] = _extra(file, number, {key: row[position] for key, position in columns.extra.items()})
    if without_image:
        file.notes.append(f"{file.path.name}: {without_image:,} rows without an image left out")


def _label(file: LabelFile, number: int, subset: Subset, cells: list[str]) -> Label:
    try:
        values = [_number(cell) for cell in cells]
    except ValueError:
        values = [-1.0]
    if all(value is None for value in values):
        return None
    allowed = range(2 if subset.multilabel else len(subset.classes))
    indices = [int(value) for value in values if value is not None and value in allowed]
    if len(indices) < len(values):
        expected = "0 or 1" if len(allowed) == 2 else f"0 to {len(allowed) - 1}"
        file.problems.append(f"{file.path}, line {number}: unknown class {first_few(cells, 20)}; expected {expected}.")
        return None
    return tuple(i for i, value in enumerate(indices) if value) if subset.multilabel else indices[0]


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
    try:
        text = tables.text_of(file.path, _content(file))
    except MedfmcError as error:
        file.problems.append(str(error))
        return file
    if not text.strip():
        file.problems.append(f"{file.path} is empty.")
    for number, line in enumerate(text.splitlines(), 1):
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
