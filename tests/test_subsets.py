import pytest

from medfmc_hf.errors import MedfmcError
from medfmc_hf.subsets import SUBSETS, ConfigName, config_names


def test_there_are_131_configs_and_their_names_can_be_taken_apart():
    names = [name for key in SUBSETS for name in config_names(key)]
    assert len(names) == 131 == len(set(map(str, names)))
    assert [ConfigName.parse(str(name)) for name in names] == names


def test_counts_add_up_to_the_published_images():
    assert sum(subset.images for subset in SUBSETS.values()) == 22349
    for subset in SUBSETS.values():
        assert len(subset.counts) == len(subset.classes)
        if not subset.multilabel:
            assert sum(subset.counts) == subset.images


@pytest.mark.parametrize(
    ("key", "image_id", "patient"),
    [
        ("chest", "5B91F7409CCCE2", "5B91F7409CCCE2"),
        ("colon", "2019-06-11 01_00_50-lv1-1956-12720-11095-7901p0079", "2019-06-11 01_00_50-lv1-1956-12720-11095-7901"),
        ("endo", "13333_2021.12_0005_56232354", "13333_2021.12_0005"),
        ("neojaundice", "0003-1", "0003"),
        ("retino", "20230116132533046002", "20230116132533046002"),
    ],
)
def test_patient_rules(key, image_id, patient):
    assert SUBSETS[key].patient_id(image_id) == patient


def test_the_scan_of_a_colon_patch_is_coarser_than_its_region():
    assert SUBSETS["colon"].scan_id("2019-06-11 01_00_50-lv1-1956-12720-11095-7901p0079") == "2019-06-11 01_00_50"
    assert SUBSETS["endo"].scan_id("13333_2021.12_0005_56232354") is None


def test_what_is_no_config_is_refused():
    for name, says in {
        "": "'' is not a config name",
        "lung": "no subset 'lung'",
        "Endo": "'Endo' is not a config name",
        "endo-official": "give shots and seed",
        "retino-transfer": "has no transfer lists",
        "endo-5shot": "'endo-5shot' is not a config name",
        "endo-3shot-seed0": "got shots=3",
        "endo-5shot-seed9": "seed=9",
        "endo-5shot-seed0-challenge": "challenge variant has no shots",
    }.items():
        with pytest.raises(MedfmcError, match=says):
            ConfigName.parse(name)
