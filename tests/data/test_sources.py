"""Every layout that a release, a repository or a user's disk has."""

import os
import shutil
from pathlib import Path

import pytest
from trees import IMAGES, figshare, grand_challenge, stem, table_rows, write_images, write_table

from medfmc_hf.data import lists
from medfmc_hf.data.sources import find
from medfmc_hf.errors import MedfmcError
from medfmc_hf.subsets import SUBSETS


def has(found, key):
    return set(found.image_paths[key]) == {stem(name) for name, _ in IMAGES[key]}


def test_figshare(tmp_path):
    found = find([figshare(tmp_path / "download")])
    for key, subset in SUBSETS.items():
        assert has(found, key)
        assert [path.name for path in found.tables[key]] == [subset.table]
    assert len(found.lists) == 3 * 35


def test_grand_challenge(tmp_path):
    found = find([grand_challenge(tmp_path)])
    for key in ("chest", "colon", "endo"):
        assert len(found.image_paths[key]) == len(IMAGES[key]) + 3
        assert sorted(path.name for path in found.tables[key]) == sorted([SUBSETS[key].table, f"{key}_train.csv", f"{key}_val.csv"])
        assert [path.parts[-3] for path in found.lists[key, lists.PRIVATE]] == ["MedFMC_test"]
        assert [path.parts[-4] for path in found.lists[key, lists.VALIDATION_PHASE]] == ["data_backup"]
        assert [path.parts[-3] for path in found.lists[key, lists.TEST]] == ["MedFMC_trainval_annotation"]


def test_folders_renamed_as_users_have_them(tmp_path):
    grand_challenge(tmp_path, "endo")
    (tmp_path / "MedFMC_val").rename(tmp_path / "MedFMC_validation")
    (tmp_path / "MedFMC_train" / "endo" / "images").rename(tmp_path / "MedFMC_train" / "endo" / "image")
    assert len(find([tmp_path]).image_paths["endo"]) == len(IMAGES["endo"]) + 3


@pytest.mark.parametrize(
    "inside", ["OpenDataLab___MedFMC/raw/NeoJaundice", "NeoJaundice/NeoJaundice", "data/MedFMC/neojaundice", "NEOJAUNDICE"]
)
def test_nested_and_raw_folders(tmp_path, inside):
    figshare(tmp_path / "a", "neojaundice")
    shutil.copytree(tmp_path / "a" / "NeoJaundice", tmp_path / "b" / inside)
    found = find([tmp_path / "b"])
    assert has(found, "neojaundice") and found.tables["neojaundice"]


def test_official_repository(tmp_path):
    """`data/MedFMC/<subset>/images` with the lists beside it, as the official code wants it."""
    write_images(tmp_path / "data" / "MedFMC" / "endo" / "images", [name for name, _ in IMAGES["endo"]])
    figshare(tmp_path / "other", "endo")
    shutil.copytree(tmp_path / "other/data_backup/MedFMC/endo", tmp_path / "data/MedFMC/endo", dirs_exist_ok=True)
    found = find([tmp_path / "data"])
    assert has(found, "endo") and len(found.lists) == 35


def test_paper_lists_are_told_from_grand_challenge_ones(tmp_path):
    for name in ("fewshot-pool.txt", "test.txt"):
        (tmp_path / "data" / "ColonPath").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "ColonPath" / name).write_text("a 0\n")
    (tmp_path / "colon").mkdir()
    (tmp_path / "colon" / "test.txt").write_text("a 0\n")
    found = find([tmp_path])
    assert set(found.lists) == {("colon", lists.PAPER_POOL), ("colon", lists.PAPER_TEST), ("colon", lists.TEST)}


def test_the_folder_itself_may_be_the_source(tmp_path):
    figshare(tmp_path, "endo", lists=False)
    assert has(find([tmp_path / "Endo"]), "endo")


def test_a_folder_of_any_name_is_known_by_its_table(tmp_path):
    write_images(tmp_path / "my xrays" / "images", [name for name, _ in IMAGES["chest"]])
    write_table(tmp_path / "my xrays" / "chestdr_published_19d (1).csv", table_rows("chest"))
    found = find([tmp_path])
    assert has(found, "chest") and len(found.tables["chest"]) == 1


def test_tables_of_other_forms_are_found_where_there_is_no_csv(tmp_path):
    """Beside a CSV they are copies that people made, which no build waits for."""
    (tmp_path / "colon").mkdir()
    for name in ("colon_train.csv", "colon_train.xlsx", "colon_val.xlsx", "colonpath_published_2.TSV", "mine.parquet"):
        (tmp_path / "colon" / name).touch()
    found = find([tmp_path])
    assert {path.name for path in found.tables["colon"]} == {"colon_train.csv", "colon_val.xlsx", "colonpath_published_2.TSV"}
    assert {path.name for path in found.unrecognised["colon"]} == {"colon_train.xlsx", "mine.parquet"}


def test_several_sources_complete_each_other_and_the_first_wins(tmp_path):
    names = [name for name, _ in IMAGES["endo"]]
    write_images(tmp_path / "one" / "endo", names[:10])
    write_images(tmp_path / "two" / "endo", names[5:])
    paths = find([tmp_path / "two", tmp_path / "one"]).image_paths["endo"]
    assert len(paths) == len(names)
    assert paths[stem(names[7])][0].startswith(str(tmp_path / "two")) and len(paths[stem(names[7])]) == 2


def test_leftovers_are_passed_over(tmp_path):
    figshare(tmp_path, "endo", lists=False)
    images = tmp_path / "Endo" / "images"
    (images / f"._{IMAGES['endo'][0][0]}").write_bytes(b"macOS")
    shutil.copytree(images, tmp_path / "__MACOSX" / "Endo" / "images")
    (tmp_path / "Endo" / "again").symlink_to(tmp_path / "Endo")
    (tmp_path / "medfmc" / "endo").mkdir(parents=True)
    (tmp_path / "medfmc" / "medfmc_build.json").write_text("{}")
    write_images(tmp_path / "medfmc" / "endo", [IMAGES["endo"][0][0]])
    found = find([tmp_path])
    assert has(found, "endo") and all(len(paths) == 1 for paths in found.image_paths["endo"].values())


def test_linked_folders_keep_the_users_names(tmp_path):
    figshare(tmp_path / "disk", "endo", lists=False)
    (tmp_path / "here").symlink_to(tmp_path / "disk")
    assert next(iter(find([tmp_path / "here"]).image_paths["endo"].values()))[0].startswith(str(tmp_path / "here"))


def test_order_of_listing_does_not_matter(tmp_path, monkeypatch):
    figshare(tmp_path, "endo")
    for folder in ("b", "a", "c"):
        write_images(tmp_path / folder / "endo", [IMAGES["endo"][0][0]])
    before, walk = find([tmp_path]), os.walk

    def in_reverse(*args, **options):
        for folder, subfolders, files in walk(*args, **options):
            subfolders.reverse()
            yield folder, subfolders, files[::-1]

    monkeypatch.setattr(os, "walk", in_reverse)
    after = find([tmp_path])
    assert list(after.image_paths["endo"].items()) == list(before.image_paths["endo"].items()) and after.lists == before.lists


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    figshare(tmp_path, "endo", lists=False)
    locked, scan = tmp_path / "Endo" / "images", os.scandir

    def refuse(path):
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MedfmcError, match=f"{locked} cannot be read: Permission denied"):
        find([tmp_path])


def test_archives_are_named_with_their_command(tmp_path):
    (tmp_path / "MedFMC_train_v2.zip").write_bytes(b"PK")
    (tmp_path / "images.tar.gz").write_bytes(b"")
    commands = find([tmp_path]).unpacking()
    assert f"unzip -q '{tmp_path}/MedFMC_train_v2.zip' -d '{tmp_path}/MedFMC_train_v2'" in commands
    assert f"tar -xf '{tmp_path}/images.tar.gz' -C '{tmp_path}/images'" in commands
    with pytest.raises(MedfmcError, match=r"is a file; expected a folder\. It is packed.*\n?.*unzip -q"):
        find([tmp_path / "MedFMC_train_v2.zip"])


def test_sources_that_cannot_be(tmp_path):
    with pytest.raises(MedfmcError, match="there is no"):
        find([tmp_path / "absent"])
    (tmp_path / "medfmc_build.json").write_text("{}")
    with pytest.raises(MedfmcError, match="is a build already"):
        find([tmp_path])
