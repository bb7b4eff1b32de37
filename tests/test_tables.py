"""One table in every form that people save it in, and what is no table."""

import gzip
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import FORMS, save_table

from medfmc_hf import tables
from medfmc_hf.errors import MedfmcError
from medfmc_hf.tables import is_rounded, number, read

# Not "=", with which formulas start, and not CR, which XML cannot hold. A letter in front keeps a text from being a number.
TEXTS = st.text(st.sampled_from("abzßé漢 0159.,;\t\"'\n-"), max_size=8).map("x{}".format)
NUMBERS = st.integers(-(10**12), 10**12) | st.floats(-1e12, 1e12).map(lambda value: float(f"{value:.12g}"))


@st.composite
def tables_of_cells(draw):
    """A header, and rows whose columns hold texts, or numbers and empty cells."""
    kinds = draw(st.lists(st.booleans(), min_size=2, max_size=5))
    rows = draw(st.lists(st.tuples(*(NUMBERS if is_number else TEXTS for is_number in kinds)), min_size=1, max_size=6))
    return [[f"column {place}" for place in range(len(kinds))], *(list(row) for row in rows)]


@pytest.mark.parametrize("form", FORMS)
@given(rows=tables_of_cells())
def test_every_form_holds_the_same_table(tmp_path_factory, form, rows):
    found = read(save_table(tmp_path_factory.getbasetemp() / "forms", "table", rows, form)).rows
    assert [len(cells) for _, cells in found] == [len(row) for row in rows]
    for (_, cells), row in zip(found, rows):
        for cell, value in zip(cells, row):
            assert cell == value if isinstance(value, str) else number(cell) == value


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_lines_are_those_of_the_file(tmp_path):
    """With blank ones and with those inside of quotes."""
    rows = read(written(tmp_path / "a.csv", '\n\na,b\r\n"one\ntwo",1\r\n\r\nx,2\r\n')).rows
    assert rows == [(3, ["a", "b"]), (4, ["one\ntwo", "1"]), (7, ["x", "2"])]
    assert read(written(tmp_path / "b.csv", "a,b\rx,1\r")).rows == [(1, ["a", "b"]), (2, ["x", "1"])]


def test_empty_cells_behind_the_last_column_are_cut_and_short_rows_stay_short(tmp_path):
    rows = read(written(tmp_path / "a.csv", ",,,\na,b,,\n1,2,,\n3,,,\n4\n")).rows
    assert rows == [(2, ["a", "b"]), (3, ["1", "2"]), (4, ["3", ""]), (5, ["4"])]
    rows = read(written(tmp_path / "b.csv", "a,b,,\n1,2,,\n3,4,junk,\n")).rows  # a column without a name, as Endo's table has
    assert rows == [(1, ["a", "b", ""]), (2, ["1", "2", ""]), (3, ["3", "4", "junk"])]
    assert read(written(tmp_path / "c.csv", "a,b\n1,2,3\n")).rows[1] == (2, ["1", "2", "3"])  # not cut: something stands there


@pytest.mark.parametrize(
    ("text", "separator", "first"),
    [
        ("x.png;0,1;0,9\n", ";", ["x.png", "0.1", "0.9"]),  # as many commas as semicolons
        ("x.png\t0,1\t0,9\n", "\t", ["x.png", "0.1", "0.9"]),
        ("a.png,0.1,0.9\n", ",", ["a.png", "0.1", "0.9"]),
        ('"a;b;c",label,x\n', ",", ["a;b;c", "label", "x"]),
        ("one column\n", ",", ["one column"]),
        ("id;1,5 mg;+2,5E-3\n", ";", ["id", "1,5 mg", "+2.5E-3"]),
    ],
)
def test_the_separator_is_the_one_that_makes_most_columns(tmp_path, text, separator, first):
    table = read(written(tmp_path / "a.csv", text))
    assert table.separator == separator and table.rows[0][1] == first


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "a,b\n")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b",,\n,,\n", "is empty"),
        ("größe,b\n".encode("latin-1"), "is not UTF-8 text; save it again as CSV UTF-8"),
        ("a,b\n".encode("utf-16-le"), "is not UTF-8 text"),  # without its mark
        (b"\xff\xfea", "is not UTF-8 text"),  # half a letter
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer"),
        (b'a,b\nx,"1\n', "is not a CSV table (line 2"),
        (gzip.compress(b"a,b\n", mtime=0), "packed by gzip; unpack it"),
        (zipped("table.csv"), "a zip archive or a workbook other than XLSX"),
        (zipped("xl/workbook.bin"), "a zip archive or a workbook other than XLSX"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or locked Excel workbook; save it as XLSX"),
        (b"PAR1 and no more", "a damaged Parquet file"),
    ],
    ids=range(14),
)
def test_what_is_no_table_is_named(tmp_path, content, message):
    path = written(tmp_path / "table", content)
    with pytest.raises(MedfmcError) as error:
        read(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_what_cannot_be_opened_is_named(tmp_path, monkeypatch):
    with pytest.raises(MedfmcError, match="none does not exist; expected a table"):
        read(tmp_path / "none")
    with pytest.raises(MedfmcError, match="cannot be read: Is a directory"):
        read(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(MedfmcError, match="cannot be read: Permission denied"):
        read(tmp_path / "table.csv")


# --- files that know the type of a cell ---


@pytest.fixture
def book():
    return pytest.importorskip("openpyxl", reason="an optional extra").Workbook()


def saved(book, path):
    book.save(path)
    return path


def test_numbers_of_a_sheet_are_as_they_were_typed(tmp_path, book):
    """An id of many digits has lost some, and says so as in a CSV."""
    book.active.append(["id", "p", "yes", "empty"])
    book.active.append([17, 0.1, True, None])
    book.active.append([20230116125802920001, 1.0, False, None])
    book.active.append(["0012", 1e-7, None, "x"])
    rows = [cells for _, cells in read(saved(book, tmp_path / "a.xlsx")).rows]
    assert rows[1:] == [["17", "0.1", "TRUE", ""], ["2.02301161258029E+19", "1", "FALSE", ""], ["0012", "1e-07", "", "x"]]
    assert is_rounded(rows[2][0]) and not is_rounded("17")


def test_the_one_sheet_that_holds_something_is_read(tmp_path, book):
    book.create_sheet("Table").append(["a", "b"])
    assert read(saved(book, tmp_path / "a.csv")).rows == [(1, ["a", "b"])]  # whatever the file is called
    book.create_sheet("Notes")["C7"] = "hello"
    with pytest.raises(MedfmcError, match=r"2 sheets that hold something \(Table, Notes\); leave the one"):
        read(saved(book, tmp_path / "b.xlsx"))
    with pytest.raises(MedfmcError, match="is empty"):
        read(saved(type(book)(), tmp_path / "c.xlsx"))


def test_lines_of_a_sheet_are_its_rows(tmp_path, book):
    book.active["B3"], book.active["C3"], book.active["B5"] = "a", "b", 1
    assert read(saved(book, tmp_path / "a.xlsx")).rows == [(3, ["", "a", "b"]), (4, ["", "", ""]), (5, ["", "1", ""])]


def test_cells_whose_value_is_not_in_the_file_are_named(tmp_path, book):
    book.active.append(["a", "b"])
    book.active.append([1, "=A2+1"])
    with pytest.raises(MedfmcError, match="line 2: B2 is a formula that was never computed"):
        read(saved(book, tmp_path / "a.xlsx"))
    book.active["B2"] = 2
    book.active.merge_cells("A2:A3")
    with pytest.raises(MedfmcError, match=r"merged cells \(A2:A3\)"):
        read(saved(book, tmp_path / "b.xlsx"))


def test_computed_formulas_have_their_value(tmp_path, book):
    book.active.append(["a", "=1+1"])
    path = saved(book, tmp_path / "a.xlsx")
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.replace(b"<v></v>", b"<v>2</v>").replace(b"<v />", b"<v>2</v>").replace(b"<v/>", b"<v>2</v>"))
    assert read(path).rows == [(1, ["a", "2"])]


def test_a_damaged_workbook_is_named(tmp_path, book):
    path = saved(book, tmp_path / "a.xlsx")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(MedfmcError, match="is a damaged XLSX workbook"):
        read(path)


def test_without_openpyxl_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    path = written(tmp_path / "a.xlsx", zipped("xl/workbook.xml"))
    with pytest.raises(MedfmcError, match=r'pip install "medfmc_hf\[tables\]", or save the table as CSV UTF-8'):
        read(path)


def test_types_of_a_parquet_file(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"id": [20230116125802920, None], "label": [1.0, float("nan")], "labels": [[0, 2], []], "yes": [True, None]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").rows == [
        (1, ["id", "label", "labels", "yes"]),
        (2, ["20230116125802920", "1", "0 2", "TRUE"]),
        (3, ["", "", "", ""]),
    ]
    pq.write_table(pa.table({"image": [b"bytes"]}), tmp_path / "b.parquet")
    with pytest.raises(MedfmcError, match="the column image holds binary"):
        read(tmp_path / "b.parquet")


# --- cells ---


@pytest.mark.parametrize(
    ("cell", "value"), [("1", 1), (" 1.0 ", 1), ("1,0", 1), ("0,125", 0.125), ("-3,5e-2", -0.035), ("1234,5", 1234.5), ("12,3456", 12.3456)]
)
def test_numbers(cell, value):
    assert number(cell) == value


@pytest.mark.parametrize("cell", ["", "x", "1_0", "1 0", "1.000,5", "1,000", "12,345,678", "95%"])
def test_no_numbers(cell):
    with pytest.raises(ValueError, match=r"could not convert|may be a decimal number or one above a thousand"):
        number(cell)


def test_rounded_names():
    assert all(map(is_rounded, ["2.02E+19", "2,02301161258029E+16", "2E+16", "2.02e19"]))
    assert not any(map(is_rounded, ["5E0012345678901", "5E44", "5DC2824164E8B52", "17", "1.5", ""]))  # the first are of ChestDR


def test_no_table_is_read_elsewhere():
    """Whoever reads a table reads it here."""
    package = Path(tables.__file__).parent
    readers = ("csv.reader", "csv.DictReader", "read_csv", "read_excel", "load_workbook", "genfromtxt", "loadtxt")
    shipped = package / "metrics"  # in a wheel: the page of the metric's Space, which runs without this package
    sources = [path for path in package.rglob("*.py") if shipped not in path.parents]
    found = {path.name for path in sources if any(reader in path.read_text(encoding="utf-8") for reader in readers)}
    assert found == {"tables.py"}
