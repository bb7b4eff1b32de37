"""Which configs are planned, from which pool, and what is said of where they are from."""

import numpy as np
import pytest
from trees import AT_THRESHOLD, IMAGES, POOL, figshare, stem, write_list

from medfmc_hf.data.audit import check_build
from medfmc_hf.data.build import build
from medfmc_hf.data.build_plan import Plan, make_plans, rows_of
from medfmc_hf.data.loading import MANIFEST, load_splits
from medfmc_hf.data.release import match_images, read_release
from medfmc_hf.data.sources import find
from medfmc_hf.errors import MedfmcError
from medfmc_hf.subsets import SUBSETS, ConfigName


def plan_of(root, key) -> Plan:
    found = find([root])
    release = read_release(found, SUBSETS[key])
    match_images(release, found)
    (plan,) = make_plans([release], {})
    return plan


@pytest.mark.parametrize(
    ("gone", "says"), [("nothing", "the challenge's lists, exp1 to exp5"), ("*_train_exp2*", "12 of the 15 lists"), ("*shot*", "none:")]
)
def test_how_many_of_the_challenges_lists_there_are_is_said(tmp_path, gone, says):
    figshare(tmp_path, "endo")
    for path in (tmp_path / "data_backup/MedFMC/endo").glob(gone):
        path.unlink()
    plan = plan_of(tmp_path, "endo")
    assert says in plan.few_shot and plan.pool == "trainval.txt of the challenge"


def test_splits_of_the_same_images_are_one_object_with_the_right_labels(tmp_path):
    rows = rows_of(plan_of(figshare(tmp_path, "endo"), "endo"))
    base, clean = rows[ConfigName("endo")], rows[ConfigName("endo", 1, 0)]
    assert clean["test"] is base["test"] and clean["train"] is not base["train"]
    truth = {stem(name): row for name, row in IMAGES["endo"]}
    assert np.array_equal(clean["train"].targets, [truth[image_id] for image_id in clean["train"].image_ids])


def test_a_config_without_any_training_image_is_left_out(tmp_path):
    figshare(tmp_path / "download", "endo")
    for name, _ in IMAGES["endo"][: POOL["endo"]]:
        (tmp_path / "download/Endo/images" / name).unlink()
    built = build([tmp_path / "download"], tmp_path / "medfmc", allow_missing=True)
    assert list(built.manifest["configs"]) == ["endo-challenge"]
    assert check_build(tmp_path / "medfmc").all_mistakes == []


def test_a_pool_of_which_no_image_is_there_is_said(tmp_path):
    figshare(tmp_path / "download", "retino")
    write_list(tmp_path / "download/Retino/fewshot-pool.txt", "retino", IMAGES["retino"][:7])
    for name, _ in IMAGES["retino"][:7]:
        (tmp_path / "download/Retino/images" / name).unlink()
    with pytest.raises(MedfmcError, match=r"no config can be built: .*retino: none of the images of its pool is there\.$"):
        build([tmp_path / "download"], tmp_path / "medfmc", allow_missing=True)


def test_without_lists_nothing_is_invented_for_the_challenges_subsets(tmp_path):
    built = build([figshare(tmp_path / "download", "endo", "retino", lists=False)], tmp_path / "medfmc")
    assert {name.split("-")[0] for name in built.manifest["configs"]} == {"retino"}
    assert "--lists" in built.absent["endo"] and "--fetch-lists" in built.absent["endo"]
    with pytest.raises(MedfmcError, match=r"no config can be built: .*--fetch-lists"):
        build([tmp_path / "download"], tmp_path / "other", subsets=["endo"])


def test_pool_of_the_paper_is_used_where_it_is(tmp_path):
    figshare(tmp_path / "download", "retino")
    drawn = load_built_pool(tmp_path)
    pool = IMAGES["retino"][:7]
    write_list(tmp_path / "download/Retino/fewshot-pool.txt", "retino", pool)
    assert load_built_pool(tmp_path) == sorted(stem(name) for name, _ in pool) != drawn
    assert "fewshot-pool.txt of the paper" in (tmp_path / "medfmc/README.md").read_text()


def load_built_pool(tmp_path):
    build([tmp_path / "download"], tmp_path / "medfmc")
    return load_splits(tmp_path / "medfmc", "retino")["train"]["image_id"][:]


def test_jaundice_threshold_changes_labels_but_not_the_pool(tmp_path):
    figshare(tmp_path / "download", "neojaundice")
    tables = {}
    for threshold in ("published", "inclusive"):
        build([tmp_path / "download"], tmp_path / threshold, jaundice_threshold=threshold)
        splits = load_splits(tmp_path / threshold, "neojaundice")
        tables[threshold] = {name: dict(zip(split["image_id"], split["label"])) for name, split in splits.items()}
        assert f'"jaundice_threshold": "{threshold}"' in (tmp_path / threshold / MANIFEST).read_text()
    for split in ("train", "test"):
        one, other = tables["published"][split], tables["inclusive"][split]
        assert one.keys() == other.keys()
        assert all((one[i] != other[i]) == i.startswith(AT_THRESHOLD) for i in one)
    assert "at or above 12.9 mg/dL" in (tmp_path / "inclusive" / "README.md").read_text()
