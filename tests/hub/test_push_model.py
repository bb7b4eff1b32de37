"""Models on the Hub: what the repository holds, and that they load back as they were pushed."""

import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from adapted_runs import adapted_run
from hub_server import Fault, environment, python
from huggingface_hub import parse_eval_result_entries
from invented_runs import invent_run
from PIL import Image

from medfmc_hf.errors import MedfmcError
from medfmc_hf.hub.push_model import RESULTS, ModelPush
from medfmc_hf.predict import load_adapted
from medfmc_hf.runs import RunRecord


@pytest.fixture(scope="module")
def runs(tmp_path_factory, backbone):
    """Five seeds of LoRA below `five`, two of these below `lora`, one run of deep prompts below `vpt`."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(5):
        adapted_run(root / "five", backbone, seed=seed)
    for method, seeds in {"lora": (0, 1), "vpt": (3,)}.items():
        for seed in seeds:
            adapted_run(root / method, backbone, method=method, seed=seed)
    return root


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)).save(path)
    return path


def run_of(folder, seed: int):
    return next(folder.rglob(f"*-seed{seed}-*"))


def test_several_seeds_make_one_repository(runs):
    upload = ModelPush([runs / "lora"], "clinic/lora-endo").preview(offline=True)
    folders = {path.partition("/")[0] for path in upload.files if path.startswith("seed")}
    assert folders == {"seed0", "seed1"}
    assert {path for path in upload.files if not path.startswith("seed")} == {"README.md"}
    in_each = {"adapter_config.json", "adapter_model.safetensors", "backbone.json", "preprocessor_config.json", "run.json"}
    assert {path.removeprefix("seed1/") for path in upload.files if path.startswith("seed1/")} == in_each


def test_one_run_is_at_the_root(runs):
    assert "adapter_model.safetensors" in ModelPush([runs / "vpt"], "clinic/vpt").preview(offline=True).files


def test_a_downloaded_run_can_be_published_again(runs, tmp_path):
    """A published run has its record in the same folder, which is not one of its listed files."""
    for name, file in ModelPush([runs / "vpt"], "clinic/vpt").preview(offline=True).files.items():
        content = file if isinstance(file, bytes) else file.read_bytes()
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_bytes(content)
    again = ModelPush([tmp_path / "home"], "clinic/copy").preview(offline=True).files["run.json"]
    (tmp_path / "home" / "run.json").write_bytes(again)
    assert again == ModelPush([tmp_path / "home"], "clinic/copy").preview(offline=True).files["run.json"]


def test_no_path_of_this_machine_is_published(runs, backbone):
    files = ModelPush([runs / "lora"], "clinic/lora-endo").preview(offline=True).files
    assert "README.md" in files and len(files) > 5
    for name, file in files.items():
        content = file if isinstance(file, bytes) else file.read_bytes()
        assert str(backbone.parent).encode() not in content, name
        assert str(runs).encode() not in content, name


def test_the_backbone_may_be_named_if_it_is_the_same(cache, runs, backbone):
    repo = cache.add_repo("model", "google/vit", {path.name: path.read_bytes() for path in backbone.iterdir()}, private=False)
    ModelPush([runs / "lora"], "clinic/lora", base_model="google/vit")()
    for name in ("adapter_config.json", "backbone.json", "run.json"):
        content = cache.content("model", "clinic/lora", f"seed0/{name}").decode()
        assert "google/vit" in content and repo.sha in content, name
    assert b"base_model: google/vit" in cache.content("model", "clinic/lora", "README.md")


def test_the_same_weights_in_another_format_are_the_same_backbone(cache, runs, backbone):
    from safetensors.torch import load_file

    files = {path.name: path.read_bytes() for path in backbone.iterdir()}
    buffer = io.BytesIO()
    torch.save(load_file(backbone / "model.safetensors"), buffer)
    del files["model.safetensors"]
    cache.add_repo("model", "google/vit", files | {"pytorch_model.bin": buffer.getvalue()}, private=False)
    ModelPush([runs / "lora"], "clinic/lora", base_model="google/vit")()


def test_another_backbone_is_not_named(cache, runs, backbone):
    from safetensors.torch import load, save

    files = {path.name: path.read_bytes() for path in backbone.iterdir()}
    weights = load(files["model.safetensors"])
    name = sorted(weights)[3]
    weights[name] = weights[name] + 1e-3
    cache.add_repo("model", "google/vit", files | {"model.safetensors": save(weights, metadata={"format": "pt"})}, private=False)
    with pytest.raises(MedfmcError, match="is not the backbone that was adapted"):
        ModelPush([runs / "lora"], "clinic/lora", base_model="google/vit")()
    config = json.loads(files["config.json"]) | {"layer_norm_eps": 1e-3}
    cache.add_repo("model", "google/vit2", files | {"config.json": json.dumps(config).encode()}, private=False)
    with pytest.raises(MedfmcError, match="is not the backbone that was adapted"):
        ModelPush([runs / "lora"], "clinic/lora", base_model="google/vit2")()
    assert ("model", "clinic/lora") not in cache.repos


def test_a_folder_of_that_name_is_not_the_backbone_on_the_hub(cache, runs, backbone, tmp_path, monkeypatch, image):
    """Neither in a push, nor when the model is loaded."""
    (tmp_path / "google").mkdir()
    shutil.copytree(backbone, tmp_path / "google" / "vit")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedfmcError, match="there is no google/vit on the Hub"):
        ModelPush([runs / "lora"], "clinic/lora", base_model="google/vit")()
    repo = cache.add_repo("model", "google/vit", {path.name: path.read_bytes() for path in backbone.iterdir()}, private=False)
    ModelPush([runs / "lora"], "clinic/lora", base_model="google/vit")()
    for path in cache.repos["model", "clinic/lora"].files:
        assert str(tmp_path).encode() not in cache.content("model", "clinic/lora", path), path
    assert repo.sha.encode() in cache.content("model", "clinic/lora", "seed0/backbone.json")
    (tmp_path / "google" / "vit" / "model.safetensors").write_bytes(b"another one")
    expected = load_adapted(run_of(runs / "lora", 1)).probabilities([image])
    np.testing.assert_array_equal(load_adapted("clinic/lora", seed=1).probabilities([image]), expected)


@pytest.mark.parametrize("answer", [429, 503, "cut", "portal"])
def test_a_hub_that_does_not_answer_and_what_the_cache_holds(cache, runs, backbone, image, answer):
    ModelPush([runs / "lora"], "clinic/m")()
    expected = load_adapted("clinic/m", seed=1, backbone=backbone).probabilities([image])
    cache.faults.append(Fault("GET|HEAD", answer))
    found = load_adapted("clinic/m", seed=1, backbone=backbone).probabilities([image])
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(MedfmcError, match=r"seed 0 of .* is not in the cache, which has 1"):
        load_adapted("clinic/m", seed=0, backbone=backbone)
    with pytest.raises(MedfmcError, match=r"not known which seeds .* the cache has 1: choose one, such as --seed 1"):
        load_adapted("clinic/m", backbone=backbone)
    with pytest.raises(MedfmcError) as caught:
        load_adapted("clinic/other", backbone=backbone)
    assert "upload" not in str(caught.value) and "write" not in str(caught.value)


def test_a_failed_run_does_not_predict(runs, tmp_path):
    folder = shutil.copytree(run_of(runs / "lora", 0), tmp_path / "run")
    record = RunRecord.load(folder)
    record.status, record.error = "failed", "on purpose"
    record.save(folder)
    with pytest.raises(MedfmcError, match="its run failed"):
        load_adapted(folder)


@pytest.mark.parametrize("name", ["", "/abs/olute", "../../etc", "a/b\nc", "vit", "a/b/c", "a b/c", "./x"])
def test_what_is_no_name_of_a_backbone_is_refused(runs, name):
    with pytest.raises(MedfmcError, match="not a repository id"):
        ModelPush([runs / "lora"], "clinic/x", base_model=name)
    with pytest.raises(MedfmcError, match="not a repository id"):
        ModelPush([runs / "lora"], "clinic/x", dataset_id=name)


def test_eval_results_are_read_by_the_hubs_own_code(runs):
    files = ModelPush([runs / "five"], "clinic/lora-endo").preview(offline=True).files
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[RESULTS]))
    scores = [RunRecord.load(run_of(runs / "five", seed)).scores["test"]["score"] for seed in range(5)]
    assert (entry.dataset_id, entry.task_id) == ("clinic/medfmc", "endo-5shot")
    assert entry.value == pytest.approx(100 * np.mean(scores), abs=1e-3)
    assert "seeds 0, 1, 2, 3, 4" in entry.notes
    assert entry.date == "2026-01-05T12:00:00+00:00"


def test_the_score_of_fewer_seeds_is_not_filed_as_the_mean_of_five(runs, capsys):
    for name in ("lora", "vpt"):
        assert RESULTS not in ModelPush([runs / name], "clinic/x").preview(offline=True).files
        assert "the mean of the seeds 0 to 4" in capsys.readouterr().err


@pytest.mark.parametrize("mark", ["invented", "incomplete"])
def test_scores_on_unfit_data_are_filed_nowhere_unless_asked_for(runs, tmp_path, mark):
    for seed in range(5):
        folder = shutil.copytree(run_of(runs / "five", seed), tmp_path / f"seed{seed}")
        record = RunRecord.load(folder)
        record.data[mark] = True
        record.save(folder)
    files = ModelPush([tmp_path], "clinic/x").preview(offline=True).files
    card = files["README.md"].decode()
    assert RESULTS not in files and "model-index" not in card and f"**On images that are {mark}" in card
    files = ModelPush([tmp_path], "clinic/x", all_data=True).preview(offline=True).files
    assert f"on images that are {mark}" in files[RESULTS].decode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shots": 1}, "differ in shots: 5 and 1"),
        ({"seed": 0, "learning_rate": 0.1}, "differ in learning_rate"),
        ({"predict_challenge": True}, "several runs of the same seed"),
    ],
)
def test_runs_of_different_experiments_are_refused(tmp_path, changes, says):
    invent_run(tmp_path / "a", subset="endo", seed=1)
    invent_run(tmp_path / "b", **{"subset": "endo", "seed": 1} | changes)
    with pytest.raises(MedfmcError, match=says):
        ModelPush([tmp_path], "clinic/x").preview(offline=True)


def test_runs_without_weights_or_without_success_are_refused(tmp_path):
    invent_run(tmp_path / "failed", subset="endo", status="failed")
    with pytest.raises(MedfmcError, match=r"no finished run .*failed"):
        ModelPush([tmp_path / "failed"], "clinic/x").preview(offline=True)
    (invent_run(tmp_path / "linear", subset="endo", method="linear") / "adapter").mkdir()
    with pytest.raises(MedfmcError, match="has no weights, so there is no model to publish"):
        ModelPush([tmp_path / "linear"], "clinic/x").preview(offline=True)
    with pytest.raises(MedfmcError, match="does not exist"):
        ModelPush([tmp_path / "nowhere"], "clinic/x").preview(offline=True)


def test_another_experiment_does_not_replace_a_published_one(client, runs):
    ModelPush([runs / "lora"], "clinic/m")()
    with pytest.raises(MedfmcError, match=r"another experiment \(lora on endo-5shot\)"):
        ModelPush([runs / "vpt"], "clinic/m")()
    removed = ModelPush([runs / "vpt"], "clinic/m", overwrite=True).preview().removed
    assert {path.partition("/")[0] for path in removed} == {"seed0", "seed1"}
    ModelPush([runs / "vpt"], "clinic/m", overwrite=True)()
    assert b"VPT" in client.content("model", "clinic/m", "adapter_config.json")
    assert not any(path.startswith("seed") for path in client.repos["model", "clinic/m"].files)


# --- a push adds ---


def seeds_of(hub) -> dict[int, str]:
    """Seed and id of each run that the repository holds, by what its records say."""
    files = hub.repos["model", "clinic/m"].files
    records = [json.loads(hub.content("model", "clinic/m", path)) for path in files if path.endswith("run.json")]
    return {record["config"]["seed"]: record["id"] for record in records}


def test_a_push_of_one_seed_leaves_the_others(client, runs):
    ModelPush([runs / "five"], "clinic/m")()
    before, held = seeds_of(client), dict(client.repos["model", "clinic/m"].files)
    ModelPush([run_of(runs / "lora", 1)], "clinic/m")()
    assert seeds_of(client) == before and set(before) == {0, 1, 2, 3, 4}
    files = client.repos["model", "clinic/m"].files
    same = [path for path in held if not path.startswith("seed1/") and path != "README.md"]
    assert files.keys() == held.keys() and all(files[path] == held[path] for path in same)
    card = " ".join(client.content("model", "clinic/m", "README.md").decode().split())
    assert "each split seed (0, 1, 2, 3, 4)" in card
    assert "predictions of split seed 0; split seed 2; split seed 3; split seed 4 were not at hand" in card
    assert RESULTS in files


def test_a_single_seed_makes_room_for_others(client, runs, tmp_path):
    """The first is at the root; it moves unchanged into a folder."""
    ModelPush([run_of(runs / "five", 3)], "clinic/m")()
    weights = client.content("model", "clinic/m", "adapter_model.safetensors")
    ModelPush([runs / "lora"], "clinic/m")()
    files = client.repos["model", "clinic/m"].files
    assert set(seeds_of(client)) == {0, 1, 3} and "adapter_model.safetensors" not in files and RESULTS not in files
    assert client.content("model", "clinic/m", "seed3/adapter_model.safetensors") == weights
    ModelPush([runs / "five"], "clinic/m")()
    assert set(seeds_of(client)) == {0, 1, 2, 3, 4} and RESULTS in client.repos["model", "clinic/m"].files


def test_seeds_are_removed_by_a_flag_alone_and_files_of_others_never(client, runs, capsys):
    ModelPush([runs / "five"], "clinic/m")()
    repo = client.repos["model", "clinic/m"]
    client.commit(repo, "mine", {**repo.files, "seed0/notes.md": b"mine", "seed9/plot.png": b"mine", "figure.json": b"mine"})
    push = ModelPush([run_of(runs / "lora", 1)], "clinic/m", prune=True)
    removed = push.preview().removed
    assert {path.partition("/")[0] for path in removed} == {"seed0", "seed1", "seed2", "seed3", "seed4", ".eval_results"}
    push()
    said = capsys.readouterr().err
    assert "seed0, seed2, seed3, seed4" in said and "seed0/adapter_model.safetensors" in said
    assert seeds_of(client).keys() == {1} and "adapter_model.safetensors" in repo.files
    assert {"seed0/notes.md", "seed9/plot.png", "figure.json"} <= repo.files.keys()


def test_predict_uses_the_requested_seed_or_none(cache, runs, backbone, image):
    ModelPush([run_of(runs / "five", 3)], "clinic/m")()
    with pytest.raises(MedfmcError, match=r"clinic/m has no seed 0; it has 3"):
        load_adapted("clinic/m", seed=0, backbone=backbone)
    with pytest.raises(MedfmcError, match=r"has no seed 0; it has 3"):
        load_adapted(run_of(runs / "five", 3), seed=0)
    for seed in (3, None):
        load_adapted("clinic/m", seed=seed, backbone=backbone)
    ModelPush([runs / "lora"], "clinic/m")()
    expected = load_adapted(run_of(runs / "five", 3)).probabilities([image])
    np.testing.assert_array_equal(load_adapted("clinic/m", seed=3, backbone=backbone).probabilities([image]), expected)


def test_a_damaged_adapter_is_neither_published_nor_used(client, runs, tmp_path, image):
    folder = shutil.copytree(run_of(runs / "lora", 0), tmp_path / "run")
    path = folder / "adapter" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4:] = b"\x00\x00\xc0\x7f"  # a NaN
    path.write_bytes(content)
    for use in (lambda: ModelPush([folder], "clinic/m")(), lambda: load_adapted(folder)):
        with pytest.raises(MedfmcError, match=r"adapter_model.safetensors is not the file that this run wrote"):
            use()
    record = RunRecord.load(folder)
    record.files = {}  # as in older records
    record.save(folder)
    with pytest.raises(MedfmcError, match="not finite"):
        load_adapted(folder).probabilities([image])


CARD_AND_PREDICT = """
import json, sys
image, backbone, *rest = sys.argv[1:]
from medfmc_hf.predict import load_adapted
for repo, seed, block in zip(*[iter(rest)] * 3):
    exec(block.replace("image.png", image).replace("path/to/backbone", backbone))
    adapted = load_adapted(repo, seed=int(seed), backbone=backbone)
    by_label = {each["label"]: each["score"] for each in classifier(image)}
    by_pipeline, by_us = [by_label[name] for name in adapted.subset.classes], adapted.probabilities([image])[0].tolist()
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


def test_the_lines_of_the_cards_load_what_was_pushed(client, tmp_path, runs, image, backbone):
    published, arguments = {"lora": 0, "vpt": 3}, []
    for method, seed in published.items():
        ModelPush([runs / method], f"clinic/{method}")()
        assert len(client.repos["model", f"clinic/{method}"].commits) == 2
        card = client.content("model", f"clinic/{method}", "README.md").decode()
        arguments += [f"clinic/{method}", seed, re.search(r"## Use\n\n```python\n(.*?)```", card, re.DOTALL)[1]]
    loaded = python(CARD_AND_PREDICT, environment(client, tmp_path / "elsewhere"), image, backbone, *arguments, cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    for (method, seed), line in zip(published.items(), loaded.stdout.splitlines(), strict=True):
        kind, by_pipeline, by_us = json.loads(line)
        expected = load_adapted(run_of(runs / method, seed)).probabilities([image])[0]
        assert kind == "DecodedAsInTraining"
        np.testing.assert_allclose(by_us, expected, atol=1e-6)
        np.testing.assert_allclose(by_pipeline, expected, atol=0.01)  # transformers' pixels differ by up to a grey level
        assert np.ptp(expected) > 0.01


def test_bare_peft_loads_one_seed_from_the_hub(client, tmp_path, runs, backbone):
    import torch

    ModelPush([runs / "lora"], "clinic/lora")()
    loaded = python(BARE_PEFT, environment(client, tmp_path / "elsewhere"), backbone, cwd=tmp_path, isolated=True)
    assert loaded.returncode == 0, loaded.stderr
    model = load_adapted(run_of(runs / "lora", 1)).model
    with torch.no_grad():
        expected = model(pixel_values=torch.zeros(1, 3, 64, 64)).logits[0]
    np.testing.assert_allclose(json.loads(loaded.stdout), expected, atol=1e-5)


HEAD_OF_A_SEED = """
import json, sys, torch
import medfmc_hf.classifiers
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("clinic/heads", subfolder="seed1", backbone=sys.argv[1])
with torch.no_grad():
    print(json.dumps(model(pixel_values=torch.zeros(1, 3, 64, 64)).logits[0].tolist()))
"""
BARE_PIPELINE = """
import json, sys
from transformers import pipeline
classifier = pipeline("image-classification", model=sys.argv[1], top_k=5)
print(json.dumps({each["label"]: each["score"] for each in classifier(sys.argv[2])}))
"""


@pytest.mark.parametrize("method", ["linear", "knn"])
def test_a_head_of_one_seed_loads_from_the_hub(method, client, tmp_path, backbone):
    import torch

    for seed in (0, 1):
        adapted_run(tmp_path / "runs", backbone, method=method, seed=seed)
    ModelPush([tmp_path / "runs"], "clinic/heads")()
    assert "library_name: medfmc_hf" in client.content("model", "clinic/heads", "README.md").decode()
    loaded = python(HEAD_OF_A_SEED, environment(client, tmp_path / "elsewhere"), backbone, cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    with torch.no_grad():
        expected = load_adapted(run_of(tmp_path / "runs", 1)).model(pixel_values=torch.zeros(1, 3, 64, 64)).logits[0]
    np.testing.assert_allclose(json.loads(loaded.stdout), expected, atol=1e-5)
    stock = python(BARE_PIPELINE, environment(client, tmp_path / "elsewhere"), "clinic/heads", "x.png", cwd=tmp_path, isolated=True)
    assert stock.returncode != 0 and not stock.stdout


def test_a_model_that_was_trained_whole_needs_transformers_alone(client, tmp_path, backbone, image):
    folder = adapted_run(tmp_path / "runs", backbone, method="full", subset="retino")
    ModelPush([folder], "clinic/full")()
    assert "library_name: transformers" in client.content("model", "clinic/full", "README.md").decode()
    loaded = python(BARE_PIPELINE, environment(client, tmp_path / "elsewhere"), "clinic/full", image, cwd=tmp_path, isolated=True)
    assert loaded.returncode == 0, loaded.stderr
    adapted = load_adapted(folder)
    found = json.loads(loaded.stdout)
    np.testing.assert_allclose([found[name] for name in adapted.subset.classes], adapted.probabilities([image])[0], atol=0.01)
