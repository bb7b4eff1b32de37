import pytest
import torch
from tiny_models import CONFIGS, images, stir, tiny

from medfmc_hf.adaptation import adapt
from medfmc_hf.models import backbones
from medfmc_hf.models.class_token import spare_last_block
from medfmc_hf.subsets import SUBSETS

READS_CLASS_TOKEN = {"vit", "deit", "dinov3", "clip tower"}  # the others read a mean of patches, two tokens, or have none


def load(name, folder):
    if not (folder / "config.json").exists():
        tiny(name, classes=7).save_pretrained(folder)
    torch.manual_seed(0)
    return backbones.load_backbone(str(folder), SUBSETS["endo"])


def widest_after_attention(model, name):
    """Tokens that go through the last Linear layer of the last block."""
    seen, layers = [], [part for part in model.modules() if isinstance(part, torch.nn.Linear)]
    hook = layers[-2].register_forward_hook(lambda layer, inputs, output: seen.append(output.shape[1]))  # the last one is the head
    model(pixel_values=images(name))
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in ("clip", "siglip tower")])
def test_what_comes_out_is_the_same(name, tmp_path):
    plain, spared = load(name, tmp_path), load(name, tmp_path)
    done = spare_last_block(spared)
    torch.testing.assert_close(spared(pixel_values=images(name)).logits, plain(pixel_values=images(name)).logits)
    if name in READS_CLASS_TOKEN:
        assert done and widest_after_attention(spared, name) == 1 < widest_after_attention(plain, name)
    elif not done:
        assert not any(part._forward_pre_hooks for part in spared.modules() if isinstance(part, torch.nn.Linear))


@pytest.mark.parametrize(
    "method", ["lora", "dora", "vpt", "vpt-shallow", "adaptformer", "houlsby", "pfeiffer", "ia3", "partial", "full", "bitfit"]
)
@pytest.mark.parametrize("name", ["vit", "clip tower"])
def test_adapted_models_and_their_gradients_are_the_same(name, method, tmp_path):
    results = []
    for spare in (False, True):
        model = load(name, tmp_path)
        assert not spare or spare_last_block(model)
        torch.manual_seed(1)
        adapted = adapt.adapt(model, method, {"targets": "all"} if method in ("lora", "dora") else {})
        stir(adapted)
        logits = adapted.eval()(pixel_values=images(name)).logits
        logits.square().sum().backward()
        results.append((logits, {n: p.grad for n, p in adapted.named_parameters() if p.requires_grad}))
    (plain, gradients), (spared, own) = results
    torch.testing.assert_close(spared, plain, rtol=1e-4, atol=1e-5)
    for part, gradient in gradients.items():
        torch.testing.assert_close(own[part], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max() + 1), msg=part)
