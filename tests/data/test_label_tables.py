"""Every quirk that the tables and lists of the releases are known to have, one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import FORMS, IMAGES, list_line, save_table, stem, table_rows, write_list, write_table

from medfmc_hf.data.label_tables import image_id_of, read_list, read_table
from medfmc_hf.subsets import SUBSETS


def expected(key):
    return [
        (stem(name), tuple(i for i, v in enumerate(row) if v) if SUBSETS[key].multilabel else row.index(1)) for name, row in IMAGES[key]
    ]


def write(path, key, change=lambda rows: rows, **options):
    return write_table(path / SUBSETS[key].table, change(table_rows(key)), **options)


@pytest.mark.parametrize("key", SUBSETS)
def test_published_table(tmp_path, key):
    file = read_table(write(tmp_path, key), SUBSETS[key])
    assert file.problems == [] and file.rows == expected(key)


@pytest.mark.parametrize("key", SUBSETS)
@pytest.mark.parametrize("options", [{"newline": "\r\n"}, {"separator": ";"}, {"separator": "\t"}], ids=str)
def test_line_ends_and_separators(tmp_path, key, options):
    file = read_table(write(tmp_path, key, **options), SUBSETS[key])
    assert file.problems == [] and file.rows == expected(key)


@pytest.mark.parametrize("form", FORMS)
@given(key=st.sampled_from(list(SUBSETS)), data=st.data())
def test_every_form_of_a_table_says_the_same(tmp_path_factory, form, key, data):
    """Whatever the labels are, and NeoJaundice's numbers."""
    subset, names = SUBSETS[key], [name for name, _ in IMAGES[key][:4]]
    a_class = st.integers(0, len(subset.classes) - 1)
    label = st.sets(a_class) if subset.multilabel else a_class.map(lambda index: {index})
    chosen = data.draw(st.lists(label, min_size=4, max_size=4))
    images = [(name, tuple(int(c in own) for c in range(len(subset.classes)))) for name, own in zip(names, chosen)]
    rows = table_rows(key, images)
    if key == "neojaundice":
        for row in rows[1:]:
            row[4:7] = data.draw(st.lists(st.floats(0.5, 5000).map(lambda value: round(value, 3)), min_size=3, max_size=3))
    folder = tmp_path_factory.getbasetemp() / "forms"
    file = read_table(save_table(folder, "table", rows, form), subset)
    plain = read_table(write_table(folder / "plain.csv", rows), subset)
    assert file.problems == [] and file.rows == plain.rows and len(file.rows) == 4 and file.extra == plain.extra
    assert file.rows == [(stem(name), tuple(sorted(own)) if subset.multilabel else min(own)) for name, own in zip(names, chosen)]
    assert [extra["bilirubin"] for extra in file.extra.values()] == [row[6] for row in rows[1:] if key == "neojaundice"]


def test_byte_order_mark_and_no_final_newline(tmp_path):
    path = write(tmp_path, "endo")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().rstrip(b"\n"))
    assert read_table(path, SUBSETS["endo"]).rows == expected("endo")


def test_thousand_empty_rows_are_left_out_and_counted(tmp_path):
    file = read_table(write(tmp_path, "colon", lambda rows: rows + [["", "", ""]] * 1000), SUBSETS["colon"])
    assert file.rows == expected("colon") and "1,000 rows" in file.notes[0]


@pytest.mark.parametrize("key", SUBSETS)
def test_blank_lines_are_passed_over_wherever_they_are(tmp_path, key):
    path = write(tmp_path, key, lambda rows: [*rows[:3], [], *rows[3:]])
    path.write_text("\n\n" + path.read_text())
    file = read_table(path, SUBSETS[key])
    assert file.problems == file.notes == [] and file.rows == expected(key)


def test_lines_are_counted_with_the_blank_ones(tmp_path):
    path = write(tmp_path, "colon", lambda rows: [rows[0], [], *cell(3, 2, "7")(rows)[1:]])
    assert "line 5: unknown class 7" in read_table(path, SUBSETS["colon"]).problems[0]


def test_a_quote_that_never_ends_is_a_problem_and_no_traceback(tmp_path):
    path = write(tmp_path, "retino")
    path.write_text('"' + path.read_text() * 1000)
    (problem,) = read_table(path, SUBSETS["retino"]).problems
    assert f"{path} is not a CSV table" in problem


def test_labels_as_floats_and_named_index(tmp_path):
    def change(rows):
        return [["Unnamed: 0", *rows[0][1:]], *([row[0], row[1], *(f"{v}.0" for v in row[2:])] for row in rows[1:])]

    assert read_table(write(tmp_path, "chest", change), SUBSETS["chest"]).rows == expected("chest")


def test_decimal_commas_beside_semicolons(tmp_path):
    def change(rows):
        return [rows[0], *([*row[:6], str(row[6]).replace(".", ","), f"{row[7]},0"] for row in rows[1:])]

    file = read_table(write(tmp_path, "neojaundice", change, separator=";"), SUBSETS["neojaundice"])
    assert file.rows == expected("neojaundice") and file.extra["0012-1"]["bilirubin"] == 12.9


def test_empty_labels_are_not_public(tmp_path):
    file = read_table(write(tmp_path, "colon", lambda rows: [rows[0], *([*row[:2], ""] for row in rows[1:])]), SUBSETS["colon"])
    assert file.problems == [] and {label for _, label in file.rows} == {None}


def test_junk_column_of_endo_is_no_class(tmp_path):
    assert read_table(write(tmp_path, "endo"), SUBSETS["endo"]).problems == []  # the tiny table has the column


def test_neojaundice_extras(tmp_path):
    def change(rows):
        rows[1][4] = ""  # two infants have no age
        return rows

    extra = read_table(write(tmp_path, "neojaundice", change), SUBSETS["neojaundice"]).extra
    assert extra["0001-1"] == {"gender": "F", "gestational_age": 40.0, "age": None, "weight": 3280.0, "bilirubin": 15.5}


def test_label_column_renamed_by_users(tmp_path):
    file = read_table(write(tmp_path, "neojaundice", lambda rows: [[*rows[0][:-1], "jaundiced"], *rows[1:]]), SUBSETS["neojaundice"])
    assert file.rows == expected("neojaundice")


@pytest.mark.parametrize("header", [["image", "grade"], ["x", "y"], ["", "label"], ["Image name", "Retinopathy grade"], None], ids=str)
def test_retino_takes_any_header_or_none(tmp_path, header):
    file = read_table(write(tmp_path, "retino", lambda rows: ([header] if header else []) + rows[1:]), SUBSETS["retino"])
    assert file.problems == [] and file.rows == expected("retino")


@pytest.mark.parametrize("extension", ["", ".jpg", ".JPG", ".jpeg"])
def test_retino_takes_any_extension(tmp_path, extension):
    file = read_table(
        write(tmp_path, "retino", lambda rows: [rows[0], *([stem(n) + extension, g] for n, g in rows[1:])]), SUBSETS["retino"]
    )
    assert file.rows == expected("retino")


def test_repeated_header_is_no_row(tmp_path):
    assert read_table(write(tmp_path, "colon", lambda rows: [*rows, rows[0]]), SUBSETS["colon"]).rows == expected("colon")


def column(name, place=0):
    """Puts a copy of the last column before the one at `place`, with another name in the header."""

    def change(rows):
        return [[*row[:place], name if number == 0 else row[-1], *row[place:]] for number, row in enumerate(rows)]

    return change


@pytest.mark.parametrize(
    ("key", "change", "columns"),
    [
        ("colon", column("tumor"), "tumor and tumor"),
        ("colon", column("Tumor "), "Tumor and tumor"),
        ("colon", column("tumor.1", 3), "tumor and tumor.1"),  # as pandas calls the second
        ("colon", column("img_id"), "img_id and img_id"),
        ("colon", column("IMG  ID"), "IMG  ID and img_id"),
        ("endo", column("polyp"), "polyp and polyp"),
        ("chest", column("Pleural Effusion"), "Pleural Effusion and pleural_effusion"),
        ("neojaundice", column("jaundiced"), "jaundiced and Treatment"),  # two that may be the label
        ("neojaundice", column("weight"), "weight and weight"),
        ("retino", column("label"), "label and grade"),
        ("retino", column("grade", 2), "grade and grade"),
    ],
)
@pytest.mark.parametrize("agree", [True, False], ids=["agree", "differ"])
def test_a_column_that_stands_twice_is_a_problem_even_if_both_agree(tmp_path, key, change, columns, agree):
    def changed(rows):
        rows = change(rows)
        twice = [place for place, name in enumerate(rows[0]) if name in columns.split(" and ")]
        for row in rows[1:]:
            row[twice[0]] = row[twice[-1]] if agree else 0
        return rows

    path = write(tmp_path, key, changed)
    file = read_table(path, SUBSETS[key])
    assert file.rows == [] and len(file.problems) == 1
    assert f"{path} has 2 columns for the same, {columns}, and nothing says which one counts; leave one" in file.problems[0]


def test_columns_without_a_name_and_ones_that_are_not_read_may_stand_twice(tmp_path):
    file = read_table(write(tmp_path, "colon", lambda rows: column("")(column("")(column("slide_id")(rows)))), SUBSETS["colon"])
    assert file.problems == [] and file.rows == expected("colon")


def test_a_name_of_letters_and_digits_is_not_rounded(tmp_path):
    """`5E0012` is an image of ChestDR where the table has no file extensions, and no power of ten."""
    names = [f"5E00123456789{number:02d}" for number in range(len(IMAGES["chest"]))]
    rows = [[row[0], name, *row[2:]] for row, name in zip(table_rows("chest")[1:], names)]
    file = read_table(write(tmp_path, "chest", lambda whole: [whole[0], *rows]), SUBSETS["chest"])
    assert file.problems == [] and file.image_ids == names


def test_a_sheet_whose_long_names_became_numbers_is_named(tmp_path):
    pytest.importorskip("openpyxl")
    rows = [["image", "grade"], [20230116125802920001, 1], [17, 2]]
    (problem,) = read_table(save_table(tmp_path, "retino", rows, "xlsx"), SUBSETS["retino"]).problems
    assert "line 2: a spreadsheet has rounded the name to 2.02301161258029E+19" in problem
    assert read_table(save_table(tmp_path, "retino", [rows[0], rows[2]], "xlsx"), SUBSETS["retino"]).rows == [("17", 2)]


def cell(row, column, value):
    def change(rows):
        rows[row][column] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("colon", cell(3, 2, "2"), "unknown class 2; expected 0 or 1"),
        ("colon", cell(3, 2, "maybe"), "unknown class maybe"),
        ("retino", cell(3, 1, "5"), "unknown class 5; expected 0 to 4"),
        ("retino", cell(3, 0, "2.02E+19"), "a spreadsheet has rounded the name"),
        ("endo", cell(2, 4, "0.5"), "line 3: unknown class"),
        ("endo", cell(2, 4, ""), "line 3: unknown class"),
        ("endo", cell(0, 5, "polyps"), "has no column polyp; expected img_id and ulcer"),
        (
            "endo",
            lambda rows: [[*row[:-1], "bleeding" if i == 0 else i % 2] for i, row in enumerate(rows)],
            "'bleeding' is no class of Endo",
        ),
        ("chest", lambda rows: [*rows[:-1], rows[-1][:7]], "7 columns instead of 21; the file seems cut off"),
        ("neojaundice", cell(4, 6, "high"), "bilirubin is 'high'; expected a number"),
        ("neojaundice", cell(4, 5, "3,280"), "weight is '3,280'; expected a number"),  # three kilograms or three grams?
        ("neojaundice", lambda rows: [[row[-1], *(row[1:-1] if i != 4 else row[1:5])] for i, row in enumerate(rows)], "line 5: 5 columns"),
        ("neojaundice", lambda rows: [*rows[:3], [*rows[3], 1]], "line 4: 9 columns instead of 8; a cell that holds the separator"),
        ("colon", lambda rows: [["<!DOCTYPE html>"]], "has not the columns of its subset"),
    ],
)
def test_wrong_tables_are_named(tmp_path, key, change, message):
    path = write(tmp_path, key, change)
    problems = read_table(path, SUBSETS[key]).problems
    assert len(problems) == 1 and message in problems[0] and str(path) in problems[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        ("img_id,Gr\xf6\xdfe\n".encode("latin-1"), "is not UTF-8 text"),
        (b"i\x00m\x00g\x00", "is not UTF-8 text"),  # UTF-16 without its mark
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, message):
    path = tmp_path / "Endo_published_4d.csv"
    path.write_bytes(content)
    for problems in (read_table(path, SUBSETS["endo"]).problems, read_list(path, SUBSETS["endo"], labelled=True).problems):
        assert len(problems) == 1 and message in problems[0]


@pytest.mark.parametrize("key", SUBSETS)
@pytest.mark.parametrize(
    "change", [str, lambda text: text.replace("\n", "\r\n"), str.rstrip, lambda text: text.replace(".png", "").replace(".jpg", "")]
)
def test_lists(tmp_path, key, change):
    path = write_list(tmp_path / "trainval.txt", key, IMAGES[key])
    path.write_bytes(change(path.read_text()).encode())
    file = read_list(path, SUBSETS[key], labelled=True)
    assert file.problems == [] and file.rows == expected(key)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_saved_with_a_byte_order_mark(tmp_path, encoding):
    path = write_list(tmp_path / "trainval.txt", "endo", IMAGES["endo"])
    path.write_text(path.read_text(), encoding=encoding)
    file = read_list(path, SUBSETS["endo"], labelled=True)
    assert file.problems == [] and file.rows == expected("endo")


def test_list_without_labels_keeps_spaces_in_names(tmp_path):
    path = write_list(tmp_path / "test_WithoutLabel.txt", "colon", [(name, None) for name, _ in IMAGES["colon"]])
    file = read_list(path, SUBSETS["colon"], labelled=False)
    assert [image_id for image_id, _ in file.rows] == [stem(name) for name, _ in IMAGES["colon"]]
    assert " " in file.rows[0][0]


@pytest.mark.parametrize(
    ("key", "line", "message"),
    [("endo", "a.png 0 1 0", "4 values of 0 or 1"), ("colon", "a.png", "a class number"), ("retino", "a 7", "unknown class 7")],
)
def test_wrong_lines_are_named(tmp_path, key, line, message):
    path = tmp_path / "trainval.txt"
    path.write_text(list_line(key, *IMAGES[key][0]) + "\n" + line + "\n")
    file = read_list(path, SUBSETS[key], labelled=True)
    assert "line 2" in file.problems[0] and message in file.problems[0]


def test_image_id_cuts_only_extensions_of_images():
    assert image_id_of(" images/1.3.12.2.1107.png ") == "1.3.12.2.1107"
    assert image_id_of("1.3.12.2.1107") == "1.3.12.2.1107"
    assert image_id_of(r"C:\data\0003-1.JPG") == "0003-1"


def test_real_tables(shared):
    """The published totals, from the tables as they come."""
    folder = shared / "grand_challenge" / "MedFMC_trainval_annotation"
    for key, path in {key: folder / SUBSETS[key].table for key in ("chest", "colon", "endo")}.items() | {
        ("neojaundice", shared / "figshare" / "NeoJaundice" / SUBSETS["neojaundice"].table)
    }:
        subset, file = SUBSETS[key], read_table(path, SUBSETS[key])
        assert file.problems == [] and len(file.rows) == len(dict(file.rows)) == subset.images
        assert len({subset.patient_id(image_id) for image_id, _ in file.rows}) == subset.patients
        labels = [index for _, label in file.rows for index in (label if subset.multilabel else [label])]
        assert tuple(labels.count(index) for index in range(len(subset.classes))) == subset.counts
