"""The model card: golden text, metadata that the Hub's own code reads, and what it says where something is missing."""

import os
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from invented_runs import invent_run, invent_runs

from medfmc_hf.evaluation.experiments import experiment_of
from medfmc_hf.evaluation.published import PUBLISHED
from medfmc_hf.model_card import model_card
from medfmc_hf.runs import RunRecord

GOLDEN = Path(__file__).parent / "golden"


def with_weights(folder: Path, name: str = "adapter_model.safetensors") -> Path:
    (folder / "adapter").mkdir()
    (folder / "adapter" / name).write_bytes(b"")
    return folder


def card(root: Path, **options) -> str:
    return model_card(experiment_of([root]), **options)


@pytest.mark.parametrize("name", ["one_run", "five_seeds"])
def test_the_card_is_the_golden_one(tmp_path, monkeypatch, name):
    """After an intended change, run with MEDFMC_WRITE_GOLDEN=1 and read the difference."""
    monkeypatch.setattr("medfmc_hf.runs.config.recipe_of", lambda method: {"method": method})  # recipes may change, the card need not
    if name == "one_run":
        options = {"method_options": {"r": 4}, "select": "best", "epochs": 5}
        with_weights(invent_run(tmp_path, subset="colon", shots=1, seed=2, method="lora", rows=90, **options))
        text = card(tmp_path)
    else:
        for folder in invent_runs(tmp_path, methods=["full"], subsets=["chest"], shots=[10], rows=800, protocol="official"):
            with_weights(folder, "trained.safetensors")
        text = card(tmp_path, repo_id="clinic/vit-full-chest", dataset_id="clinic/medfmc")
    golden = GOLDEN / f"model_card_{name}.md"
    if os.environ.get("MEDFMC_WRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def test_the_metadata_is_read_by_the_hubs_own_code(tmp_path):
    """As far as can be checked without the Hub, whose validator is behind an endpoint: it parses, and survives a round trip."""
    for seed in (0, 1):
        with_weights(invent_run(tmp_path, subset="endo", seed=seed))
    (tmp_path / "README.md").write_text(card(tmp_path, repo_id="clinic/x", dataset_id="clinic/medfmc"))
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.base_model_relation) == ("peft", "image-classification", "adapter")
    assert data.base_model == "google/vit-base-patch16-224-in21k" and data.datasets == ["clinic/medfmc"]
    scores = [RunRecord.load(path.parent).scores["test"] for path in tmp_path.rglob("run.json")]
    by_metric = {result.metric_type: result for result in data.eval_results}
    assert by_metric["mean_average_precision"].metric_value == pytest.approx(sum(score["map"] for score in scores) / 2, abs=1e-6)
    assert by_metric["roc_auc"].metric_value == pytest.approx(sum(score["auc"] for score in scores) / 2, abs=1e-6)
    assert by_metric["roc_auc"].dataset_type == "clinic/medfmc" and by_metric["roc_auc"].dataset_config == "endo-5shot"
    assert ModelCard(str(ModelCard.load(tmp_path / "README.md"))).data.to_dict() == data.to_dict()


def test_a_local_backbone_is_no_base_model(tmp_path):
    with_weights(invent_run(tmp_path / "runs", subset="endo", model=str(tmp_path / "models" / "vit")))
    text = card(tmp_path / "runs")
    assert "base_model" not in text and "`vit`, a local folder" in text
    assert 'backbone="path/to/vit"' in text


def test_a_run_without_weights_says_so(tmp_path):
    invent_run(tmp_path, subset="endo", method="linear")
    text = card(tmp_path)
    assert "There are no weights here" in text and "load_classifier" not in text


def test_an_undefined_score_is_said_and_left_out_of_the_metadata(tmp_path):
    record = RunRecord.load(invent_run(tmp_path, subset="endo", predictions=False))
    test = record.scores["test"]
    test["auc"] = test["map"] = test["score"] = test["per_class"]["tumor"]["auc"] = None
    test["undefined"] = ["tumor"]
    record.save(next(tmp_path.rglob("run.json")).parent)
    text = card(tmp_path)
    assert "model-index" not in text
    assert "| mAP | undefined |" in text and "left out of the means: tumor" in text


@pytest.mark.parametrize(("subset", "shots"), [("endo", 5), ("colon", 10), ("chest", 1)])
def test_published_numbers_stand_beside_ours(tmp_path, subset, shots):
    with_weights(invent_run(tmp_path, subset=subset, shots=shots))
    text = card(tmp_path)
    expected = [row for row in PUBLISHED if any(key[:2] == (subset, str(shots)) for key in row.values)]
    assert expected and all(f"{row.source}: {row.method}, {row.model}" in text for row in expected)


def test_subsets_without_published_numbers_have_no_such_table(tmp_path):
    invent_run(tmp_path, subset="retino")
    assert "published" not in card(tmp_path).split("## Do it again")[0].lower()
