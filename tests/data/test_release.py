"""What the files say together: contradictions, gaps, damage, and NeoJaundice's two definitions."""

import dataclasses
from pathlib import Path

import pytest
from trees import (
    AT_THRESHOLD,
    FORMS,
    IMAGES,
    POOL,
    figshare,
    grand_challenge,
    save_table,
    stem,
    table_rows,
    write_images,
    write_list,
    write_table,
)

from medfmc_hf.data import lists
from medfmc_hf.data.release import match_images, read_release
from medfmc_hf.data.sources import find
from medfmc_hf.errors import MedfmcError
from medfmc_hf.subsets import SUBSETS


def read(root, key, **options):
    found = find([root])
    release = read_release(found, SUBSETS[key], **options)
    match_images(release, found)
    return release


@pytest.mark.parametrize("key", SUBSETS)
def test_a_sound_download(tmp_path, key):
    release = read(figshare(tmp_path, key), key)
    assert release.problems == [] and release.missing_images == []
    multi_hot = {stem(name): list(row) for name, row in IMAGES[key]}
    assert {image_id: row.tolist() for image_id, row in release.multi_hot().items()} == multi_hot
    assert set(release.image_paths) == set(multi_hot)


@pytest.mark.parametrize("form", FORMS)
def test_a_download_whose_table_somebody_saved_again(tmp_path, form):
    key = "neojaundice"
    whole = read(figshare(tmp_path, key), key)
    table = tmp_path / SUBSETS[key].name / SUBSETS[key].table
    table.unlink()
    save_table(table.parent, table.stem, table_rows(key), form)
    release = read(tmp_path, key)
    assert release.problems == [] and release.notes == whole.notes
    assert release.labels == whole.labels and release.extra == whole.extra and release.image_paths == whole.image_paths


@pytest.mark.parametrize("key", ["chest", "colon", "endo"])
def test_grand_challenge_says_the_same(tmp_path, key):
    one, other = read(figshare(tmp_path / "a", key), key), read(grand_challenge(tmp_path / "b", key), key)
    assert other.problems == [] and other.missing_images == []
    assert other.labels == one.labels
    private = other.lists.pop(lists.PRIVATE)
    assert len(private) == 3 and not set(private) & set(other.labels)
    assert {kind: other.lists[kind] for kind in one.lists} == one.lists
    assert len(other.image_paths) == len(one.image_paths) + 3


def test_without_the_published_table_labels_come_from_the_other_files(tmp_path):
    grand_challenge(tmp_path, "endo")
    (tmp_path / "MedFMC_trainval_annotation" / SUBSETS["endo"].table).unlink()
    (tmp_path / "MedFMC_trainval_annotation" / "endo" / "test.txt").unlink()
    release = read(tmp_path, "endo")
    assert release.problems == []
    unlabelled = [image_id for image_id, label in release.labels.items() if label is None]
    assert unlabelled == release.lists[lists.VALIDATION_PHASE]
    assert any("have no label here" in note for note in release.notes)


def test_order_of_the_validation_phase_comes_from_its_table_too(tmp_path):
    grand_challenge(tmp_path, "colon")
    order = read(tmp_path, "colon").lists[lists.VALIDATION_PHASE]
    (tmp_path / "data_backup" / "MedFMC" / "colon" / "test_WithoutLabel.txt").unlink()
    assert read(tmp_path, "colon").lists[lists.VALIDATION_PHASE] == order


def test_private_list_is_known_by_its_content(tmp_path):
    grand_challenge(tmp_path, "endo")
    (tmp_path / "MedFMC_test").rename(tmp_path / "phase 2")
    assert len(read(tmp_path, "endo").lists[lists.PRIVATE]) == 3


def test_private_list_without_its_images_is_left_out(tmp_path):
    grand_challenge(tmp_path, "endo")
    for path in (tmp_path / "MedFMC_test" / "endo" / "images").iterdir():
        path.unlink()
    release = read(tmp_path, "endo")
    assert release.missing_images == [] and lists.PRIVATE not in release.lists
    assert any("private test are not there" in note for note in release.notes)


def test_contradicting_tables_are_named_with_counts(tmp_path):
    figshare(tmp_path, "colon")
    rows = table_rows("colon")
    for row in rows[1:6]:
        row[2] = 1 - row[2]
    other = write_table(tmp_path / "MedFMC_train" / "colon" / "colon_train.csv", rows)
    (problem,) = read(tmp_path, "colon").problems
    assert "contradict each other on the label of 5 images" in problem and "and 2 more" in problem
    assert str(other) in problem and SUBSETS["colon"].table in problem and f"{stem(rows[1][1])} (0 / 1)" in problem


def test_contradicting_list_is_named(tmp_path):
    figshare(tmp_path, "endo")
    path = tmp_path / "data_backup/MedFMC/endo/endo_5-shot_train_exp3.txt"
    first = path.read_text().splitlines()[0]
    path.write_text(path.read_text().replace(first, first[:-7] + "0 0 0 0"))
    problems = read(tmp_path, "endo").problems
    assert len(problems) == 1 and "contradict each other on the label of 1 images" in problems[0] and "exp3.txt" in problems[0]


def test_lists_that_name_unpublished_images(tmp_path):
    figshare(tmp_path, "retino")
    write_list(tmp_path / "Retino" / "fewshot-pool.txt", "retino", [("nobody.png", (1, 0, 0, 0, 0)), IMAGES["retino"][0]])
    (problem,) = read(tmp_path, "retino").problems
    assert "name 1 images that no label table has, such as nobody" in problem and "fewshot-pool.txt" in problem


def test_the_first_list_that_names_an_unpublished_image_is_named(tmp_path):
    figshare(tmp_path, "retino")
    for name, strangers in (("fewshot-pool", ["a", "b"]), ("test", ["a", "c"])):
        rows = [(f"{stranger}.png", (1, 0, 0, 0, 0)) for stranger in strangers]
        write_list(tmp_path / "Retino" / f"{name}.txt", "retino", [*rows, *IMAGES["retino"]])
    (problem,) = read(tmp_path, "retino").problems
    assert "name 3 images that no label table has, such as a, b, c, first in" in problem and "fewshot-pool.txt;" in problem


def test_a_list_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    figshare(tmp_path, "colon")
    locked, read_bytes = tmp_path / "data_backup/MedFMC/colon/trainval.txt", Path.read_bytes

    def refuse(path):
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    release = read(tmp_path, "colon")
    assert release.problems == [f"{locked} cannot be read: Permission denied."] and release.official == (0, 35)


def test_a_table_that_contradicts_itself(tmp_path):
    figshare(tmp_path, "colon")
    rows = table_rows("colon")
    write_table(tmp_path / "ColonPath" / SUBSETS["colon"].table, [*rows, [*rows[1][:2], 1 - rows[1][2]]])
    assert "contradicts itself on the label of 1 images" in read(tmp_path, "colon").problems[0]


def test_a_table_cut_off_between_lines(tmp_path, monkeypatch):
    """Nothing but the number of published images tells it; the tiny subset is given that number here."""
    figshare(tmp_path, "retino")
    write_table(tmp_path / "Retino" / SUBSETS["retino"].table, table_rows("retino")[:15])
    assert any("6 images are in no table" in note for note in read(tmp_path, "retino").notes)
    monkeypatch.setitem(SUBSETS, "retino", dataclasses.replace(SUBSETS["retino"], images=20))
    (lost,) = read(tmp_path, "retino").missing_images
    assert "14 images have a label and 6 more are there" in lost and "seems to be cut off" in lost


def test_two_versions_of_a_list(tmp_path):
    figshare(tmp_path, "colon")
    write_list(tmp_path / "old" / "colon" / "trainval.txt", "colon", IMAGES["colon"][: POOL["colon"] - 2])
    (problem,) = read(tmp_path, "colon").problems
    assert "are the same list but disagree: 2 images are in one only" in problem


def test_the_same_list_in_another_order_and_with_other_line_ends_is_the_same(tmp_path):
    figshare(tmp_path, "colon")
    path = write_list(tmp_path / "a" / "colon" / "trainval.txt", "colon", IMAGES["colon"][: POOL["colon"]][::-1])
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").rstrip())
    assert read(tmp_path, "colon").problems == []


def test_missing_and_damaged_images_are_named_with_counts(tmp_path):
    figshare(tmp_path, "chest")
    names = [name for name, _ in IMAGES["chest"]]
    images = tmp_path / "ChestDR" / "images"
    for name in names[:5]:
        (images / name).unlink()
    (images / names[5]).write_bytes((images / names[5]).read_bytes()[:-9])
    release = read(tmp_path, "chest")
    assert release.problems == []
    assert (
        f"5 of 16 images are named but not there: {stem(names[0])}, " in release.missing_images[0]
        and "and 2 more" in release.missing_images[0]
    )
    assert f"1 images are damaged: {images / names[5]} is truncated" in release.missing_images[1]
    assert set(release.image_paths) == {stem(name) for name in names[6:]}


def test_a_damaged_copy_is_not_used_where_a_whole_one_is(tmp_path):
    name = IMAGES["chest"][0][0]
    figshare(tmp_path, "chest")
    write_images(tmp_path / "A" / "ChestDR", [name])
    (tmp_path / "A" / "ChestDR" / name).write_bytes(b"\x89PNG")
    release = read(tmp_path, "chest")
    assert release.missing_images == [] and release.image_paths[stem(name)] == str(tmp_path / "ChestDR" / "images" / name)


def test_images_in_no_table_are_left_out_and_said(tmp_path):
    figshare(tmp_path, "endo")
    write_images(tmp_path / "Endo" / "images", ["stranger.png"])
    release = read(tmp_path, "endo")
    assert "stranger" not in release.image_paths and any("1 images are in no table" in note for note in release.notes)


def test_images_without_any_table(tmp_path):
    figshare(tmp_path, "retino")
    (tmp_path / "Retino" / SUBSETS["retino"].table).rename(tmp_path / "Retino" / "grades.csv")
    (problem,) = read(tmp_path, "retino").problems
    assert "no labels: expected Retino_published_G5.csv" in problem and "grades.csv" in problem


def test_the_two_jaundice_definitions(tmp_path):
    figshare(tmp_path, "neojaundice")
    at = [f"{AT_THRESHOLD}-{site}" for site in (1, 2, 3)]
    pool = [(name, (0, 1) if stem(name) in at else row) for name, row in IMAGES["neojaundice"]]
    write_list(tmp_path / "NeoJaundice" / "fewshot-pool.txt", "neojaundice", pool)
    published, inclusive = read(tmp_path, "neojaundice"), read(tmp_path, "neojaundice", jaundice_threshold="inclusive")
    assert published.problems == inclusive.problems == []
    assert [published.labels[image_id] for image_id in at] == [0, 0, 0]
    assert [inclusive.labels[image_id] for image_id in at] == [1, 1, 1]
    assert {k: v for k, v in published.labels.items() if k not in at} == {k: v for k, v in inclusive.labels.items() if k not in at}
    assert inclusive.published == published.labels
    for release in (published, inclusive):
        assert any(f"3 images of 1 infants at exactly 12.9 mg/dL ({AT_THRESHOLD})" in note for note in release.notes)


def test_of_two_tables_the_first_says_what_there_is_besides_labels(tmp_path):
    figshare(tmp_path, "neojaundice")
    rows = table_rows("neojaundice")
    rows[1][5] = 3000
    write_table(tmp_path / "A" / "NeoJaundice" / SUBSETS["neojaundice"].table, rows)
    extra = read(tmp_path, "neojaundice").extra
    assert [extra[image_id]["weight"] for image_id in ("0001-1", "0001-2")] == [3000, 3280]


def test_a_jaundice_list_that_is_wrong_elsewhere_is_a_contradiction(tmp_path):
    figshare(tmp_path, "neojaundice")
    wrong = [(name, row[::-1] if name.startswith("0003") else row) for name, row in IMAGES["neojaundice"]]
    write_list(tmp_path / "NeoJaundice" / "fewshot-pool.txt", "neojaundice", wrong)
    assert "contradict each other on the label of 3 images" in read(tmp_path, "neojaundice").problems[0]


def test_jaundice_threshold_needs_values(tmp_path):
    figshare(tmp_path, "neojaundice")
    rows = table_rows("neojaundice")
    rows[1][6] = ""
    write_table(tmp_path / "NeoJaundice" / SUBSETS["neojaundice"].table, rows)
    assert "1 images have no bilirubin value" in read(tmp_path, "neojaundice", jaundice_threshold="inclusive").problems[0]
    with pytest.raises(MedfmcError, match="published or inclusive"):
        read(tmp_path, "neojaundice", jaundice_threshold="strict")


def test_real_files_agree(shared):
    """All tables and lists of all releases together: no contradiction, and the five infants at the threshold."""
    found = find([shared / "grand_challenge", shared / "openmedlab", shared / "paper_lists", shared / "figshare"])
    for key in SUBSETS:
        release = read_release(found, SUBSETS[key])
        assert release.problems == [] and len(release.labels) == SUBSETS[key].images
        assert release.official == ((37, 37) if SUBSETS[key].challenge else (2, 2))
        notes = [note for note in release.notes if "12.9" in note]
        assert len(notes) == (key == "neojaundice")
    assert "15 images of 5 infants" in read_release(found, SUBSETS["neojaundice"]).notes[0]
