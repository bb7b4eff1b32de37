"""Reads a table as a person or a program saved it: CSV with `,`, `;` or tabs, as UTF-8 or UTF-16, an XLSX sheet, or a Parquet file.

Whatever the form, the same table gives the same rows of text. pandas would read these forms too, but fills short rows, passes over sheets
with formulas that were never computed, and does not tell the line of a row; so the libraries that it calls are called here.
"""

import codecs
import csv
import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import MedfmcError

SUFFIXES = (".csv", ".tsv", ".xlsx", ".parquet")

Row = tuple[int, list[str]]  # the number of a line in its file, and its cells

_UNREADABLE = {  # how files begin that may hold a table, but are not read
    b"\xd0\xcf\x11\xe0": "an old or locked Excel workbook; save it as XLSX without a password, or as CSV UTF-8",
    b"\x1f\x8b": "packed by gzip; unpack it",
    b"PK\x03\x04": "a zip archive or a workbook other than XLSX; unpack it, or save the table as CSV UTF-8",
}


@dataclass(frozen=True)
class Table:
    """A table in rows of text.

    Attributes:
        path: where it is.
        lines: all of it, blank lines as rows without cells. Decimal commas, which spreadsheets write beside `;` and tabs, are points.
        separator: `,`, `;` or a tab; empty where the form has none.
        encoding: `utf-8` or `utf-16`; empty where the form has none.
    """

    path: Path
    lines: list[Row]
    separator: str = ""
    encoding: str = ""

    @cached_property
    def rows(self) -> list[Row]:
        """The first line that is not blank and all after it, but for lines without cells; empty cells behind the last column are cut."""
        lengths = [_length(cells) for _, cells in self.lines]
        if not any(lengths):
            return []
        first = next(place for place, length in enumerate(lengths) if length)
        width = min(len(self.lines[first][1]), max(lengths))
        return [(line, cells[: max(width, length)]) for (line, cells), length in zip(self.lines[first:], lengths[first:]) if cells]


def _length(cells: Sequence[str]) -> int:
    """How many cells there are up to the last one that holds anything."""
    return max((place for place, cell in enumerate(cells, 1) if cell.strip()), default=0)


def read(path: Path) -> Table:
    """Read a table.

    Raises:
        MedfmcError: it is absent, empty, damaged, or in a form that is not read; the message says what to do.
    """
    table = parse(path, content_of(path))
    if not table.rows:
        raise MedfmcError(f"{path} is empty; expected a line of the table for each image.")
    return table


def content_of(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        MedfmcError: it cannot be read, or is the pointer that Git LFS leaves in its place.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MedfmcError(f"{path} does not exist; expected a table (CSV, TSV, XLSX or Parquet).") from None
    except OSError as error:
        raise MedfmcError(f"{path} cannot be read: {error.strerror}.") from None
    if content.startswith(b"version https://git-lfs"):
        raise MedfmcError(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository.")
    return content


def parse(path: Path, content: bytes) -> Table:
    """The table that some bytes hold, whose form is known by how they begin.

    Args:
        path: where they are from, for messages.
        content: the bytes.

    Raises:
        MedfmcError: they are damaged or in a form that is not read.
    """
    if content.startswith(b"PK\x03\x04") and b"xl/workbook.xml" in content:
        return Table(path, _sheet(path, content))
    if content.startswith(b"PAR1"):
        return Table(path, _parquet(path, content))
    for start, form in _UNREADABLE.items():
        if content.startswith(start):
            raise MedfmcError(f"{path} is {form}.")
    return _csv(path, text_of(path, content), "utf-16" if _is_utf16(content) else "utf-8")


def _is_utf16(content: bytes) -> bool:
    return content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def text_of(path: Path, content: bytes) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        MedfmcError: it is neither.
    """
    try:
        text = content.decode("utf-16" if _is_utf16(content) else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise MedfmcError(f"{path} is not UTF-8 text; save it again as CSV UTF-8, or take the file anew from where it came.")
    return text


def _csv(path: Path, text: str, encoding: str) -> Table:
    separator = max(",;\t", key=lambda mark: _columns(text, mark))
    lines: list[Row] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    start = 1
    try:
        for cells in reader:
            lines.append((start, cells if separator == "," else [_with_point(cell) for cell in cells]))
            start = reader.line_num + 1  # a quoted cell may hold line ends
    except csv.Error as error:
        raise MedfmcError(
            f"{path} is not a CSV table (line {start}: {error}); save it again as CSV UTF-8, or take the file anew from where it came."
        ) from None
    return Table(path, lines, separator, encoding)


def _columns(text: str, separator: str) -> tuple[int, bool]:
    """How many columns a separator makes of the first line. Where a decimal comma makes as many, the comma is not the separator."""
    try:
        cells = next((cells for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if cells), [])
    except csv.Error:
        return 0, False
    return len(cells), len(cells) > 1 and separator != ","


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if re.fullmatch(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*", cell) else cell


def _sheet(path: Path, content: bytes) -> list[Row]:
    """The rows of the one sheet of a workbook that holds anything."""
    try:
        import openpyxl
    except ImportError:
        raise MedfmcError(
            f'{path} is an XLSX workbook, which openpyxl reads; run: pip install "medfmc_hf[tables]", or save the table as CSV UTF-8.'
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and drop-down lists, which hold no data
            books = [openpyxl.load_workbook(io.BytesIO(content), data_only=computed) for computed in (False, True)]
    except Exception as error:  # a damaged workbook fails in any of its parts, each with an error of its own
        raise MedfmcError(f"{path} is a damaged XLSX workbook ({error}); save it again, or save the table as CSV UTF-8.") from None
    full = [sheet.title for sheet in books[0].worksheets if any(cell is not None for row in sheet.values for cell in row)]
    if len(full) > 1:
        raise MedfmcError(f"{path} has {len(full)} sheets that hold something ({', '.join(full)}); leave the one with the table alone.")
    if not full:
        return []
    written, computed = (book[full[0]] for book in books)
    if written.merged_cells:
        raise MedfmcError(
            f"{path} has merged cells ({written.merged_cells}), of which the first alone holds a value; unmerge and fill them."
        )
    lines: list[Row] = []
    for line, (cells, values) in enumerate(zip(written.iter_rows(), computed.iter_rows(values_only=True)), 1):
        unknown = [cell.coordinate for cell, value in zip(cells, values) if cell.data_type == "f" and value is None]
        if unknown:
            raise MedfmcError(
                f"{path}, line {line}: {unknown[0]} is a formula that was never computed; open and save the file in a spreadsheet program."
            )
        lines.append((line, [_text(float(value) if type(value) is int else value) for value in values]))
    return lines


def _parquet(path: Path, content: bytes) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(content)).read()  # `read_table` refuses two columns of one name
    except (pa.ArrowException, OSError) as error:
        raise MedfmcError(f"{path} is a damaged Parquet file ({error}); write it again.") from None
    for field in table.schema:
        if pa.types.is_struct(field.type) or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            raise MedfmcError(f"{path}: the column {field.name} holds {field.type}; expected a table of text and numbers.")
    columns = [[_text(value) for value in column.to_pylist()] for column in table.columns]
    return [(1, list(table.column_names)), *((line, list(cells)) for line, cells in enumerate(zip(*columns), 2))]


def _text(value: Any) -> str:
    """The value of a typed cell, as a spreadsheet would write it to CSV."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and abs(value) >= 1e15:
        return f"{value:.14E}"  # its last digits are not the ones that were typed in; `is_rounded` finds it
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return " ".join(map(_text, value))
    return str(value)


def unnumbered(name: str) -> str:
    """A column's name without the number that pandas gives to the second of two columns of one name: `age` for `age.1`."""
    return re.sub(r"\.\d+$", "", name)


def is_rounded(name: str) -> bool:
    """Whether a name is what a spreadsheet makes of a long row of digits, such as `2.02E+19`."""
    return re.fullmatch(r"\d([.,]\d+E\+?|E\+)\d+", name.strip(), re.IGNORECASE) is not None


def number(cell: str) -> float:
    """The number in a cell; spreadsheets write `1.0`, or `1,0` with a decimal comma.

    Raises:
        ValueError: it is none, or may be one of two.
    """
    if re.fullmatch(r"\s*[+-]?[1-9]\d{0,2}(,\d{3})+\s*", cell):
        raise ValueError(f"{cell.strip()!r} may be a decimal number or one above a thousand, write it with a point or without a comma")
    if "_" in cell:  # which Python reads over
        raise ValueError(f"could not convert string to float: {cell!r}")
    return float(cell.replace(",", "."))
