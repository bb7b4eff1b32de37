"""The invented MedFMC: complete, the same everywhere, learnable, and never written over something else."""

import csv

import numpy as np
import pytest
from PIL import Image

from medfmc_hf.data import sample as sample_module
from medfmc_hf.data.audit import check_build
from medfmc_hf.data.sample import SIDE, draw, invent, make_sample
from medfmc_hf.errors import MedfmcError
from medfmc_hf.subsets import SUBSETS


@pytest.mark.parametrize("key", SUBSETS)
def test_names_follow_the_patient_rule_and_labels_the_task(key):
    subset, images = SUBSETS[key], invent(key)
    assert len({image.name for image in images}) == len(images)
    assert {image.image_id: subset.patient_id(image.image_id) for image in images} == {image.image_id: image.patient for image in images}
    labels = np.array([image.labels for image in images])
    assert labels.shape == (len(images), len(subset.classes)) and set(labels.ravel()) == {0, 1} and labels.any(axis=0).all()
    assert subset.multilabel or (labels.sum(axis=1) == 1).all()
    assert images == invent(key)


@pytest.mark.parametrize("key", SUBSETS)
def test_an_image_shows_its_class_and_is_the_same_each_time(key):
    subset, (first, *_) = SUBSETS[key], invent(key)
    image = draw(subset, first)
    assert image.size == (SIDE, SIDE) and image.mode == ("L" if key == "chest" else "RGB")
    assert image.tobytes() == draw(subset, first).tobytes()
    other = sample_module.InventedImage(first.name, first.patient, tuple(1 - label for label in first.labels))
    difference = np.asarray(image, np.int64) - np.asarray(draw(subset, other), np.int64)
    assert np.abs(difference).mean() > 5  # grey levels; the noise is the same in both


@pytest.mark.parametrize("key", SUBSETS)
def test_the_download_has_every_image_and_its_row(sample, key):
    subset, images = SUBSETS[key], invent(key)
    with (sample / subset.name / subset.table).open(newline="") as file:
        assert len(list(csv.reader(file))) == len(images) + 1
    folder = sample / subset.name / "images"
    assert {path.name for path in folder.iterdir()} == {image.name for image in images}
    with Image.open(folder / images[0].name) as image:
        assert image.size == (SIDE, SIDE)
    assert len(list((sample / "data_backup").rglob(f"{key}_*-shot_*.txt"))) == 30 * subset.challenge


def test_all_configs_can_be_built_of_it_and_the_leaks_of_the_official_lists_are_in_it(sample_build):
    report = check_build(sample_build)
    assert report.all_mistakes == [] and len(report.configs) == 131
    leaks = {audit.config.split("-")[0] for audit in report.configs for remark in audit.by_design if "share images" in remark}
    assert leaks == {"chest", "endo"}


def test_a_complete_sample_is_left_and_an_old_or_partial_one_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_module, "SUBSETS", {"retino": SUBSETS["retino"]})
    out = make_sample(tmp_path / "download")
    table = out / "Retino" / SUBSETS["retino"].table
    content = table.read_bytes()
    table.write_text("changed")
    make_sample(out)
    assert table.read_text() == "changed"
    monkeypatch.setattr(sample_module, "VERSION", sample_module.VERSION + 1)
    make_sample(out)
    assert table.read_bytes() == content


def test_another_folder_is_not_written_over(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(MedfmcError, match="is not a sample made by this command"):
        make_sample(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
