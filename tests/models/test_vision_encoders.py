"""The vector that the head reads in a backbone with two encoders, against the one that the whole model pools."""

import json

import pytest
import torch
import transformers as T
from tiny_models import tiny
from transformers import AutoModelForImageClassification

from medfmc_hf.adaptation import adapt
from medfmc_hf.models.backbones import load_backbone
from medfmc_hf.subsets import SUBSETS

_VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4, "intermediate_size": 24}
_TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 50}
_TEXT |= {"max_position_embeddings": 10, "bos_token_id": 1, "eos_token_id": 2}
WHOLE = {
    "clip": lambda: T.CLIPModel(T.CLIPConfig(vision_config=_VISION, text_config=_TEXT, projection_dim=8)),
    "metaclip 2": lambda: T.MetaClip2Model(T.MetaClip2Config(vision_config=_VISION, text_config=_TEXT, projection_dim=8)),
    "siglip": lambda: T.SiglipModel(T.SiglipConfig(vision_config=_VISION, text_config=_TEXT)),
}
ENDO = SUBSETS["endo"]
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=sorted(WHOLE))
def whole(request, tmp_path):
    """A model with both encoders, as on the Hub, and its folder."""
    torch.manual_seed(0)
    model = WHOLE[request.param]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "whole")
    return model, str(tmp_path / "whole")


@torch.no_grad()
def test_the_head_reads_what_the_vision_encoder_pools(whole):
    model, folder = whole
    backbone = load_backbone(folder, ENDO)
    read = []
    backbone.classifier.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    assert backbone(pixel_values=IMAGES).logits.shape == (3, 4)
    features = model.get_image_features(pixel_values=IMAGES)
    features = getattr(features, "pooler_output", features)
    own = model.visual_projection(read[0]) if hasattr(model, "visual_projection") else read[0]
    torch.testing.assert_close(own, features)
    assert backbone.origin.pool == "encoder"


@torch.no_grad()
def test_an_adapter_comes_back_with_the_vector_it_was_trained_on(whole, tmp_path):
    _, folder = whole
    for pool in ("stock", None):
        backbone = load_backbone(folder, ENDO, pool=pool)
        adapted = adapt.adapt(backbone, "lora").eval()
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
        adapt.save(adapted, tmp_path / str(pool))
        torch.testing.assert_close(adapt.load(tmp_path / str(pool))(pixel_values=IMAGES).logits, adapted(pixel_values=IMAGES).logits)
    origin = tmp_path / "stock" / adapt.ORIGIN
    values = json.loads(origin.read_text())
    assert values.pop("pool") == "stock"
    before = adapt.load(tmp_path / "stock")(pixel_values=IMAGES).logits
    origin.write_text(json.dumps(values))  # as versions before 0.3.0 wrote it
    torch.testing.assert_close(adapt.load(tmp_path / "stock")(pixel_values=IMAGES).logits, before)


def test_a_vision_encoder_saved_with_its_head_is_the_same_in_stock_transformers(tmp_path):
    model = tiny("siglip vision")
    model.save_pretrained(tmp_path)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(AutoModelForImageClassification.from_pretrained(tmp_path).eval()(x).logits, model(x).logits)
