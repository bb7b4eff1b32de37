from dataclasses import replace

import pytest
import torch

from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig
from medfmc_hf.subsets import ConfigName
from medfmc_hf.training import shared as module
from medfmc_hf.training.one_run import train
from medfmc_hf.training.shared import Shared


def test_shrunk_images_make_other_runs_and_embedding_alone_does_not(sample, sample_build, tmp_path):
    from medfmc_hf.data.build import build

    build([sample], tmp_path / "embedded", subsets=["retino"], embed=True)
    build([sample], tmp_path / "shrunk", subsets=["retino"], embed=True, max_side=32)
    name = ConfigName("retino", 1, 0)
    linked, embedded, shrunk = (Shared(data).data_fingerprint(name) for data in (sample_build, tmp_path / "embedded", tmp_path / "shrunk"))
    assert linked == embedded != shrunk


def hooks_of(model):
    return {name: [*part._forward_hooks.values(), *part._forward_pre_hooks.values()] for name, part in model.named_modules()}


@pytest.mark.parametrize("method", ["linear", "lora", "vpt", "adaptformer", "full", "partial", "bitfit", "dora", "linear-sgd"])
def test_a_run_gives_the_backbone_back_as_it_was(method, sample_build, tiny_backbone, tmp_path):
    shared = Shared(sample_build, cache=tmp_path / "cache")
    config = RunConfig("retino", shots=1, model=str(tiny_backbone), method=method, epochs=1, batch_size=8)
    run = shared.resolve(config)
    with shared.acquire(run) as model:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        hooks = hooks_of(model)
    train(config, shared=shared, out=tmp_path / "runs")
    with shared.acquire(run) as backbone:
        assert backbone is model, "it was not loaded again"
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert hooks_of(model) == hooks


def test_the_hub_is_asked_once_for_a_backbone_that_it_does_not_give(sample_build, monkeypatch):
    asked = []

    def refuse(model, revision):
        asked.append((model, revision))
        raise MedfmcError(f"there is no {model}")

    monkeypatch.setattr(module, "find_checkpoint", refuse)
    shared = Shared(sample_build)
    for _ in range(2):
        with pytest.raises(MedfmcError, match="there is no org/vit"):
            shared.checkpoint("org/vit", None)
    with pytest.raises(MedfmcError, match="there is no org/vit"):
        shared.checkpoint("org/vit", "v1")
    assert asked == [("org/vit", None), ("org/vit", "v1")]


def test_a_run_that_fails_leaves_its_backbone_to_nobody(sample_build, tiny_backbone):
    shared = Shared(sample_build)
    run = shared.resolve(RunConfig("retino", shots=1, model=str(tiny_backbone)))
    with pytest.raises(ZeroDivisionError), shared.acquire(run) as model:
        head = model.classifier.weight.clone()
        for parameter in model.parameters():
            parameter.data.zero_()
        raise ZeroDivisionError
    with shared.acquire(run) as again:
        assert again is not model and any(parameter.any() for parameter in again.parameters())
        assert torch.equal(again.classifier.weight, head), "its training seed alone decides its head"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"method": "lora"}, {"method": "lora", "method_options": {"r": 8, "targets": "query-value", "use_dora": False, "blocks": None}}),
        ({"method": "vpt"}, {"method": "vpt", "method_options": {"num_prompts": 8, "deep": True, "blocks": None}}),
        ({"method": "ia3", "recipe": "none"}, {"method": "ia3", "recipe": "none", "method_options": {"targets": "keys-values-mlp"}}),
        ({"method": "partial"}, {"method": "partial", "method_options": {"blocks": 1}}),
        ({"method": "lora"}, {"method": "lora", "image_size": 64}),
        ({"method": "knn"}, {"method": "knn", "epochs": 7, "learning_rate": 0.5, "select": "best", "loss": "focal", "compile": "on"}),
        ({"method": "linear"}, {"method": "linear", "training_seed": 3, "method_options": {"C": 1}}),
    ],
    ids=["lora", "vpt", "ia3", "partial", "own size", "knn", "linear"],
)
def test_one_run_has_one_id_however_it_is_asked_for(one, other, sample_build, tiny_backbone):
    shared = Shared(sample_build)
    options = {"shots": 1, "model": str(tiny_backbone)}
    runs = [shared.resolve(RunConfig("retino", **options, **own)) for own in (one, other)]
    assert runs[0].id == runs[1].id and runs[0].config == runs[1].config and runs[0].changed == runs[1].changed == {}


@pytest.mark.parametrize("change", [{"image_size": 48}, {"dtype": "bfloat16"}, {"method_options": {"k": 3}}, {"seed": 1}])
def test_what_has_a_say_in_features_makes_another_run(change, sample_build, tiny_backbone):
    shared, config = Shared(sample_build), RunConfig("retino", shots=1, model=str(tiny_backbone), method="knn")
    assert shared.resolve(config).id != shared.resolve(replace(config, **change)).id


def test_backbones_that_differ_in_their_image_processor_alone_make_other_runs(sample_build, tiny_backbone, tmp_path):
    import json
    import shutil

    other = shutil.copytree(tiny_backbone, tmp_path / "other")
    path = other / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    shared, config = Shared(sample_build), RunConfig("retino", shots=1, method="knn", model=str(tiny_backbone))
    one, another = shared.resolve(config), shared.resolve(replace(config, model=str(other)))
    assert one.id != another.id and one.fingerprint != another.fingerprint
    assert shared.resolve(replace(config, model=str(shutil.copytree(tiny_backbone, tmp_path / "same")))).id == one.id


def test_an_image_is_what_its_digest_says_and_not_when_it_was_written(tmp_path, tiny_backbone):
    """Files of one size and time, as an archive may leave them, are other images after a rebuild."""
    import os

    import numpy as np
    from PIL import Image

    from medfmc_hf.data.build import build
    from medfmc_hf.data.sample import make_sample

    make_sample(tmp_path / "download")
    paths = sorted((tmp_path / "download" / "Retino").rglob("*.png"))

    def write(turn):
        for path in paths:
            Image.fromarray(turn(np.asarray(Image.open(path)))).save(path, compress_level=0)
            os.utime(path, (1, 1))
        build([tmp_path / "download"], tmp_path / "medfmc", subsets=["retino"])
        shared = Shared(tmp_path / "medfmc", cache=tmp_path / "cache")
        run = shared.resolve(RunConfig("retino", shots=1, method="knn", model=str(tiny_backbone)))
        return run.id, shared.evaluation_pixels(run.scored["test"], run.processing)[:5]

    first, second = write(lambda values: values), write(lambda values: 255 - values)
    assert first[0] != second[0] and (first[1].float() + second[1].float() - 255).abs().max() <= 1
