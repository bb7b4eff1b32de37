"""Adapted models at work: the pixels of training, every kind of weights, and errors that say what to do."""

import csv
import shutil

import numpy as np
import pytest
from adapted_runs import adapted_run
from PIL import Image

from medfmc_hf.errors import MedfmcError
from medfmc_hf.predict import RESEARCH_ONLY, load_adapted, load_classifier, write_csv
from medfmc_hf.quickstart import make_backbone
from medfmc_hf.runs import load_predictions


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return make_backbone(tmp_path_factory.mktemp("models") / "backbone")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name, shape in {"a.png": (90, 70, 3), "grey.png": (64, 64), "b.jpg": (40, 100, 3)}.items():
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(folder / name)
    return [folder / name for name in ("a.png", "grey.png", "b.jpg")]


@pytest.mark.parametrize(("method", "subset"), [("lora", "endo"), ("vpt", "chest"), ("pfeiffer", "colon"), ("full", "retino")])
def test_every_kind_of_weights_predicts_alone_and_in_a_pipeline(tmp_path, backbone, images, method, subset):
    folder = adapted_run(tmp_path, backbone, method=method, subset=subset)
    adapted = load_adapted(folder, device="cpu")
    probabilities = adapted.probabilities(images)
    assert probabilities.shape == (3, len(adapted.subset.classes))
    if not adapted.subset.multilabel:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(adapted.probabilities(images[1:]), probabilities[1:], atol=1e-6)

    classifier = load_classifier(folder, device="cpu")
    for answer, expected in zip(classifier([str(image) for image in images]), probabilities):
        by_label = {each["label"]: each["score"] for each in answer}
        np.testing.assert_allclose([by_label[name] for name in adapted.subset.classes], expected, atol=0.01)


def test_it_predicts_what_training_predicted(tmp_path):
    """A real run, whose model loaded again gives the probabilities that the run recorded."""
    from medfmc_hf.data.build import build
    from medfmc_hf.data.sample import make_sample
    from medfmc_hf.runs import RunConfig
    from medfmc_hf.training.one_run import train

    make_sample(tmp_path / "download")
    build([tmp_path / "download"], tmp_path / "medfmc", subsets=["retino"])
    model = make_backbone(tmp_path / "backbone")
    config = RunConfig("retino", shots=1, model=str(model), epochs=1, learning_rate=0.01)
    folder, _ = train(config, data=tmp_path / "medfmc", out=tmp_path / "runs")
    kept = load_predictions(folder)
    files = [next((tmp_path / "download" / "Retino" / "images").glob(f"{image_id}.*")) for image_id in kept.image_ids[:20]]
    np.testing.assert_allclose(load_adapted(folder, device="cpu").probabilities(files), kept.probabilities[:20], atol=1e-5)


def test_a_seed_is_chosen_among_several(tmp_path, backbone, images):
    for seed in (0, 1):
        shutil.copytree(adapted_run(tmp_path / "runs", backbone, seed=seed) / "adapter", tmp_path / "published" / f"seed{seed}")
    first, second = (load_adapted(tmp_path / "published", seed=seed).probabilities(images) for seed in (0, 1))
    np.testing.assert_array_equal(load_adapted(tmp_path / "published").probabilities(images), first)
    assert not np.allclose(first, second)
    with pytest.raises(MedfmcError, match="no seed 4; it has 0, 1"):
        load_adapted(tmp_path / "published", seed=4)


def test_a_backbone_that_moved_is_asked_for_and_checked(tmp_path, images):
    backbone = make_backbone(tmp_path / "backbone")
    folder = adapted_run(tmp_path / "runs", backbone)
    expected = load_adapted(folder).probabilities(images)
    moved = backbone.rename(tmp_path / "moved")
    with pytest.raises(MedfmcError, match=r"adapted from a local backbone, backbone.*--backbone FOLDER"):
        load_adapted(folder)
    np.testing.assert_array_equal(load_adapted(folder, backbone=moved).probabilities(images), expected)
    config = moved / "config.json"
    config.write_text(config.read_text().replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-6'))
    with pytest.raises(MedfmcError, match=r"not the backbone .* another SHA-256"):
        load_adapted(folder, backbone=moved)


def test_mistakes_are_explained(tmp_path, backbone, images):
    with pytest.raises(MedfmcError, match=r"no folder ./nowhere"):
        load_adapted("./nowhere")
    with pytest.raises(MedfmcError, match=r"holds no adapted model: no backbone\.json"):
        load_adapted(tmp_path)
    with pytest.raises(MedfmcError, match=r"HF_HUB_OFFLINE|not in the cache"):
        load_adapted("clinic/never-fetched")
    adapted = load_adapted(adapted_run(tmp_path, backbone))
    with pytest.raises(MedfmcError, match=r"missing\.png is not there"):
        adapted.probabilities([tmp_path / "missing.png"])
    (tmp_path / "note.png").write_text("no image")
    with pytest.raises(MedfmcError, match=r"note\.png is no image that Pillow can read"):
        adapted.probabilities([tmp_path / "note.png"])
    assert adapted.probabilities([]).shape == (0, 4)


def test_the_csv_says_what_it_is_for(tmp_path, backbone, images):
    adapted = load_adapted(adapted_run(tmp_path, backbone))
    probabilities = adapted.probabilities(images)
    write_csv(tmp_path / "out.csv", images, probabilities, adapted.subset)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(image) for image in images]
    assert {row["note"] for row in rows} == {RESEARCH_ONLY}
    np.testing.assert_allclose([[float(row[name]) for name in adapted.subset.classes] for row in rows], probabilities, atol=1e-6)


def test_images_of_twelve_bits_are_read_as_in_training(tmp_path, tiny_backbone):
    from medfmc_hf.data.build import build
    from medfmc_hf.data.sample import make_sample
    from medfmc_hf.runs import RunConfig
    from medfmc_hf.training.one_run import train

    make_sample(tmp_path / "deep")
    images = {path.stem: path for path in (tmp_path / "deep" / "ChestDR").rglob("*.png")}
    for path in images.values():
        Image.fromarray((np.asarray(Image.open(path).convert("L")).astype(int) * 4095 // 255).astype(np.uint16)).save(path)
    build([tmp_path / "deep"], tmp_path / "medfmc", subsets=["chest"])
    folder, record = train(
        RunConfig("chest", shots=1, method="linear", model=str(tiny_backbone)), data=tmp_path / "medfmc", out=tmp_path / "runs"
    )
    assert record.data["grey_range"]["high"] == 4095
    adapted, rows = load_adapted(folder), load_predictions(folder)
    found = adapted.probabilities([images[image_id] for image_id in rows.image_ids[:20]])
    assert np.allclose(found, rows.probabilities[:20], atol=1e-5)
    values = np.asarray(Image.open(next(iter(images.values())))).copy()
    values[0, 0] = 4096
    Image.fromarray(values).save(tmp_path / "other.png")
    with pytest.raises(MedfmcError, match="4096, and those of its data set go from 0 to 4095"):
        adapted.probabilities([tmp_path / "other.png"])
    for answer, expected in zip(load_classifier(folder)([str(images[image_id]) for image_id in rows.image_ids[:5]]), found):
        by_label = {each["label"]: each["score"] for each in answer}
        np.testing.assert_allclose([by_label[label] for label in adapted.subset.classes], expected, atol=0.01)
    with pytest.raises(MedfmcError, match="4096, and those of its data set go from 0 to 4095"):
        load_classifier(folder)(str(tmp_path / "other.png"))
    import medfmc_hf.classifiers

    with pytest.raises(MedfmcError, match="more than 8 bits"):
        medfmc_hf.classifiers.AdaptedForImageClassification.from_pretrained(str(folder / "adapter"))
    assert "more than 8 bits" in (folder / "adapter" / "README.md").read_text()


def test_a_file_that_cannot_be_read_does_not_cost_the_others(tmp_path, backbone, images):
    adapted = load_adapted(adapted_run(tmp_path, backbone))
    (tmp_path / "note.png").write_text("no image")
    mixed = [images[0], tmp_path / "note.png", images[1], tmp_path / "gone.png"]
    rows, failed = adapted.attempt(mixed)
    np.testing.assert_allclose(rows[[0, 2]], adapted.probabilities(images[:2]), atol=1e-6)
    assert np.isnan(rows[[1, 3]]).all() and sorted(failed) == [1, 3] and "gone.png is not there" in failed[3]
    with pytest.raises(MedfmcError, match=r"note\.png is no image.*1 more of the 4 images cannot be read"):
        adapted.probabilities(mixed)
    write_csv(tmp_path / "out.csv", mixed, rows, adapted.subset, failed)
    table = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["error"] == "" for row in table] == [True, False, True, False] and table[1]["ulcer"] == ""


def test_images_in_memory_are_those_on_disk(tmp_path, backbone, images):
    adapted = load_adapted(adapted_run(tmp_path, backbone))
    expected = adapted.probabilities(images[:2])
    pictures = [Image.open(image) for image in images[:2]]
    np.testing.assert_array_equal(adapted.probabilities(pictures), expected)
    np.testing.assert_array_equal(adapted.probabilities([np.asarray(each) for each in pictures]), expected)
    np.testing.assert_allclose(adapted.probabilities(str(images[0])), expected[:1], atol=1e-6)


def test_a_run_in_bfloat16_predicts_what_it_recorded(tmp_path, sample, sample_build, tiny_backbone):
    from medfmc_hf.runs import RunConfig
    from medfmc_hf.training.one_run import train

    config = RunConfig("endo", shots=1, method="knn", model=str(tiny_backbone), dtype="bfloat16")
    folder, _ = train(config, data=sample_build, out=tmp_path / "runs")
    rows, images = load_predictions(folder), {path.stem: path for path in (sample / "Endo").rglob("*.png")}
    found = load_adapted(folder, device="cpu").probabilities([images[image_id] for image_id in rows.image_ids[:40]])
    assert abs(found - rows.probabilities[:40]).max() < 0.01


@pytest.mark.parametrize("name", ["n" * 300 + ".png", "a\0b.png", "loop.png", "one.png/inner.png"])
def test_names_that_are_none_do_not_cost_the_others(name, tmp_path, backbone, images):
    adapted = load_adapted(adapted_run(tmp_path, backbone))
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "one.png").write_bytes(images[0].read_bytes())
    rows, failed = adapted.attempt([images[0], str(tmp_path / name)])
    assert list(failed) == [1] and "is empty" not in failed[1] and np.isfinite(rows[0]).all()


def test_what_is_open_and_cannot_be_read_does_not_cost_the_others(tmp_path, backbone, images):
    adapted = load_adapted(adapted_run(tmp_path, backbone))
    (tmp_path / "half.png").write_bytes(images[0].read_bytes()[:3000])
    closed = Image.open(images[1])
    closed.close()
    rows, failed = adapted.attempt([Image.open(tmp_path / "half.png"), closed, images[0]])
    assert sorted(failed) == [0, 1] and np.isfinite(rows[2]).all()
