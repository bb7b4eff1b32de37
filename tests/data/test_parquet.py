"""Rows as files: typed columns, images that are embedded and shrunk, files of a bounded size."""

import hashlib
import io
import struct
import zlib
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from trees import AT_THRESHOLD, IMAGES, figshare, listing, stem, write_images

from medfmc_hf.data import parquet
from medfmc_hf.data.audit import check_build
from medfmc_hf.data.build import build
from medfmc_hf.data.loading import fingerprint, load_splits
from medfmc_hf.data.parquet import EmbeddedImages
from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.decoding import decode
from medfmc_hf.images.grey_range import of_bits
from medfmc_hf.subsets import SUBSETS


@pytest.mark.parametrize("key", SUBSETS)
def test_columns_are_typed_and_rows_are_right(root, key, monkeypatch):
    monkeypatch.chdir(root)
    splits, subset = datasets.load_dataset("medfmc", key), SUBSETS[key]
    label = splits["train"].features[subset.label_column]
    assert (label.feature if subset.multilabel else label).names == list(subset.classes)
    assert isinstance(splits["train"].features["image"], datasets.Image)
    truth = {stem(name): row for name, row in IMAGES[key]}
    everything = [row for split in splits.values() for row in split]
    assert sorted(row["image_id"] for row in everything) == sorted(truth)
    for row in everything:
        positives = [i for i, v in enumerate(truth[row["image_id"]]) if v]
        assert row[subset.label_column] == (positives if subset.multilabel else positives[0])
        assert row["patient_id"] == subset.patient_id(row["image_id"])
        assert row["image"].size == (8, 8)
    assert (key == "colon") == ("scan_id" in splits["train"].features)
    if key == "neojaundice":
        row = next(row for row in everything if row["image_id"] == f"{AT_THRESHOLD}-2")
        extra = {name: row[name] for name in ("gender", "gestational_age", "age", "weight", "bilirubin", "site")}
        assert extra == {"gender": "F", "gestational_age": 40.0, "age": 5.2, "weight": 3280.0, "bilirubin": 12.9, "site": "face"}


def test_max_side_shrinks_large_images_once_and_leaves_small_ones(tmp_path, monkeypatch):
    figshare(tmp_path / "download", "endo", side=40)
    small = IMAGES["endo"][0][0]
    write_images(tmp_path / "download/Endo/images", [small], side=16)
    encoded, encode = [], parquet._encode
    monkeypatch.setattr(parquet, "_encode", lambda *args: encoded.append(1) or encode(*args))
    build([tmp_path / "download"], tmp_path / "medfmc", embed=True, max_side=16)
    assert len(encoded) == len(IMAGES["endo"]) - 1
    rows = load_splits(tmp_path / "medfmc", "endo")["train"]
    assert {row["image"].size for row in rows} == {(16, 16)}
    sources = {row["image"]["path"]: row["image"]["bytes"] for row in rows.cast_column("image", datasets.Image(decode=False))}
    assert sources[small] == (tmp_path / "download/Endo/images" / small).read_bytes()
    assert all(path.endswith(".jpg") for path in sources if path != small)
    assert "shrunk to at most 16 pixels" in (tmp_path / "medfmc/README.md").read_text()
    assert not (tmp_path / "medfmc" / ".spool").exists()
    with pytest.raises(MedfmcError, match="goes with --embed"):
        build([tmp_path / "download"], tmp_path / "medfmc", max_side=16)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "LA"])
def test_max_side_keeps_what_a_mode_says(tmp_path, mode):
    figshare(tmp_path / "download", "retino", side=40)
    path = tmp_path / "download/Retino/images" / IMAGES["retino"][0][0]
    level = {"I;16": 40_000, "1": 255}.get(mode, 200)
    image = Image.new("I;16", (40, 20), level) if mode == "I;16" else Image.new("L", (40, 20), level).convert(mode)
    image.save(path)
    build([tmp_path / "download"], tmp_path / "medfmc", embed=True, max_side=10)
    splits = load_splits(tmp_path / "medfmc", "retino")
    (shrunk,) = [row["image"] for split in splits.values() for row in split if row["image_id"] == path.stem]
    assert shrunk.size == (10, 5)
    value = shrunk.getpixel((5, 2))
    assert abs((value[0] if isinstance(value, tuple) else value) - level) <= 2


def test_an_image_that_only_decoding_finds_damaged_is_named(tmp_path):
    figshare(tmp_path / "download", "neojaundice", side=40)
    path = tmp_path / "download/NeoJaundice/images/0001-1.jpg"
    buffer = io.BytesIO()
    Image.new("L", (40, 40)).save(buffer, "PNG")
    png = bytearray(buffer.getvalue())
    start = png.index(b"IDAT")
    (length,) = struct.unpack(">I", png[start - 4 : start])
    png[start + 4 : start + 4 + length] = bytes(length)  # no pixels, and a checksum that says they are right
    png[start + 4 + length : start + 8 + length] = struct.pack(">I", zlib.crc32(png[start : start + 4 + length]))
    path.write_bytes(png)
    with pytest.raises(MedfmcError, match=r"0001-1\.jpg cannot be decoded"):
        build([tmp_path / "download"], tmp_path / "medfmc", embed=True, max_side=10)
    assert listing(tmp_path) == ["download"]


def test_large_splits_are_sharded_and_streamed_in_groups(root, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "SHARD_BYTES", 500)
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 200)
    built = build([root / "download"], tmp_path / "medfmc", embed=True, subsets=["endo"])
    files = built.manifest["configs"]["endo"]["test"]["files"]
    assert files[0].startswith(f"data/endo/test-00000-of-{len(files):05d}-") and len(files) > 1
    embedded, linked = load_splits(tmp_path / "medfmc", "endo"), load_splits(root / "medfmc", "endo")
    assert fingerprint(embedded, SUBSETS["endo"]) == fingerprint(linked, SUBSETS["endo"])
    assert check_build(tmp_path / "medfmc").all_mistakes == []


@pytest.mark.parametrize(
    ("sizes", "ranges"),
    [
        ([], [(0, 0)]),
        ([3, 3, 3], [(0, 3)]),
        ([5, 5, 1], [(0, 2), (2, 3)]),
        ([30, 1, 30], [(0, 1), (1, 2), (2, 3)]),  # an image that is larger than a file should be is alone in one
    ],
)
def test_rows_are_split_where_the_sum_exceeds_the_most(sizes, ranges):
    assert parquet._chunks(sizes, 10) == ranges


def test_each_image_is_embedded_under_a_bare_name_and_with_its_own_digest(root, tmp_path):
    table = pq.read_table(next((root / "medfmc/data/retino").glob("test-*.parquet")))
    images = parquet.EmbeddedImages(tmp_path, None)
    paths = parquet.linked_files(table)
    images.prepare(paths)
    assert images.with_digests(table).equals(table)  # nothing was shrunk
    parquet.write_embedded(table, tmp_path / "a.parquet", images)
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["image"]["path"] for row in rows] == [Path(path).name for path in paths]
    assert all(row["image_sha256"] == hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in rows)


def test_the_digest_of_a_shrunk_image_is_that_of_the_copy(tmp_path):
    figshare(tmp_path / "download", "retino", side=40)
    build([tmp_path / "download"], tmp_path / "medfmc", embed=True, max_side=10)
    rows = load_splits(tmp_path / "medfmc", "retino")["test"].cast_column("image", datasets.Image(decode=False))
    assert all(row["image_sha256"] == hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in rows)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_deep_images_that_are_shrunk_stay_the_right_way_up(form, tmp_path):
    values = np.zeros((40, 60), np.uint16)
    values[:5] = 4000
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / f"one.{form.lower()}"
    Image.fromarray(values).save(path, form, exif=exif)
    images = EmbeddedImages(tmp_path / "spool", 20)
    images.prepare([str(path)])
    found = decode(images.embedded(str(path)), of_bits(12))
    whole = decode({"bytes": None, "path": str(path)}, of_bits(12))
    assert whole.shape == (60, 40) and found.shape == (20, 13)
    assert found[:, -1].mean() > 200 > 50 > found[:, 0].mean(), "the bright edge is on the right"


def test_a_file_that_is_not_the_one_that_was_built_from_is_not_embedded(tmp_path):
    path = tmp_path / "one.png"
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(path)
    for max_side in (None, 20):
        images = EmbeddedImages(tmp_path / f"spool {max_side}", max_side)
        with pytest.raises(MedfmcError, match="not the image that the data set was built from"):
            images.prepare([str(path)], ["0" * 64])
            images.embedded(str(path))
