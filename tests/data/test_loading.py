import json
import shutil
import time

import datasets
import numpy as np
import pytest
from PIL import Image
from trees import IMAGES, POOL, figshare, stem, write_list

from medfmc_hf.data import loading
from medfmc_hf.data.build import build
from medfmc_hf.data.loading import MANIFEST, build_facts, fingerprint, load_splits, targets_of
from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.rows import image_sources
from medfmc_hf.subsets import SUBSETS, ConfigName
from medfmc_hf.training.shared import Shared

ENDO, COLON = SUBSETS["endo"], SUBSETS["colon"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("loading")
    build([figshare(root / "download", "endo", "colon")], root / "medfmc")
    return root / "medfmc"


def test_takes_a_name_or_its_parts(folder):
    one, other = load_splits(folder, "endo-5shot-seed1"), load_splits(str(folder), ConfigName("endo", 5, 1))
    assert list(one) == ["train", "validation", "test"] and fingerprint(one, ENDO) == fingerprint(other, ENDO)


@pytest.mark.parametrize("subset", [ENDO, COLON])
def test_targets(folder, subset):
    rows, truth = load_splits(folder, subset.key)["test"], {stem(name): row for name, row in IMAGES[subset.key]}
    targets, expected = targets_of(rows, subset), np.array([truth[image_id] for image_id in rows["image_id"]])
    assert targets.dtype == np.int64
    assert np.array_equal(targets, expected if subset.multilabel else expected.argmax(axis=1))
    picked = rows.select([3, 0, 3])
    assert np.array_equal(targets_of(picked, subset), targets[[3, 0, 3]])


def test_targets_of_unlabelled_rows():
    features = datasets.Features(labels=datasets.List(datasets.ClassLabel(names=list(ENDO.classes))))
    rows = datasets.Dataset.from_dict({"labels": [[0, 3], None, []]}, features=features)
    assert targets_of(rows, ENDO).tolist() == [[1, 0, 0, 1], [-1] * 4, [0] * 4]
    features = datasets.Features(label=datasets.ClassLabel(names=list(COLON.classes)))
    rows = datasets.Dataset.from_dict({"label": [1, -1, None]}, features=features)
    assert targets_of(rows, COLON).tolist() == [1, -1, -1]


def test_image_sources(folder):
    rows = load_splits(folder, "endo")["test"]
    sources = image_sources(rows)
    assert [stem(source["path"].rpartition("/")[2]) for source in sources] == rows["image_id"][:]
    assert all(source["bytes"] is None for source in sources)


def test_fingerprint_sees_names_labels_order_and_split_and_nothing_else(folder):
    splits = load_splits(folder, "colon-1shot-seed0")
    train, validation = splits["train"], splits["validation"]

    def of(**parts):
        return fingerprint(datasets.DatasetDict(parts), COLON)

    base = of(train=train, validation=validation)
    moved = train.cast_column("image", datasets.Image(decode=False)).map(lambda row: {"image": {"bytes": b"x", "path": "elsewhere"}})
    assert of(validation=validation, train=moved) == base
    order = list(range(len(train)))[::-1]
    relabelled = train.remove_columns("label").add_column("label", [1 - label for label in train["label"]])
    renamed = train.remove_columns("image_id").add_column("image_id", [f"{i}x" for i in train["image_id"]])
    others = [
        of(train=train.select(order), validation=validation), of(train=relabelled, validation=validation),
        of(train=renamed, validation=validation), of(train=validation, validation=train), of(train=train),
    ]  # fmt: skip
    assert len({base, *others}) == 6 and len(base) == 64


def test_choosing_a_config_touches_no_pixels(folder, monkeypatch):
    splits = load_splits(folder, "endo-5shot-seed0")

    def refuse(*_, **__):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(datasets.Image, "decode_example", refuse)
    load_splits(folder, "endo-5shot-seed0")
    fingerprint(splits, ENDO), targets_of(splits["test"], ENDO), image_sources(splits["test"])


def test_images_that_have_moved(tmp_path):
    build([figshare(tmp_path / "download", "endo")], tmp_path / "medfmc")
    (tmp_path / "download").rename(tmp_path / "new place")
    with pytest.raises(MedfmcError, match=rf"(?s)24 of the images that endo links to .*medfmc build NEW_PLACE --out {tmp_path}/medfmc"):
        load_splits(tmp_path / "medfmc", "endo")
    build([tmp_path / "new place"], tmp_path / "medfmc")
    assert len(load_splits(tmp_path / "medfmc", "endo")["test"])


def test_what_cannot_be_loaded(folder, tmp_path):
    with pytest.raises(MedfmcError, match=r"there is no folder .*medfmc build SOURCE"):
        load_splits(tmp_path / "absent", "endo")
    with pytest.raises(MedfmcError, match=r"is not a build: it has no medfmc_build\.json"):
        load_splits(tmp_path, "endo")
    with pytest.raises(MedfmcError, match=r"has no config retino; it has colon, .*60 few-shot configs such as colon-1shot-seed0"):
        load_splits(folder, "retino")
    with pytest.raises(MedfmcError, match="'endo-five' is not a config name"):
        load_splits(folder, "endo-five")
    with pytest.raises(MedfmcError, match="neither a folder here nor a dataset that could be loaded from the Hub"):
        load_splits("nobody/medfmc", "endo")


def test_a_build_without_few_shot_configs_says_what_it_has(tmp_path):
    figshare(tmp_path / "download", "colon", lists=False)
    write_list(tmp_path / "download" / "ColonPath" / "trainval.txt", "colon", IMAGES["colon"][: POOL["colon"]])
    build([tmp_path / "download"], tmp_path / "medfmc")
    with pytest.raises(MedfmcError, match=r"has no config colon-1shot-seed0; it has colon\.$"):
        load_splits(tmp_path / "medfmc", "colon-1shot-seed0")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 99, "configs": {}}'])
def test_a_damaged_manifest(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(MedfmcError, match="build the folder again"):
        load_splits(tmp_path, "endo")


def test_a_damaged_file_is_no_traceback(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / f"medfmc{time.time_ns()}")
    file = json.loads((copy / MANIFEST).read_text())["configs"]["endo"]["test"]["files"][0]
    (copy / file).write_bytes(b"PAR1")
    with pytest.raises(MedfmcError, match=r"cannot be loaded .*medfmc check"):
        load_splits(copy, "endo")


# --- what a build says of its images ---


def test_what_a_build_says_of_its_images_reaches_a_run(sample, sample_build, tmp_path):
    facts = build_facts(sample_build, SUBSETS["endo"])
    assert facts["invented"] and not facts["incomplete"] and facts["max_side"] is None
    real = figshare(tmp_path / "download", "endo")
    assert not build_facts(build([real], tmp_path / "real").folder, SUBSETS["endo"])["invented"]
    next((tmp_path / "download" / "Endo" / "images").glob("*.png")).unlink()
    missing = build([real], tmp_path / "missing", allow_missing=True).folder
    shrunk = build([real], tmp_path / "shrunk", allow_missing=True, embed=True, max_side=32).folder
    assert build_facts(missing, SUBSETS["endo"])["incomplete"] and build_facts(shrunk, SUBSETS["endo"])["max_side"] == 32


def test_a_build_from_before_ranges_were_recorded_reads_sixteen_bits_as_sixteen(sample_build, tiny_backbone, tmp_path):
    from medfmc_hf.images.grey_range import FULL
    from medfmc_hf.runs import RunConfig
    from medfmc_hf.training.shared import Shared

    shutil.copytree(sample_build, tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / MANIFEST).read_text())
    for entry in manifest["subsets"].values():
        del entry["grey_range"]
    (tmp_path / "old" / MANIFEST).write_text(json.dumps(manifest))
    assert "grey_range" not in build_facts(tmp_path / "old", SUBSETS["retino"])
    config = RunConfig("retino", shots=1, method="knn", model=str(tiny_backbone))
    old, new = Shared(tmp_path / "old").resolve(config), Shared(sample_build).resolve(config)
    assert old.processing.grey == FULL and new.processing.grey is None and old.id == new.id


# --- what a label means ---


def as_published(folder, out, config, cast) -> str:
    """A copy of one config as somebody else's data set, with another label column."""
    splits = datasets.load_dataset(str(folder), config)
    for split, rows in splits.items():
        (out / split).mkdir(parents=True)
        cast(rows).to_parquet(out / split / "part.parquet")
    files = "".join(f"  - split: {split}\n    path: {split}/*.parquet\n" for split in splits)
    (out / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["configs"] = {config: {split: {"files": [f"{split}/part.parquet"], "rows": len(rows)} for split, rows in splits.items()}}
    (out / MANIFEST).write_text(json.dumps(manifest))
    return str(out)


REVERSED = datasets.ClassLabel(names=list(COLON.classes)[::-1])
OTHERS = datasets.ClassLabel(names=["benign", "malign"])


@pytest.mark.parametrize(
    ("cast", "says"),
    [
        (
            lambda rows: rows.cast_column("label", REVERSED),
            "has the classes positive, negative .*expected negative, positive",
        ),
        (lambda rows: rows.cast_column("label", OTHERS), "has the classes benign, malign"),
        (lambda rows: rows.cast_column("label", datasets.Value("int64")), "does not say which classes"),
        (lambda rows: rows.rename_column("label", "target"), "has no column label"),
        (lambda rows: rows.remove_columns("patient_id"), "has no column patient_id"),
    ],
)
def test_classes_of_another_order_or_name_are_refused(folder, tmp_path, cast, says):
    data = as_published(folder, tmp_path / f"d{abs(hash(says))}", "colon-1shot-seed0", cast)  # `datasets` goes by the folder's name
    with pytest.raises(MedfmcError, match=says):
        load_splits(data, "colon-1shot-seed0")
    with pytest.raises(MedfmcError, match=says):
        Shared(data).splits(ConfigName("colon", 1, 0))


def test_classes_of_a_multi_label_subset_too(folder, tmp_path):
    order = datasets.List(datasets.ClassLabel(names=["tumor", "ulcer", "erosion", "polyp"]))
    data = as_published(folder, tmp_path / "theirs", "endo-1shot-seed0", lambda rows: rows.cast_column("labels", order))
    with pytest.raises(MedfmcError, match="expected ulcer, erosion, polyp, tumor, in this order"):
        load_splits(data, "endo-1shot-seed0")
    same = as_published(folder, tmp_path / "same", "endo-1shot-seed0", lambda rows: rows)
    assert len(load_splits(same, "endo-1shot-seed0")) == 3


# --- linked builds ---


@pytest.mark.parametrize("name", ["endo-5shot-seed0", "retino", "colon-1shot-seed3-official", "chest-challenge"])
def test_reading_a_linked_build_gives_what_load_dataset_gives(name, sample_build):
    config = ConfigName.parse(name)
    ours, theirs = loading.read_linked(sample_build, config), loading.load_splits(sample_build, config)
    subset = SUBSETS[config.subset]
    assert list(ours) == list(theirs)
    assert loading.fingerprint(ours, subset) == loading.fingerprint(theirs, subset)
    for split in ours:
        assert ours[split].features == theirs[split].features
        assert image_sources(ours[split]) == image_sources(theirs[split])
        assert ours[split][0]["image"].size == theirs[split][0]["image"].size


def test_what_is_no_linked_build_is_left_to_load_splits(sample_build, tmp_path):
    assert loading.read_linked("someone/medfmc", ConfigName("endo")) is None
    with pytest.raises(MedfmcError, match="nothing"):
        Shared(tmp_path / "nothing").splits(ConfigName("endo"))
