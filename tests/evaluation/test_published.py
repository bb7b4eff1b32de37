import pytest

from medfmc_hf.evaluation.published import EPT, PUBLISHED, TEST_LISTS, UNKNOWN, caveat
from medfmc_hf.subsets import SUBSETS

# The averages that the paper prints beside its nine numbers, for ViT-B/16 and ViT-L/16.
EPT_AVERAGES = (33.98, 37.48, 38.49, 38.09, 37.93, 38.36, 39.05, 37.91, 38.79, 39.82,
                36.88, 39.21, 39.82, 36.64, 39.60, 39.42, 38.81, 40.04, 39.75, 40.75)  # fmt: skip


def test_the_ept_rows_average_to_what_the_paper_prints():
    averages = [sum(reference.values.values()) / 9 for reference in EPT]
    assert averages == pytest.approx(EPT_AVERAGES, abs=0.0151)


def test_every_number_is_a_percentage_of_a_known_place_with_its_source():
    for reference in PUBLISHED:
        assert reference.source and reference.where and reference.caveat and reference.values
        for (subset, shots, metric), value in reference.values.items():
            assert metric in (SUBSETS[subset].metric, "auc") and shots in ("1", "5", "10", "train_20") and 0 < value < 100


def test_a_caveat_says_whether_the_test_list_is_the_same():
    ept = EPT[0]
    assert "not comparable" in caveat(ept, "chest", 300) and "not comparable" not in caveat(ept, "chest", 3869)
    unstated = next(reference for reference in PUBLISHED if reference.test_list == UNKNOWN)
    assert caveat(unstated, "chest", 3869).startswith("Test list not stated")


@pytest.mark.parametrize(
    ("split", "test_list"),
    [
        ("MedFMC_test/{}/test_WithoutLabel.txt", "challenge private test"),
        ("../openmedlab/MedFMC/{}/test_WithLabel.txt", "test_WithLabel"),
    ],
)
def test_test_lists_are_as_long_as_the_released_ones(shared, split, test_list):
    for subset, count in TEST_LISTS[test_list].items():
        assert len((shared / "grand_challenge" / split.format(subset)).read_text().splitlines()) == count
