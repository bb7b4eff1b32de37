"""Tiny MedFMC downloads for tests: a dozen images a subset, with the tables and lists that a release has."""

import csv
import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medfmc_hf.data.lists import few_shot_list
from medfmc_hf.data.splits import sample_support
from medfmc_hf.subsets import SEEDS, SHOTS, SUBSETS

# subset -> [(file name, classes as 0 and 1)]. Pool patients come first, so POOL counts their images.
IMAGES: dict[str, list[tuple[str, tuple[int, ...]]]] = {
    "chest": [(f"5E{i:04X}.1.png", tuple(int((i + j) % 7 == 0) for j in range(19))) for i in range(16)],
    "colon": [
        (f"2019-{r // 2:05d}-1-1-1_2019-05-28 23_17_50-lv1-1-{r}-3-4p{p:04d}.png", (1 - r % 2, r % 2)) for r in range(8) for p in range(2)
    ],
    "endo": [
        (f"13333_2021.01_{s:04d}_{50_000_000 + p}.png", tuple(int((s + j) % 4 < 2 and p != 2) for j in range(4)))
        for s in range(8)
        for p in range(3)
    ],
    "neojaundice": [(f"{i:04d}-{site}.jpg", (1 - i % 2, i % 2)) for i in range(1, 13) for site in (1, 2, 3)],
    "retino": [(f"2023011612580292{i:04d}.png", tuple(int(i % 5 == c) for c in range(5))) for i in range(20)],
}
POOL = {"chest": 8, "colon": 8, "endo": 12}
WITH_LABEL = {"chest": 12, "colon": 12, "endo": 18}  # images from POOL to here are test_WithLabel, the rest test_WithoutLabel
AT_THRESHOLD = "0012"  # this infant has exactly 12.9 mg/dL of bilirubin


def stem(name: str) -> str:
    return name.rpartition(".")[0]


def listing(folder: Path) -> list[str]:
    """The names in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def image_bytes(name: str, side: int = 8) -> bytes:
    """A small image that only its name determines."""
    buffer = io.BytesIO()
    pixels = np.full((side, side, 3), [len(name), sum(map(ord, name)) % 256, 128], np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG" if name.endswith("jpg") else "PNG")
    return buffer.getvalue()


def write_images(folder: Path, names: list[str], side: int = 8) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(image_bytes(name, side))


def table_rows(key: str, images: list[tuple[str, tuple[int, ...]]] | None = None) -> list[list]:
    """The published table, header first."""
    subset, images = SUBSETS[key], IMAGES[key] if images is None else images
    if key == "chest":
        return [["", "img_id", *subset.classes], *([i, name, *row] for i, (name, row) in enumerate(images, 1))]
    if key == "colon":
        return [["slide_id", "img_id", "tumor"], *([name[:-9], name, row[1]] for name, row in images)]
    if key == "endo":
        return [["", "img_id", "study_id", *subset.classes, ""], *([i, n, n[:18], *row, "junk"] for i, (n, row) in enumerate(images, 1))]
    if key == "neojaundice":
        header = ["patient_id", "image_idx", "gender", "gestational_age", "age(day)", "weight", "blood(mg/dL)", "Treatment"]
        blood = [12.9 if name.startswith(AT_THRESHOLD) else 15.5 if row[1] else 8.0 for name, row in images]
        return [header, *([n[:4], n, "F", 40, 5.2, 3280, b, row[1]] for (n, row), b in zip(images, blood))]
    return [["image", "grade"], *([name, row.index(1)] for name, row in images)]


def write_table(path: Path, rows: list[list], separator: str = ",", newline: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        csv.writer(handle, delimiter=separator, lineterminator=newline).writerows(rows)
    return path


# How people and programs save one table: a separator and an encoding, or a file that says the type of each cell.
FORMS = [
    *(f"{separator} {encoding}" for separator in (",", ";", "tab") for encoding in ("utf-8", "utf-8-sig", "utf-16-le", "utf-16-be")),
    pytest.param("xlsx", marks=pytest.mark.skipif(find_spec("openpyxl") is None, reason="openpyxl is an optional extra")),
    "parquet",
]


def save_table(folder: Path, name: str, rows: list[list], form: str) -> Path:
    """Save a table in one of `FORMS`, header first; fractions have decimal commas beside `;` and tabs."""
    folder.mkdir(parents=True, exist_ok=True)
    if form == "xlsx":
        from openpyxl import Workbook

        book = Workbook()
        for row in rows:
            book.active.append(row)
        book.save(folder / f"{name}.xlsx")
        return folder / f"{name}.xlsx"
    if form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = [list(column) for column in zip(*rows[1:])]
        typed = [pa.array(column if not any(isinstance(cell, str) for cell in column) else list(map(str, column))) for column in columns]
        pq.write_table(pa.Table.from_arrays(typed, names=[str(cell) for cell in rows[0]]), folder / f"{name}.parquet")
        return folder / f"{name}.parquet"
    separator, encoding = form.replace("tab", "\t").split(" ")
    text = io.StringIO()
    cells = [[str(cell).replace(".", ",") if separator != "," and isinstance(cell, float) else cell for cell in row] for row in rows]
    csv.writer(text, delimiter=separator).writerows(cells)
    mark = "\ufeff" if encoding.startswith("utf-16") else ""
    path = folder / f"{name}.{'tsv' if form == 'tab utf-8' else 'csv'}"
    path.write_bytes((mark + text.getvalue()).encode(encoding))
    return path


def list_line(key: str, name: str, row: tuple[int, ...] | None) -> str:
    if row is None:
        return name
    if key in ("chest", "endo"):
        return f"{name} {(',' if key == 'chest' else ' ').join(map(str, row))}"
    return f"{name} {row.index(1)}"


def write_list(path: Path, key: str, images: list[tuple[str, tuple[int, ...] | None]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(list_line(key, name, row) + "\n" for name, row in images))
    return path


def write_lists(folder: Path, key: str) -> None:
    """The challenge's lists of one subset, the leak of the multi-label validation lists included."""
    images, pool = IMAGES[key], IMAGES[key][: POOL[key]]
    write_list(folder / "trainval.txt", key, pool)
    write_list(folder / "train_20.txt", key, pool[:6])
    write_list(folder / "val_20.txt", key, pool[6:])
    write_list(folder / "test_WithLabel.txt", key, images[POOL[key] : WITH_LABEL[key]])
    write_list(folder / "test_WithoutLabel.txt", key, [(name, None) for name, _ in images[WITH_LABEL[key] :]])
    by_id = {stem(name): (name, row) for name, row in pool}
    for shots in SHOTS:
        for seed in SEEDS:
            drawn = 1 if key == "colon" else shots  # so that something is left to validate on
            support = sample_support(SUBSETS[key], list(by_id), np.array([row for _, row in pool]), drawn, seed)
            rest = [image for image_id, image in by_id.items() if key != "colon" or image_id not in support]
            few = f"{key}_{few_shot_list(shots, seed, 'train')}.txt", f"{key}_{few_shot_list(shots, seed, 'val')}.txt"
            write_list(folder / few[0], key, [by_id[image_id] for image_id in support])
            write_list(folder / few[1], key, rest[: max(1, len(pool) - len(support))])


def figshare(root: Path, *keys: str, lists: bool = True, side: int = 8) -> Path:
    """A download in figshare's layout, with the official lists as a clone of their repository has them."""
    for key in keys or SUBSETS:
        subset = SUBSETS[key]
        write_images(root / subset.name / "images", [name for name, _ in IMAGES[key]], side)
        write_table(root / subset.name / subset.table, table_rows(key))
        if lists and subset.challenge:
            write_lists(root / "data_backup" / "MedFMC" / key, key)
    return root


def grand_challenge(root: Path, *keys: str) -> Path:
    """A download in Grand Challenge's layout, private test included, with the quirks of its tables; few-shot lists beside it."""
    for key in keys or ("chest", "colon", "endo"):
        images, subset = IMAGES[key], SUBSETS[key]
        names, cut = [name for name, _ in images], WITH_LABEL[key]
        write_images(root / "MedFMC_train" / key / "images", names[:cut])
        write_images(root / "MedFMC_val" / key / "images", names[cut:])
        private = [f"14164_2022.03_0003_6103{i:04d}p{i:04d}.png" for i in range(3)]
        write_images(root / "MedFMC_test" / key / "images", private)
        (root / "MedFMC_test" / key / "test_WithoutLabel.txt").write_text("\n".join(private))  # no final newline
        width = len(table_rows(key)[0]) - len(subset.classes) if key != "colon" else 2
        rows = [row[: -1 if key == "endo" else None] for row in table_rows(key)]
        rows[0] = [cell or "Unnamed: 0" for cell in rows[0]]
        labelled = [[*row[: 3 if key == "endo" else 2], *(f"{v}.0" for v in row[3 if key == "endo" else 2 :])] for row in rows[1 : cut + 1]]
        empty = [[*row[: 3 if key == "endo" else 2], *("" for _ in row[3 if key == "endo" else 2 :])] for row in rows[cut + 1 :]]
        write_table(root / "MedFMC_train" / key / f"{key}_train.csv", [rows[0], *labelled], newline="\r\n")
        write_table(root / "MedFMC_val" / key / f"{key}_val.csv", [rows[0], *empty, *[[""] * width] * 1000], newline="\r\n")
        annotation = root / "MedFMC_trainval_annotation"
        write_table(annotation / subset.table, table_rows(key), newline="\r\n")
        write_list(annotation / key / "trainval.txt", key, images[: POOL[key]])
        write_list(annotation / key / "test.txt", key, images[POOL[key] :])
        write_lists(root / "data_backup" / "MedFMC" / key, key)
    return root
