"""The audit: against the official lists' known leaks, on sound builds, and on builds that someone tampered with."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trees import figshare

from medfmc_hf.data.audit import Rows, audit_config, audit_configs, check_build
from medfmc_hf.data.build import build
from medfmc_hf.data.build_plan import make_plans, rows_of
from medfmc_hf.data.loading import MANIFEST
from medfmc_hf.data.release import read_release
from medfmc_hf.data.sample import make_sample
from medfmc_hf.data.sources import find
from medfmc_hf.errors import MedfmcError
from medfmc_hf.subsets import SEEDS, SHOTS, SUBSETS, ConfigName

# The 90 official few-shot lists, counted independently of this code. (subset, shots): for exp1 to exp5
SUPPORT_LINES = {
    ("chest", 1): [19] * 5, ("chest", 5): [95] * 5, ("chest", 10): [190] * 5,
    ("colon", 1): [30, 50, 48, 11, 47], ("colon", 5): [234, 206, 178, 304, 196], ("colon", 10): [512, 477, 785, 549, 714],
    ("endo", 1): [46, 31, 76, 28, 13], ("endo", 5): [174, 151, 171, 215, 128], ("endo", 10): [422, 426, 335, 356, 341],
}  # fmt: skip
SUPPORT_IMAGES = SUPPORT_LINES | {
    ("chest", 1): [19, 18, 19, 19, 19], ("chest", 5): [91, 89, 93, 88, 93], ("chest", 10): [170, 160, 170, 170, 171],
    ("endo", 1): [46, 31, 76, 24, 13], ("endo", 5): [164, 127, 167, 209, 128], ("endo", 10): [358, 366, 292, 303, 289],
}  # fmt: skip
VALIDATION = {
    ("chest", 1): [960] * 5, ("chest", 5): [884] * 5, ("chest", 10): [789] * 5,
    ("colon", 1): [2328, 2308, 2310, 2347, 2311], ("colon", 5): [2124, 2152, 2180, 2054, 2162],
    ("colon", 10): [1846, 1881, 1573, 1809, 1644],
    ("endo", 1): [883, 898, 853, 901, 916], ("endo", 5): [755, 778, 758, 714, 801], ("endo", 10): [507, 503, 594, 573, 588],
}  # fmt: skip
LEAK = {
    ("chest", 1): [19, 17, 19, 18, 19], ("chest", 5): [76, 76, 87, 82, 82], ("chest", 10): [148, 129, 139, 137, 145],
    ("colon", 1): [0] * 5, ("colon", 5): [0] * 5, ("colon", 10): [0] * 5,
    ("endo", 1): [42, 30, 71, 24, 13], ("endo", 5): [137, 106, 136, 167, 106], ("endo", 10): [173, 188, 180, 182, 167],
}  # fmt: skip


@pytest.fixture(scope="module")
def real(shared):
    """The audit of all configs made from the real tables and lists, as if every published image were there."""
    found, releases = find([shared / "grand_challenge", shared / "openmedlab", shared / "paper_lists", shared / "figshare"]), []
    for subset in SUBSETS.values():
        releases.append(read_release(found, subset))
        releases[-1].image_paths = dict.fromkeys(releases[-1].labels, "/nowhere.png")
        releases[-1].image_sha256 = dict.fromkeys(releases[-1].labels, 64 * "0")
        releases[-1].lists.pop("MedFMC_test/test_WithoutLabel", None)
    rows = {config: splits for plan in make_plans(releases, {}) for config, splits in rows_of(plan).items()}
    return {audit.config: audit for audit in audit_configs(rows).configs}


@pytest.mark.parametrize("key", ["chest", "colon", "endo"])
@pytest.mark.parametrize("shots", SHOTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_leaks_of_the_official_lists(real, key, shots, seed):
    audit = real[str(ConfigName(key, shots, seed, "official"))]
    assert audit.mistakes == []
    assert audit.splits["train"].rows == SUPPORT_LINES[key, shots][seed]
    assert audit.splits["train"].images == SUPPORT_IMAGES[key, shots][seed]
    assert audit.splits["validation"].rows == audit.splits["validation"].images == VALIDATION[key, shots][seed]
    shared_images = {overlap.splits: overlap.images for overlap in audit.overlaps}
    assert shared_images == {("train", "validation"): LEAK[key, shots][seed], ("train", "test"): 0, ("validation", "test"): 0}
    leaks = [remark for remark in audit.by_design if "share images" in remark]
    assert len(leaks) == bool(LEAK[key, shots][seed])
    clean = real[str(ConfigName(key, shots, seed))]
    assert clean.mistakes == [] and clean.splits["train"].rows == SUPPORT_IMAGES[key, shots][seed]
    assert {overlap.images for overlap in clean.overlaps} == {0}


@pytest.mark.parametrize(
    ("config", "split", "rows", "positives", "without_finding", "patients"),
    [
        ("chest", "train", 979, [255, 129, 193, 245, 163, 91, 97, 135, 135, 112, 55, 49, 34, 43, 17, 19, 12, 10, 10], 261, 979),
        ("chest", "test", 3869, [1011, 536, 705, 1055, 595, 338, 435, 510, 477, 385, 250, 235, 125, 156, 87, 67, 41, 13, 24], 987, 3869),
        ("chest-1shot-seed0-official", "test", 1161,
         [428, 199, 273, 271, 224, 161, 212, 141, 151, 157, 124, 136, 44, 93, 35, 20, 13, 4, 12],
         162, 1161),
        ("chest-challenge", "validation", 2708, [583, 337, 432, 784, 371, 177, 223, 369, 326, 228, 126, 99, 81, 63, 52, 47, 28, 9, 12],
         825, 2708),
        ("colon", "train", 2358, [1471, 887], None, 79),
        ("colon", "test", 7651, [5023, 2628], None, 317),
        ("colon-transfer", "train", 1677, [919, 758], None, 63),
        ("colon-transfer", "validation", 681, [552, 129], None, 16),
        ("colon-1shot-seed0-official", "test", 3296, [2296, 1000], None, 308),
        ("colon-challenge", "validation", 4355, [2727, 1628], None, 313),
        ("endo", "train", 929, [220, 250, 153, 108], 400, 23),
        ("endo", "test", 2936, [570, 701, 237, 28], 1692, 57),
        ("endo-transfer", "train", 743, [185, 202, 124, 87], None, 23),
        ("endo-transfer", "validation", 186, [35, 48, 29, 21], None, 22),
        ("endo-1shot-seed0-official", "test", 881, [196, 222, 69, 0], 482, 17),
        ("endo-challenge", "validation", 2055, [374, 479, 168, 28], 1210, 41),
        ("neojaundice", "train", 444, None, None, 148),
        ("neojaundice", "test", 1791, None, None, 597),
        ("retino", "train", 282, [22, 10, 96, 101, 53], None, 282),
        ("retino", "test", 1110, [90, 20, 384, 404, 212], None, 1110),
    ],
)  # fmt: skip
def test_published_splits(real, config, split, rows, positives, without_finding, patients):
    counted = real[config].splits[split]
    assert (counted.rows, counted.patients) == (rows, patients)
    assert positives is None or counted.positives == positives
    assert without_finding is None or counted.without_finding == without_finding


def test_scans_and_studies_that_the_official_lists_share(real):
    def overlaps(config):
        return {overlap.splits: overlap for overlap in real[config].overlaps}

    assert overlaps("colon")["train", "test"].scans == 50 and overlaps("colon")["train", "test"].patients == 0
    assert overlaps("colon-transfer")["train", "validation"].scans == 3
    assert overlaps("endo-transfer")["train", "validation"].patients == 22
    assert real["endo-1shot-seed0-official"].by_design[0] == "test has no image of tumor"
    assert all(audit.mistakes == [] for audit in real.values()) and len(real) == 131


def rows_like(key, *names):
    return Rows(SUBSETS[key], list(names), np.zeros((len(names), 4) if key == "endo" else len(names), np.int64))


A, B, C = "13333_2021.01_0001_1", "13333_2021.01_0001_2", "13333_2021.01_0002_1"


@pytest.mark.parametrize(
    ("config", "splits", "mistakes"),
    [
        (ConfigName("endo", 1, 0), {"train": [A], "test": [A]}, ["train and test share 1 images", "train and test share 1 studies"]),
        (ConfigName("endo", 1, 0), {"train": [A], "test": [B]}, ["train and test share 1 studies"]),
        (ConfigName("endo", 1, 0), {"validation": [A], "test": [B]}, ["validation and test share 1 studies"]),
        (ConfigName("endo", 1, 0), {"train": [A], "validation": [B]}, []),
        (ConfigName("endo", 1, 0), {"train": [A, A], "test": [C]}, ["train repeats 1 rows"]),
        (ConfigName("endo", 1, 0, "official"), {"train": [A, A], "validation": [A], "test": [C]}, []),
        (
            ConfigName("endo", 1, 0, "official"),
            {"train": [A], "test": [A, C]},
            ["train and test share 1 images", "train and test share 1 studies"],
        ),
        (ConfigName("neojaundice", 1, 0), {"train": ["0001-1"], "validation": ["0001-2"]}, ["train and validation share 1 infants"]),
        (ConfigName("colon", 1, 0), {"train": ["a-lv1-1p0001"], "validation": ["a-lv1-2p0001"]}, []),
        (ConfigName("colon", 1, 0), {"train": ["a-lv1-1p0001"], "validation": ["a-lv1-1p0002"]}, ["train and validation share 1 regions"]),
        (ConfigName("retino", 1, 0), {"train": ["a"], "validation": ["a"]}, ["train and validation share 1 images"]),
    ],
)
def test_what_is_a_mistake(config, splits, mistakes):
    audit = audit_config(config, {name: rows_like(config.subset, *image_ids) for name, image_ids in splits.items()})
    assert audit.mistakes == mistakes


def test_unlabelled_rows_belong_to_the_challenge_only():
    rows = Rows(SUBSETS["endo"], [A], np.full((1, 4), -1))
    assert audit_config(ConfigName("endo"), {"test": rows}).mistakes == ["test has 1 rows without a label"]
    audit = audit_config(ConfigName("endo", variant="challenge"), {"test": rows})
    assert audit.mistakes == [] and audit.splits["test"].unlabelled == 1 and audit.splits["test"].without_finding == 0


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound")
    build([figshare(root / "download", "endo", "retino")], root / "medfmc")
    return root / "medfmc"


@pytest.fixture
def folder(sound, tmp_path):
    """A copy of a sound build to tamper with."""
    return shutil.copytree(sound, tmp_path / "medfmc")


def test_a_sound_build_has_no_mistake(folder):
    report = check_build(folder)
    assert report.all_mistakes == [] and len(report.configs) == 33 + 16
    assert report.to_dict()["sound"] and json.dumps(report.to_dict())


def file_of(folder, config, split):
    return folder / json.loads((folder / MANIFEST).read_text())["configs"][config][split]["files"][0]


def rewrite(file, change):
    pq.write_table(change(pq.read_table(file)), file)


def test_a_test_row_moved_into_train(folder):
    test = pq.read_table(file_of(folder, "endo", "test"))
    rewrite(file_of(folder, "endo-1shot-seed0", "train"), lambda table: pa.concat_tables([table, test.slice(0, 1)]))
    mistakes = check_build(folder).all_mistakes
    assert "endo-1shot-seed0, train: its rows are not those that were built" in mistakes
    assert "endo-1shot-seed0: train and test share 1 images" in mistakes
    assert "endo-1shot-seed0: train and validation together are not the pool, the train split of endo" in mistakes


@pytest.mark.parametrize("config", ["endo-5shot-seed0", "retino-5shot-seed0"])
def test_a_split_that_has_lost_all_its_rows(folder, config):
    rewrite(file_of(folder, config, "train"), lambda table: table.slice(0, 0))
    assert f"{config}, train: its rows are not those that were built" in check_build(folder).all_mistakes


def test_a_changed_label(folder):
    def change(table):
        label = table.schema.field("label")
        return table.set_column(table.schema.get_field_index("label"), label, pa.array([0] * table.num_rows, label.type))

    rewrite(file_of(folder, "retino-1shot-seed1", "validation"), change)
    assert any("labels differ from those in other configs" in mistake for mistake in check_build(folder).all_mistakes)


def test_a_changed_patient(folder):
    def change(table):
        return table.set_column(
            table.schema.get_field_index("patient_id"), table.schema.field("patient_id"), pa.array(["x"] * table.num_rows)
        )

    rewrite(file_of(folder, "endo", "test"), change)
    assert any("patient ids are wrong, such as that of 13333" in mistake for mistake in check_build(folder).all_mistakes)


def test_lost_features(folder):
    rewrite(file_of(folder, "endo", "test"), lambda table: table.replace_schema_metadata(None))
    assert any("has lost its Hugging Face features" in mistake for mistake in check_build(folder).all_mistakes)


def test_a_card_that_points_elsewhere(folder):
    card = folder / "README.md"
    train, test = (
        file_of(folder, config, split).relative_to(folder) for config, split in (("retino-1shot-seed0", "train"), ("retino", "test"))
    )
    card.write_text(card.read_text().replace(f"path: {train}", f"path: {test}"))
    mistakes = check_build(folder).all_mistakes
    assert "retino-1shot-seed0, train: its rows are not those that were built" in mistakes
    assert any(mistake.startswith("retino-1shot-seed0: train and test share") for mistake in mistakes)


def test_a_card_that_lacks_a_config(folder):
    card = folder / "README.md"
    card.write_text(card.read_text().replace("config_name: endo-transfer\n  data_files", "config_name: endo-challenge\n  data_files", 1))
    assert "endo-transfer was built but README.md does not name it" in check_build(folder).all_mistakes


def test_missing_and_cut_files(folder):
    file_of(folder, "endo", "test").unlink()
    cut = file_of(folder, "retino", "test")
    cut.write_bytes(cut.read_bytes()[:100])
    mistakes = check_build(folder).all_mistakes
    for key in ("endo", "retino"):
        name = file_of(folder, key, "test").name
        assert any(f"{name} cannot be read" in mistake for mistake in mistakes)


def test_images_that_are_gone(tmp_path):
    folder = tmp_path / "medfmc"
    build([figshare(tmp_path / "download", "retino")], folder)
    next((tmp_path / "download/Retino/images").iterdir()).unlink()
    assert any("1 linked images are not there any more" in mistake for mistake in check_build(folder).all_mistakes)


@pytest.mark.parametrize("content", ["", "no head", "---\n[\n---\n", "---\nconfigs: 3\n---\n"])
def test_a_card_that_cannot_be_read(folder, content):
    (folder / "README.md").write_text(content)
    with pytest.raises(MedfmcError, match="has no readable list of configs"):
        check_build(folder)


def test_what_is_no_build(tmp_path):
    with pytest.raises(MedfmcError, match="there is no folder"):
        check_build(tmp_path / "absent")
    with pytest.raises(MedfmcError, match="is not a build"):
        check_build(tmp_path)


@pytest.mark.parametrize("embed", [False, True])
def test_images_that_were_replaced_are_found_by_their_digests(embed, tmp_path):
    make_sample(tmp_path / "download")
    folder = build([tmp_path / "download"], tmp_path / "medfmc", subsets=["retino"], embed=embed).folder
    assert check_build(folder, images=True).all_mistakes == []
    if embed:
        file = next(path for path in sorted((folder / "data").rglob("test*.parquet")))
        table = pq.read_table(file)
        column = table["image"].to_pylist()
        column[0] = column[0] | {"bytes": column[1]["bytes"]}
        pq.write_table(table.set_column(table.schema.get_field_index("image"), table.schema.field("image"), [column]), file)
    else:
        one, other = sorted((tmp_path / "download" / "Retino").rglob("*.png"))[:2]
        one.write_bytes(other.read_bytes())
    assert check_build(folder).all_mistakes == []
    (mistake,) = check_build(folder, images=True).all_mistakes
    assert "1 images are not those that the data set was built from" in mistake
