"""Backbones from a Hub: fetched by the real client, all files of one commit, and a correct message when that fails."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import Fault, environment, python
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import tiny

from medfmc_hf.errors import MedfmcError
from medfmc_hf.models.backbones import load_backbone
from medfmc_hf.models.checkpoint import find_checkpoint
from medfmc_hf.runs.folders import find_runs
from medfmc_hf.subsets import SUBSETS

ENDO = SUBSETS["endo"]
TRAIN = "import sys; sys.path.insert(0, 'recipes'); import peft_train; sys.exit(peft_train.guarded('peft_train.py', peft_train.main))"
MEDFMC = "import sys; from medfmc_hf.cli import main; sys.exit(main(sys.argv[1:]))"
ROOT = Path(__file__).resolve().parents[2]
RUN = ("--subset", "endo", "--shots", "1", "--method", "lora", "--epochs", "1")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def other(tmp_path_factory, backbone) -> dict[str, bytes]:
    """The files of a backbone with other weights."""
    from safetensors.torch import load, save

    weights = {name: value * 1.1 for name, value in load((backbone / "model.safetensors").read_bytes()).items()}
    return files_of(backbone) | {"model.safetensors": save(weights, metadata={"format": "pt"})}


def test_one_backbone_through_every_command(hub, backbone, other, sample_build, tmp_path):
    """A run trained from a branch is found again offline and predicts the same after the branch has moved, which makes a new run."""
    repo = hub.add_repo("model", "org/vit", files_of(backbone), private=False)
    repo.refs |= {"v1": repo.sha}
    env = environment(hub, tmp_path / "home")
    arguments = ("--data", sample_build, "--out", tmp_path / "runs", "--model", "org/vit", *RUN)

    def train(*more, **changed):
        done = python(TRAIN, env | changed, *arguments, *more, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done

    train()
    first = repo.sha
    ((folder, record),) = find_runs(tmp_path / "runs")
    assert (record.backbone["name"], record.backbone["revision"]) == ("org/vit", first)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/vit", first)
    card = (folder / "adapter" / "README.md").read_text()
    assert first in card and "base_model: org/vit" in card and f"--revision {first}" in card
    for more, changed in (
        ((), {"HF_HUB_OFFLINE": "1"}),
        ((), {"HF_ENDPOINT": "http://127.0.0.1:9"}),
        (("--revision", "v1"), {}),
        (("--revision", first), {}),
    ):
        assert "Already finished" in train(*more, **changed).stderr

    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)).save(image)

    def predict(where, *more):
        done = python(MEDFMC, env, "predict", where, image, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    before = predict(folder)
    done = python(MEDFMC, env, "push", "model", folder, "--repo-id", "clinic/lora", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    hub.commit(repo, "better weights", {".gitattributes": b"", **other})
    assert predict(folder) == predict("clinic/lora") == before

    grid = tmp_path / "grid.yaml"
    grid.write_text("subsets: [endo]\nshots: [1]\nseeds: [0]\nmethods: [lora]\nbackbones: [org/vit]\noverrides: {epochs: 1}\n")
    done = python(MEDFMC, env, "benchmark", grid, "--data", sample_build, "--out", tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = [record for _, record in find_runs(tmp_path / "runs")]
    assert {record.backbone["revision"] for record in records} == {first, repo.sha} and len({record.id for record in records}) == 2


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("GET|HEAD", 429, message="too many requests"), r"slow down \(429\), and org/vit is not in the cache"),
        (Fault("GET|HEAD", 503), r"fails on its own side \(503\), and org/vit is not in the cache"),
        (Fault("GET|HEAD", "cut"), r"cannot be reached .*org/vit is not in the cache"),
        (Fault("GET|HEAD", "portal"), "answered, but not as a Hub does"),
        (Fault("GET /api|HEAD /api", "portal"), "answered, but not as a Hub does"),
    ],
)
def test_a_hub_that_does_not_answer(cache, backbone, fault, says):
    cache.add_repo("model", "org/vit", files_of(backbone), private=False)
    cache.faults.append(fault)
    with pytest.raises(MedfmcError, match=says) as caught:
        find_checkpoint("org/vit")
    assert "\n" not in str(caught.value)
    cache.faults.clear()
    commit = find_checkpoint("org/vit").commit
    cache.faults.append(fault)
    assert find_checkpoint("org/vit").commit == commit  # the cached files are used


def test_who_may_not_read_and_what_is_not_there(cache, backbone, monkeypatch):
    cache.add_repo("model", "org/hidden", files_of(backbone))
    cache.add_repo("model", "org/gated", files_of(backbone), private=False).gated = True
    cache.add_repo("model", "org/vit", files_of(backbone), private=False)
    cache.add_repo("model", "org/empty", {"README.md": b"soon"}, private=False)
    cache.add_repo("model", "org/onnx", {"config.json": (backbone / "config.json").read_bytes(), "model.onnx": b"x"}, private=False)
    assert find_checkpoint("org/hidden").commit  # with a token that may read it
    cases = {
        ("org/vitt", None): "there is no org/vitt on the Hub that may be read",
        ("org/gated", None): "org/gated is gated: ask for access",
        ("org/vit", "no-such-branch"): "has no such revision",
        ("org/empty", None): "has no config.json",
        ("org/onnx", None): r"has no weights that transformers loads .* it has .*model.onnx",
        ("models/../vit", None): "there is no folder models/../vit",
        ("/nowhere/vit", None): "there is no folder /nowhere/vit",
        ("org/vit\nx", None): "there is no folder",
        ("", None): "which backbone",
    }
    for (name, revision), says in cases.items():
        with pytest.raises(MedfmcError, match=says):
            find_checkpoint(name, revision)
    monkeypatch.delenv("HF_TOKEN")
    cache.add_repo("model", "org/hidden2", files_of(backbone))
    with pytest.raises(MedfmcError, match=r"org/hidden2 on the Hub that may be read \(401\).*hf auth login"):
        find_checkpoint("org/hidden2")


def test_what_is_missing_from_the_cache_is_named(cache, backbone, monkeypatch):
    """Another program may have fetched the weights and never asked for the image processor."""
    from huggingface_hub import constants, hf_hub_download

    cache.add_repo("model", "org/vit", files_of(backbone), private=False)
    hf_hub_download("org/vit", "config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MedfmcError, match=r"only partly.*the weight file is not on this machine.*hf download org/vit"):
        find_checkpoint("org/vit")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hf_hub_download("org/vit", "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MedfmcError, match=r"preprocessor_config.json is not on this machine"):
        find_checkpoint("org/vit")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hf_hub_download("org/vit", "preprocessor_config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_checkpoint("org/vit").commit


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("/tmp/medfmc-hf-test-must-not-exist"),)


def pickled(value, protocol=2) -> bytes:
    return pickle.dumps(value, protocol=protocol)


def test_broken_weights(cache, backbone, tmp_path):
    good = files_of(backbone)
    weights = good.pop("model.safetensors")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 3\n" % (b"0" * 64)
    torch.save({"a": torch.zeros(3), "evil": Evil()}, tmp_path / "evil.bin")
    cases = {
        "pointer": ({"model.safetensors": pointer}, "is a Git LFS pointer"),
        "cut": ({"model.safetensors": weights[:-100]}, "is truncated: "),
        "cut-early": ({"model.safetensors": weights[:60]}, "is truncated after 60 bytes"),
        "html": ({"model.safetensors": b"<!DOCTYPE html><html></html>"}, "is a web page"),
        "nothing": ({"model.safetensors": b""}, "is empty"),
        "zeros": ({"model.safetensors": bytes(4000)}, "is not a safetensors file"),
        "evil": ({"pytorch_model.bin": (tmp_path / "evil.bin").read_bytes()}, "pickle that holds more than tensors"),
        "evil-old": ({"pytorch_model.bin": pickled({"a": Evil()})}, "pickle that holds more than tensors"),
        "cut-bin": ({"pytorch_model.bin": (tmp_path / "evil.bin").read_bytes()[:-40]}, "is truncated"),
        "html-bin": ({"pytorch_model.bin": b"\n<html></html>"}, "is a web page"),
        "config": ({"model.safetensors": weights, "config.json": b"<html>"}, "config.json of {} is a web page"),
        "config2": ({"model.safetensors": weights, "config.json": b"[1]"}, "holds list; expected a JSON object"),
    }
    for name, (files, says) in cases.items():
        cache.add_repo("model", f"org/{name}", good | files, private=False)
        with pytest.raises(MedfmcError, match=says.format(f"org/{name}")) as caught:
            load_backbone(f"org/{name}", ENDO)
        assert "Traceback" not in str(caught.value)
        local = tmp_path / name
        local.mkdir()
        for path, content in (good | files).items():
            (local / path).write_bytes(content)
        with pytest.raises(MedfmcError, match=says.format(str(local))):
            load_backbone(str(local), ENDO)
    assert not Path("/tmp/medfmc-hf-test-must-not-exist").exists()


def in_two_files(backbone) -> dict[str, bytes]:
    """The files of a backbone with a weight index of two shards, the second of which is missing."""
    files = files_of(backbone)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"metadata": {}, "weight_map": dict(zip("ab", names))}).encode()
    return {names[0]: files.pop("model.safetensors"), "model.safetensors.index.json": index, **files}


def test_a_folder_that_lacks_a_shard(backbone, tmp_path):
    for path, content in in_two_files(backbone).items():
        (tmp_path / path).write_bytes(content)
    with pytest.raises(MedfmcError, match=r"lacks model-00002-of-00002\.safetensors, which its weight index lists"):
        load_backbone(str(tmp_path), ENDO)


def test_a_repository_that_lacks_a_shard(cache, backbone):
    cache.add_repo("model", "org/shards", in_two_files(backbone), private=False)
    with pytest.raises(MedfmcError, match=r"lacks model-00002-of-00002\.safetensors, which its weight index lists"):
        load_backbone("org/shards", ENDO)


def test_code_of_a_repository_is_neither_run_nor_asked_about(hub, backbone, sample_build, tmp_path):
    """`y` on standard input would answer transformers if it asked to trust the code."""
    code = (
        b"import pathlib\npathlib.Path('ran').touch()\nfrom transformers import ViTConfig, ViTModel\nclass C(ViTConfig): model_type='own'\n"
    )
    own = json.loads((backbone / "config.json").read_text())
    auto_map = {"AutoConfig": "code.C", "AutoModel": "code.M", "AutoModelForImageClassification": "code.M"}
    files = files_of(backbone) | {"code.py": code}
    hub.add_repo(
        "model", "org/own", files | {"config.json": json.dumps(own | {"model_type": "own", "auto_map": auto_map}).encode()}, private=False
    )
    # A config of a known architecture may also name code: it is loaded by transformers' own class.
    hub.add_repo("model", "org/vit", files | {"config.json": json.dumps(own | {"auto_map": auto_map}).encode()}, private=False)
    arguments = ("--data", sample_build, "--out", tmp_path / "runs", *RUN, "--model")
    program = "import sys, io, os; sys.stdin = io.StringIO('y\\n' * 9)\n" + TRAIN.replace("'recipes'", repr(str(ROOT / "recipes")))
    refused = python(program, environment(hub, tmp_path / "home"), *arguments, "org/own", cwd=tmp_path)
    assert refused.returncode == 2 and "code from a repository is never run" in refused.stderr, refused.stderr
    assert "y/N" not in refused.stdout + refused.stderr and "Traceback" not in refused.stderr
    works = python(program, environment(hub, tmp_path / "home"), *arguments, "org/vit", cwd=tmp_path)
    assert works.returncode == 0, works.stderr
    assert not any(request.endswith("code.py") for request in hub.requests) and not list(tmp_path.rglob("ran"))


def test_a_relative_folder_stays_a_folder_from_anywhere(hub, backbone, sample_build, tmp_path):
    """Its path looks like a Hub id, and a repository of that name exists."""
    hub.add_repo("model", "models/vit", files_of(backbone), private=False)
    work, away = tmp_path / "work", tmp_path / "away"
    shutil.copytree(backbone, work / "models" / "vit")
    away.mkdir()
    env = environment(hub, tmp_path / "home")
    program = TRAIN.replace("'recipes'", repr(str(ROOT / "recipes")))
    done = python(program, env, "--data", sample_build, "--model", "models/vit", *RUN, cwd=work)
    assert done.returncode == 0, done.stderr
    ((folder, record),) = find_runs(work / "runs")
    assert record.backbone["name"] == str(work / "models" / "vit") and record.backbone["revision"] is None
    card = (folder / "adapter" / "README.md").read_text()
    assert "`vit`, a local folder" in card and "base_model" not in card.split("---")[1]
    assert json.loads((folder / "adapter" / "backbone.json").read_text())["model"] == str(work / "models" / "vit")
    image = away / "image.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(image)
    assert python(MEDFMC, env, "predict", folder, image, cwd=away).returncode == 0
    (work / "models").rename(work / "moved")
    missing = python(MEDFMC, env, "predict", folder, image, cwd=away)
    assert missing.returncode == 2 and "--backbone FOLDER" in missing.stderr
    assert python(MEDFMC, env, "predict", folder, image, "--backbone", work / "moved" / "vit", cwd=away).returncode == 0
    assert not [request for request in hub.requests if "vit" in request]


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "x"},
        {"image_size": "abc"},
        {"patch_size": 0},
        {"hidden_act": "nope"},
        {"dtype": "nope"},
        {"num_attention_heads": 7},
        {"model_type": None},
        {"model_type": ["vit"]},
        {"architectures": 3},
        {"hidden_size": 64},
    ],
)
def test_a_config_of_any_kind_is_one_sentence_or_works(backbone, tmp_path, changes):
    for path in backbone.iterdir():
        shutil.copy(path, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    try:
        load_backbone(str(tmp_path), ENDO)
    except MedfmcError as error:
        assert str(tmp_path) in str(error)
        return
    assert changes == {"architectures": 3} or "dtype" in changes


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"x", "is not a weight file written by torch"),
        (b"\x80\x02abcdef", "could not be loaded"),
        (pickled([1, 2]), "could not be loaded"),
        (pickled(torch.zeros(2)), "pickle that holds more than tensors"),
        (pickled({"a": 1}), "could not be loaded"),
        (b"PK\x03\x04rest", "is truncated after 8 bytes"),
    ],
    ids=["byte", "torn", "list", "tensor", "numbers", "zip"],
)
def test_a_pickle_of_anything_else_is_one_sentence(backbone, tmp_path, content, says):
    shutil.copy(backbone / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(MedfmcError, match=says) as caught:
        load_backbone(str(tmp_path), ENDO)
    assert str(tmp_path) in str(caught.value) or tmp_path.name in str(caught.value)
    assert "weights_only` set to" not in str(caught.value)


@pytest.mark.parametrize("request_", ["GET .*/resolve/.*config.json", "GET .*/resolve/.*safetensors"])
def test_a_page_in_place_of_a_file(cache, backbone, request_):
    cache.add_repo("model", "org/vit", files_of(backbone), private=False)
    cache.faults.append(Fault(request_, "portal"))
    with pytest.raises(MedfmcError, match="answered, but not as a Hub does") as caught:
        find_checkpoint("org/vit")
    assert "\n" not in str(caught.value)


def test_a_token_that_cannot_be_one(cache, backbone, monkeypatch):
    cache.add_repo("model", "org/vit", files_of(backbone), private=False)
    monkeypatch.setenv("HF_TOKEN", "hf_x\u200b")
    with pytest.raises(MedfmcError, match="characters that no token has"):
        find_checkpoint("org/vit")
    cache.add_repo("model", "org/hidden", files_of(backbone))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(MedfmcError, match=r"does not accept the token \(401\)"):
        find_checkpoint("org/hidden")


@pytest.mark.parametrize(
    "changes",
    [
        {"attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": "org/kernel@main:layer"},
        {"attn_implementation": {"": "org/kernel"}},
        {"vision_config": {"attn_implementation": "org/kernel"}},
    ],
)
def test_a_kernel_of_a_repository_is_not_fetched(backbone, tmp_path, changes):
    """transformers would run it if the library `kernels` is installed."""
    for path in backbone.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(json.loads((tmp_path / "config.json").read_text()) | changes))
    with pytest.raises(MedfmcError, match="code from a repository is never run"):
        load_backbone(str(tmp_path), ENDO)


def test_fingerprints_tell_content_from_name(tmp_path):
    first, second = (str(tmp_path / name) for name in "ab")
    for folder in (first, second):
        tiny("vit", 7).save_pretrained(folder)
    assert find_checkpoint(first).fingerprint == find_checkpoint(second).fingerprint
    weights = load_file(f"{second}/model.safetensors")
    weights["vit.layernorm.bias"] += 1
    save_file(weights, f"{second}/model.safetensors", metadata={"format": "pt"})
    assert find_checkpoint(first).fingerprint != find_checkpoint(second).fingerprint
    assert find_checkpoint(first).commit is None
