"""Models on the Hub: what the repository holds, and that what is loaded back is what was pushed."""

import json
import re

import numpy as np
import pytest
import yaml
from adapted_runs import adapted_run
from hub_server import environment, python
from huggingface_hub import parse_eval_result_entries
from invented_runs import invent_run
from PIL import Image

from medfmc_hf.errors import MedfmcError
from medfmc_hf.hub.model import MARK, model_upload, push_model
from medfmc_hf.predict import load_adapted
from medfmc_hf.runs import RunRecord


@pytest.fixture(scope="module")
def runs(tmp_path_factory, backbone):
    """Two draws of LoRA below `lora`, one run of deep prompts below `vpt`."""
    root = tmp_path_factory.mktemp("runs")
    for method, seeds in {"lora": (0, 1), "vpt": (3,)}.items():
        for seed in seeds:
            adapted_run(root / method, backbone, method=method, seed=seed)
    return root


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)).save(path)
    return path


def run_of(folder, seed: int):
    return next(folder.rglob(f"*-seed{seed}-*"))


def test_several_draws_make_one_repository(runs):
    upload = model_upload([runs / "lora"], "clinic/lora-endo")
    folders = {path.partition("/")[0] for path in upload.files if path.startswith("seed")}
    assert folders == {"seed0", "seed1"}
    assert {path for path in upload.files if not path.startswith("seed")} == {"README.md", MARK}
    in_each = {"adapter_config.json", "adapter_model.safetensors", "backbone.json", "preprocessor_config.json", "run.json"}
    assert {path.removeprefix("seed1/") for path in upload.files if path.startswith("seed1/")} == in_each


def test_one_run_lies_at_the_root(runs):
    assert "adapter_model.safetensors" in model_upload([runs / "vpt"], "clinic/vpt").files


def test_no_path_of_this_machine_is_published(runs, backbone):
    files = model_upload([runs / "lora"], "clinic/lora-endo").files
    for name, file in files.items():
        content = file if isinstance(file, bytes) else file.read_bytes()
        assert str(backbone.parent).encode() not in content, name
        assert str(runs).encode() not in content, name


def test_the_backbone_may_be_named(runs):
    files = model_upload([runs / "lora"], "clinic/lora-endo", base_model="google/vit").files
    assert json.loads(files["seed0/adapter_config.json"])["base_model_name_or_path"] == "google/vit"
    assert json.loads(files["seed0/backbone.json"])["model"] == "google/vit"
    assert "base_model: google/vit" in files["README.md"].decode()


def test_eval_results_are_read_by_the_hubs_own_code(runs):
    files = model_upload([runs / "lora"], "clinic/lora-endo").files
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[MARK]))
    scores = [RunRecord.load(run_of(runs / "lora", seed)).scores["test"]["score"] for seed in (0, 1)]
    assert (entry.dataset_id, entry.task_id) == ("clinic/medfmc", "endo-5shot")
    assert entry.value == pytest.approx(100 * np.mean(scores), abs=1e-3)
    assert "seeds 0, 1" in entry.notes
    assert entry.date == "2026-01-02T12:00:00+00:00"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shots": 1}, "differ in shots: 5 and 1"),
        ({"seed": 0, "learning_rate": 0.1}, "differ in learning_rate"),
        ({}, "several runs of the same seed"),
    ],
)
def test_runs_that_are_no_draws_of_one_experiment_are_refused(tmp_path, changes, says):
    invent_run(tmp_path / "a", subset="endo", seed=1)
    invent_run(tmp_path / "b", **{"subset": "endo", "seed": 1} | changes)
    with pytest.raises(MedfmcError, match=says):
        model_upload([tmp_path], "clinic/x")


def test_runs_without_weights_or_without_success_are_refused(tmp_path):
    invent_run(tmp_path / "failed", subset="endo", status="failed")
    with pytest.raises(MedfmcError, match=r"no finished run .*failed"):
        model_upload([tmp_path / "failed"], "clinic/x")
    (invent_run(tmp_path / "linear", subset="endo", method="linear") / "adapter").mkdir()
    with pytest.raises(MedfmcError, match="method linear leaves none"):
        model_upload([tmp_path / "linear"], "clinic/x")
    with pytest.raises(MedfmcError, match="does not exist"):
        model_upload([tmp_path / "nowhere"], "clinic/x")


def test_another_experiment_does_not_replace_a_published_one(client, runs):
    push_model([runs / "lora"], "clinic/m")
    with pytest.raises(MedfmcError, match=r"another experiment \(lora on endo-5shot\)"):
        push_model([runs / "vpt"], "clinic/m")
    push_model([run_of(runs / "lora", 1)], "clinic/m")  # fewer draws of the same one
    paths = client.repos["model", "clinic/m"].files
    assert "adapter_model.safetensors" in paths and not any(path.startswith("seed") for path in paths)
    push_model([runs / "vpt"], "clinic/m", overwrite=True)
    assert b"VPT" in client.content("model", "clinic/m", "adapter_config.json")


CARD_AND_PREDICT = """
import json, sys
picture, backbone, *rest = sys.argv[1:]
from medfmc_hf.predict import load_adapted
for repo, seed, block in zip(*[iter(rest)] * 3):
    exec(block.replace("picture.png", picture).replace("path/to/backbone", backbone))
    adapted = load_adapted(repo, seed=int(seed), backbone=backbone)
    by_label = {each["label"]: each["score"] for each in classifier(picture)}
    by_pipeline, by_us = [by_label[name] for name in adapted.subset.classes], adapted.probabilities([picture])[0].tolist()
    print(json.dumps([type(classifier).__name__, by_pipeline, by_us]))
"""

BARE_PEFT = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained(sys.argv[1], num_labels=4)
model = PeftModel.from_pretrained(model, "clinic/lora", subfolder="seed1").eval()
with torch.no_grad():
    print(json.dumps(model(pixel_values=torch.zeros(1, 3, 64, 64)).logits[0].tolist()))
"""


def test_the_lines_of_the_cards_load_what_was_pushed(client, tmp_path, runs, picture, backbone):
    published, arguments = {"lora": 0, "vpt": 3}, []
    for method, seed in published.items():
        push_model([runs / method], f"clinic/{method}")
        assert len(client.repos["model", f"clinic/{method}"].commits) == 2
        card = client.content("model", f"clinic/{method}", "README.md").decode()
        arguments += [f"clinic/{method}", seed, re.search(r"## Use\n\n```python\n(.*?)```", card, re.DOTALL)[1]]
    loaded = python(CARD_AND_PREDICT, environment(client, tmp_path / "elsewhere"), picture, backbone, *arguments, cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    for (method, seed), line in zip(published.items(), loaded.stdout.splitlines(), strict=True):
        kind, by_pipeline, by_us = json.loads(line)
        expected = load_adapted(run_of(runs / method, seed)).probabilities([picture])[0]
        assert kind == "ImageClassificationPipeline"
        np.testing.assert_allclose(by_us, expected, atol=1e-6)
        np.testing.assert_allclose(by_pipeline, expected, atol=0.01)  # transformers' pixels differ by up to a grey level
        assert np.ptp(expected) > 0.01


def test_bare_peft_loads_a_draw_from_the_hub(client, tmp_path, runs, backbone):
    import torch

    push_model([runs / "lora"], "clinic/lora")
    loaded = python(BARE_PEFT, environment(client, tmp_path / "elsewhere"), backbone, cwd=tmp_path, isolated=True)
    assert loaded.returncode == 0, loaded.stderr
    model = load_adapted(run_of(runs / "lora", 1)).model
    with torch.no_grad():
        expected = model(pixel_values=torch.zeros(1, 3, 64, 64)).logits[0]
    np.testing.assert_allclose(json.loads(loaded.stdout), expected, atol=1e-5)
