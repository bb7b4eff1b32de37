"""The README.md of a build, as the Hub and a reader see it."""

import json

import pytest
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard

from medfmc_hf.data import parquet
from medfmc_hf.data.audit import Report, check_build
from medfmc_hf.data.dataset_card import dataset_card, example_config
from medfmc_hf.data.loading import MANIFEST, read_manifest
from medfmc_hf.subsets import SUBSETS


def test_card_as_the_hub_reads_it(root):
    """Every config has its files, its columns and its row counts in the YAML head."""
    head = DatasetCard.load(root / "medfmc/README.md").data
    infos, manifest = DatasetInfosDict.from_dataset_card_data(head), json.loads((root / "medfmc" / MANIFEST).read_text())
    assert list(infos) == [entry["config_name"] for entry in head.configs] == list(manifest["configs"])
    for name, splits in manifest["configs"].items():
        assert infos[name].features == parquet.features_of(SUBSETS[name.split("-")[0]])
        assert {split: info.num_examples for split, info in infos[name].splits.items()} == {s: part["rows"] for s, part in splits.items()}


def test_card(root):
    card = (root / "medfmc/README.md").read_text()
    for part in (
        "## Licence",
        "CC BY-SA 4.0",
        "CC0 1.0",
        "## Citation",
        "wang2023real",
        "medfmc-sampler-1",
        "| `endo-5shot-seed0` |",
        "0 / 35",
    ):
        assert part in card


def test_a_published_card_says_where_it_is_and_what_is_absent(root):
    manifest, report = read_manifest(root / "medfmc"), check_build(root / "medfmc")
    folder = dataset_card(manifest, report, {})
    assert 'load_dataset("medfmc", "endo-5shot-seed0")' in folder and "Not in this build" not in folder
    hub = dataset_card(manifest, report, {"chest": "no image"}, "clinic/medfmc")
    assert 'load_dataset("clinic/medfmc", "endo-5shot-seed0")' in hub and 'evaluate.load("clinic/medfm_score", "endo")' in hub
    assert "Not in this build: chest (no image)." in hub and "REPO" not in hub and "ORGANISATION" not in hub


def test_the_audit_of_what_is_not_pushed_is_taken_from_the_earlier_card(root):
    manifest, report = read_manifest(root / "medfmc"), check_build(root / "medfmc")
    whole = dataset_card(manifest, report, {})
    without = Report([audit for audit in report.configs if not audit.config.startswith("colon")])
    assert dataset_card(manifest, without, {}, earlier=whole) == whole
    assert "### colon\n\nNot known here; it was published before." in dataset_card(manifest, without, {})


@pytest.mark.parametrize(
    ("names", "example"),
    [
        (["colon-5shot-seed0", "endo", "endo-5shot-seed0"], "endo-5shot-seed0"),
        (["retino", "retino-1shot-seed0", "retino-5shot-seed0"], "retino-5shot-seed0"),
        (["colon", "colon-transfer"], "colon"),
    ],
)
def test_the_example_is_endo_with_five_shots_where_there_is_one(names, example):
    assert example_config({"configs": dict.fromkeys(names)}) == example


@pytest.mark.parametrize(("images", "size"), [(999, "n<1K"), (1_000, "1K<n<10K"), (9_999, "1K<n<10K"), (10_000, "10K<n<100K")])
def test_the_size_that_the_hub_searches_by(root, images, size):
    manifest = read_manifest(root / "medfmc")
    manifest["subsets"] = {"colon": manifest["subsets"]["colon"] | {"images": images}}
    manifest["configs"] = {"colon": manifest["configs"]["colon"]}
    assert f"size_categories:\n- {size}\n" in dataset_card(manifest, Report([]), {})
