"""Whole builds from tiny downloads, read back by stock `load_dataset`."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image, ImageFile
from trees import IMAGES, POOL, WITH_LABEL, figshare, grand_challenge, listing, stem

from medfmc_hf.data import build as build_module
from medfmc_hf.data import lists
from medfmc_hf.data.audit import check_build
from medfmc_hf.data.build import build
from medfmc_hf.data.loading import MANIFEST, fingerprint, load_splits
from medfmc_hf.errors import MedfmcError
from medfmc_hf.subsets import SUBSETS, config_names


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_config_of_every_subset_is_built(root):
    manifest = json.loads((root / "medfmc" / MANIFEST).read_text())
    names = [str(config) for key in SUBSETS for config in config_names(key)]
    assert list(manifest["configs"]) == names and len(names) == 131
    assert sorted(datasets.get_dataset_config_names(str(root / "medfmc"))) == sorted(names)
    assert check_build(root / "medfmc").all_mistakes == []


def test_stock_loading_from_the_parent_by_path_and_streaming(root, monkeypatch):
    monkeypatch.chdir(root)
    by_name = datasets.load_dataset("medfmc", "endo-5shot-seed0")
    by_path = datasets.load_dataset(str(root / "medfmc"), "endo-5shot-seed0")
    streamed = datasets.load_dataset("medfmc", "endo-5shot-seed0", streaming=True)
    for split in ("train", "validation", "test"):
        assert by_name[split]["image_id"] == by_path[split]["image_id"] == [row["image_id"] for row in streamed[split]]
        assert streamed[split].features == by_name[split].features
    assert next(iter(streamed["train"]))["image"].size == (8, 8)


def test_official_rows_are_verbatim(root):
    lines = (root / "download/data_backup/MedFMC/endo/endo_5-shot_train_exp3.txt").read_text().splitlines()
    rows = load_splits(root / "medfmc", "endo-5shot-seed2-official")["train"]
    assert rows["image_id"][:] == [stem(line.split()[0]) for line in lines] and len(set(lines)) < len(lines)


def test_splits_of_the_same_rows_share_a_file(root):
    configs = json.loads((root / "medfmc" / MANIFEST).read_text())["configs"]
    files = {tuple(splits["test"]["files"]) for name, splits in configs.items() if name.startswith("endo") and "test" in splits}
    assert sorted(file.rpartition("-")[0] for (file,) in files) == ["data/endo/official/test", "data/endo/test"]


@pytest.mark.parametrize("name", ["a[1]", "a::b"])
def test_a_path_that_datasets_cannot_load_from_is_refused(root, tmp_path, name):
    with pytest.raises(MedfmcError, match="cannot load; give another --out"):
        build([root / "download"], tmp_path / name / "medfmc")


@pytest.mark.parametrize("name", ["sp ace", "é", "a=b", "a#b%20", "[x] y"])
def test_odd_paths_of_images(tmp_path, name):
    build([figshare(tmp_path / name, "retino")], tmp_path / "medfmc")
    assert load_splits(tmp_path / "medfmc", "retino")["train"][0]["image"].size == (8, 8)


def test_the_same_input_gives_the_same_bytes(root, tmp_path):
    build([root / "download"], tmp_path / "medfmc")
    assert content(tmp_path / "medfmc") == content(root / "medfmc")


def test_a_rebuild_is_never_answered_from_an_old_cache(tmp_path):
    """`datasets` knows a local folder by its name and README.md alone; paths of the same length make files of the same size."""
    for place in ("here", "home"):
        build([figshare(tmp_path / place / "download", "retino")], tmp_path / place / "medfmc")
        for row in load_splits(tmp_path / place / "medfmc", "retino")["train"]:
            assert Path(row["image"].filename).is_relative_to(tmp_path / place)
    shutil.rmtree(tmp_path / "here" / "download")
    (tmp_path / "home" / "download").rename(tmp_path / "here" / "download")
    with pytest.raises(MedfmcError, match="not there any more"):
        load_splits(tmp_path / "home" / "medfmc", "retino")
    build([tmp_path / "here" / "download"], tmp_path / "home" / "medfmc")
    assert len(load_splits(tmp_path / "home" / "medfmc", "retino")["train"])


def test_rows_do_not_depend_on_the_release(root, tmp_path):
    build([grand_challenge(tmp_path / "download")], tmp_path / "medfmc")
    one, other = (json.loads((folder / "medfmc" / MANIFEST).read_text())["configs"] for folder in (root, tmp_path))
    assert len(other) == 99
    for name, splits in other.items():
        for split, part in splits.items():
            if not (name.endswith("challenge") and split == "test"):
                assert part["sha256"] == one[name][split]["sha256"], name


def test_challenge_config(tmp_path):
    built = build([grand_challenge(tmp_path / "download")], tmp_path / "medfmc")
    for key, unlabelled in (("colon", -1), ("endo", None)):
        splits, subset = load_splits(tmp_path / "medfmc", f"{key}-challenge"), SUBSETS[key]
        assert splits["validation"]["image_id"][:] == [stem(name) for name, _ in IMAGES[key][WITH_LABEL[key] :]]
        assert all(label is not None and label != -1 for label in splits["validation"][subset.label_column])
        assert len(splits["test"]) == 3 and list(splits["test"][subset.label_column]) == [unlabelled] * 3
        assert built.manifest["subsets"][key]["images"] == len(IMAGES[key])
        assert built.manifest["subsets"][key]["private_test_images"] == 3


def test_absent_subsets_are_said_and_skipped(tmp_path):
    built = build([figshare(tmp_path / "download", "retino")], tmp_path / "medfmc")
    assert set(built.absent) == {"chest", "colon", "endo", "neojaundice"} and len(built.manifest["configs"]) == 16
    with pytest.raises(MedfmcError, match=r"--subsets names what is not below .*endo: neither images nor labels"):
        build([tmp_path / "download"], tmp_path / "other", subsets=["retino", "endo"])


def test_nothing_recognised_says_where_it_looked(tmp_path):
    (tmp_path / "MedFMC_train_v2.zip").write_bytes(b"")
    with pytest.raises(MedfmcError) as error:
        build([tmp_path], tmp_path / "medfmc")
    assert str(tmp_path) in str(error.value) and "MedFMC_train/endo/images" in str(error.value) and "unzip -q" in str(error.value)
    assert not (tmp_path / "medfmc").exists()


def test_all_that_is_wrong_is_named_at_once_and_nothing_is_written(tmp_path):
    figshare(tmp_path / "download")
    for key, name in (("endo", "Endo"), ("retino", "Retino")):
        (tmp_path / "download" / name / "images" / IMAGES[key][0][0]).unlink()
    cut = tmp_path / "download/ChestDR/images" / IMAGES["chest"][0][0]
    cut.write_bytes(cut.read_bytes()[:-7])
    table = tmp_path / "download/ColonPath" / SUBSETS["colon"].table
    table.write_text(table.read_text().replace(",1\n", ",7\n"))
    with pytest.raises(MedfmcError) as error:
        build([tmp_path / "download"], tmp_path / "medfmc", allow_missing=False)
    message = str(error.value)
    for part in (
        "chest: 1 images are damaged",
        "endo: 1 of 24 images",
        "retino: 1 of 20",
        "colon:",
        "unknown class 7",
        "--allow-missing",
    ):
        assert part in message
    assert "... and 5 more in this file" in message
    assert listing(tmp_path) == ["download"]


def test_allow_missing_goes_on_without_and_says_so(tmp_path):
    figshare(tmp_path / "download", "endo")
    gone, cut = (tmp_path / "download/Endo/images" / IMAGES["endo"][i][0] for i in (0, POOL["endo"]))
    gone.unlink()
    cut.write_bytes(b"")
    built = build([tmp_path / "download"], tmp_path / "medfmc", allow_missing=True)
    splits = load_splits(tmp_path / "medfmc", "endo")
    assert len(splits["train"]) == POOL["endo"] - 1 and len(splits["test"]) == len(IMAGES["endo"]) - POOL["endo"] - 1
    assert "built without them: 1 of 24 images are named but not there" in (tmp_path / "medfmc/README.md").read_text()
    assert built.report.all_mistakes == []
    assert check_build(tmp_path / "medfmc").all_mistakes == []


def test_lists_from_a_folder(tmp_path):
    figshare(tmp_path / "a", "endo")
    figshare(tmp_path / "b", "endo", lists=False)
    built = build([tmp_path / "b"], tmp_path / "medfmc", lists_folder=tmp_path / "a" / "data_backup")
    assert len(built.manifest["configs"]) == 33
    assert not any("more than once" in note for note in built.manifest["subsets"]["endo"]["notes"])


def test_lists_are_fetched_for_what_lacks_them_only(tmp_path, monkeypatch):
    figshare(tmp_path / "a")
    asked = []

    def fetch(subsets, base_url):
        asked.extend(subset.key for subset in subsets)
        return tmp_path / "a" / "data_backup"

    monkeypatch.setattr(lists, "fetch_lists", fetch)
    build([figshare(tmp_path / "b", "endo", lists=False)], tmp_path / "medfmc", fetch=True)
    build([tmp_path / "b", tmp_path / "a" / "data_backup"], tmp_path / "medfmc", fetch=True)
    assert asked == ["endo"]


def test_ctrl_c_leaves_the_old_build(root, tmp_path, monkeypatch):
    shutil.copytree(root / "medfmc", tmp_path / "medfmc")
    before = content(tmp_path / "medfmc")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, "write_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build([root / "download"], tmp_path / "medfmc", subsets=["retino"])
    assert content(tmp_path / "medfmc") == before and listing(tmp_path) == ["medfmc"]


def test_embedded_builds_hold_the_same_rows_and_travel(root, tmp_path):
    shutil.copytree(root / "download", tmp_path / "download")
    build([tmp_path / "download"], tmp_path / "medfmc", embed=True)
    linked = load_splits(root / "medfmc", "endo-1shot-seed0-official")
    shutil.rmtree(tmp_path / "download")
    shutil.move(tmp_path / "medfmc", tmp_path / "moved")
    embedded = load_splits(tmp_path / "moved", "endo-1shot-seed0-official")
    assert fingerprint(embedded, SUBSETS["endo"]) == fingerprint(linked, SUBSETS["endo"])
    assert embedded["train"].features == linked["train"].features
    source = embedded["train"].cast_column("image", datasets.Image(decode=False))[0]["image"]
    original = Path(linked["train"].cast_column("image", datasets.Image(decode=False))[0]["image"]["path"])
    assert source == {"bytes": original.read_bytes(), "path": original.name}
    assert check_build(tmp_path / "moved").all_mistakes == []
    assert not any(str(tmp_path).encode() in file for file in content(tmp_path / "moved").values())  # nobody's folders are given away


def test_a_disk_that_is_too_small_is_said_before_writing(root, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(build_module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(MedfmcError, match=r"GB are needed and 0\.0 GB are free"):
        build([root / "download"], tmp_path / "medfmc", embed=True)


def test_lists_that_would_leak_test_images_are_refused(tmp_path):
    figshare(tmp_path / "download", "endo")
    folder = tmp_path / "download/data_backup/MedFMC/endo"
    with (folder / "endo_1-shot_train_exp1.txt").open("a") as file:
        file.write((folder / "test_WithLabel.txt").read_text().splitlines()[0] + "\n")
    with pytest.raises(MedfmcError, match=r"(?s)splits that are wrong.*endo-1shot-seed0-official: train and test share 1 images"):
        build([tmp_path / "download"], tmp_path / "medfmc")


def test_no_image_is_decoded(root, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    build([root / "download"], tmp_path / "medfmc")
    load_splits(tmp_path / "medfmc", "endo-5shot-seed0")
    check_build(tmp_path / "medfmc")


def test_an_embedded_build_is_not_replaced_by_one_that_lacks_its_images(tmp_path):
    source = figshare(tmp_path / "download", "endo", "colon")
    build([source], tmp_path / "medfmc", embed=True)
    before = content(tmp_path / "medfmc")
    with pytest.raises(MedfmcError, match="holds the images of colon, which this build lacks"):
        build([source], tmp_path / "medfmc", embed=True, subsets=["endo"])
    assert content(tmp_path / "medfmc") == before
    build([source], tmp_path / "linked")
    build([source], tmp_path / "linked", subsets=["endo"])  # whose images lie elsewhere


# --- more than 8 bits ---


@pytest.fixture
def twelve_bits(tmp_path):
    """The invented ChestDR with its grey values stretched to 12 bits, in 16-bit PNGs; its images."""
    from medfmc_hf.data.sample import make_sample

    make_sample(tmp_path / "deep")
    paths = sorted((tmp_path / "deep" / "ChestDR").rglob("*.png"))
    for path in paths:
        grey = np.asarray(Image.open(path).convert("L")).astype(int)
        Image.fromarray((grey * 4095 // 255).astype(np.uint16)).save(path)
    return paths


def test_twelve_bits_have_one_range_that_the_build_records(twelve_bits, tmp_path):
    built = build([tmp_path / "deep"], tmp_path / "medfmc", subsets=["chest"])
    entry = built.manifest["subsets"]["chest"]
    assert entry["grey_range"] == {"low": 0, "high": 4095, "window": False}
    assert f"{len(twelve_bits):,} images have more than 8 bits: grey values of 0 to 4095 become 0 to 255" in entry["notes"]
    chosen = build([tmp_path / "deep"], tmp_path / "window", subsets=["chest"], grey_range=(100, 3000)).manifest["subsets"]["chest"]
    assert chosen["grey_range"] == {"low": 100, "high": 3000, "window": True}
    assert chosen["images_sha256"] != entry["images_sha256"], "other pixels are another data set"


def test_one_high_value_that_flattens_all_images_stops_the_build(twelve_bits, tmp_path):
    values = np.asarray(Image.open(twelve_bits[0])).copy()
    values[0, 0] = 65535
    Image.fromarray(values).save(twelve_bits[0])
    with pytest.raises(MedfmcError, match=r"fewer than 64 of the 256 grey levels.*the highest value is 65535.*--grey-range"):
        build([tmp_path / "deep"], tmp_path / "medfmc", subsets=["chest"])
    assert build([tmp_path / "deep"], tmp_path / "medfmc", subsets=["chest"], grey_range=(0, 4095)).manifest["subsets"]["chest"]


def test_a_few_flat_images_are_named(twelve_bits, tmp_path):
    Image.fromarray((np.asarray(Image.open(twelve_bits[0])) // 128).astype(np.uint16)).save(twelve_bits[0])
    notes = build([tmp_path / "deep"], tmp_path / "medfmc", subsets=["chest"]).manifest["subsets"]["chest"]["notes"]
    assert f"1 of them use fewer than 64 of the 256 grey levels, such as {twelve_bits[0].stem}" in notes
