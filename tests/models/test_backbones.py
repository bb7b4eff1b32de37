import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, tiny
from transformers import AutoModelForImageClassification

from medfmc_hf.errors import MedfmcError
from medfmc_hf.models import backbones
from medfmc_hf.models.structure import structure_of
from medfmc_hf.subsets import SUBSETS

ENDO, CHEST, COLON = SUBSETS["endo"], SUBSETS["chest"], SUBSETS["colon"]


def saved(tmp_path, name="vit", classes=7):
    tiny(name, classes).save_pretrained(tmp_path / name)
    return str(tmp_path / name)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_architecture_loads_with_a_new_head(tmp_path, name):
    folder = saved(tmp_path, name)
    model = backbones.load_backbone(folder, CHEST)
    size = model.origin.image_size
    assert model(pixel_values=torch.randn(2, 3, size, size)).logits.shape == (2, 19)
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.id2label[0] == "pleural_effusion"
    old = load_file(f"{folder}/model.safetensors")
    heads = structure_of(model).heads
    kept = {n: v for n, v in model.state_dict().items() if not n.startswith(heads)}
    same = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    if name == "clip":  # its classifier does not read the pretrained vector, so the head goes on the vision encoder instead
        same = {key.replace("vision_model.", "tower."): value for key, value in same.items()}
    assert old and all(torch.equal(v, same[n]) for n, v in kept.items())


def test_the_head_is_new_even_if_its_shape_fits(tmp_path):
    folder = saved(tmp_path, classes=4)
    torch.manual_seed(0)
    model = backbones.load_backbone(folder, ENDO)
    assert model.classifier.bias.abs().sum() == 0
    torch.manual_seed(0)
    assert torch.equal(model.classifier.weight, backbones.load_backbone(folder, ENDO).classifier.weight)


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2", "clip", "siglip vision", "beit", "swin", "dinov3", "convnext"])
def test_other_image_sizes(tmp_path, name):
    folder = saved(tmp_path, name)
    size = 2 * backbones.image_size_of(backbones.read_config(folder))
    model = backbones.load_backbone(folder, ENDO, image_size=size)
    assert model(pixel_values=torch.randn(1, 3, size, size)).logits.shape == (1, 4)
    assert model.origin.image_size == size


def test_an_unsupported_image_size(tmp_path):
    with pytest.raises(MedfmcError, match="does not support images of 2 x 2"):
        backbones.load_backbone(saved(tmp_path), ENDO, image_size=2)


def test_missing_weights_are_an_error(tmp_path):
    folder = saved(tmp_path)
    weights = {n: v for n, v in load_file(f"{folder}/model.safetensors").items() if "layer.1." not in n and "layers.1." not in n}
    save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MedfmcError, match=r"lacks 16 weights of a ViTForImageClassification"):
        backbones.load_backbone(folder, ENDO)


def test_what_is_not_a_backbone(tmp_path):
    with pytest.raises(MedfmcError, match="there is no backbone"):
        backbones.load_backbone(str(tmp_path), ENDO)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))
    with pytest.raises(MedfmcError, match="no weight files"):
        backbones.load_backbone(str(tmp_path), ENDO)
    (tmp_path / "model.safetensors").write_bytes((Path(saved(tmp_path / "vit")) / "model.safetensors").read_bytes())
    with pytest.raises(MedfmcError, match="not a vision backbone"):
        backbones.load_backbone(str(tmp_path), ENDO)
