import math

import pytest
import torch
from peft import get_peft_model
from tiny_models import CONVOLUTIONAL, TOKENS, WINDOWS, images, plain, stir, tiny
from tuner_references import swin_forward, tokens_forward

from medfmc_hf.errors import MedfmcError
from medfmc_hf.tuners import VptConfig


def prompted(name, **options):
    model = get_peft_model(tiny(name), VptConfig(num_prompts=3, **options)).eval()
    stir(model)
    return model


def prompts_of(model):
    """The prompts in the order of the blocks, as the tuner holds them."""
    found = [p.detach() for n, p in model.named_parameters() if "vpt_prompts" in n]
    return [row for p in found for row in (p if p.ndim == 3 else p[None])]


@torch.no_grad()
@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("deep", [True, False])
def test_equals_the_paper_on_token_models(name, deep):
    model, x = prompted(name, deep=deep), images(name)
    bare = plain(name, model)
    assert torch.allclose(tokens_forward(name, bare, x), bare(x).logits, atol=1e-5)  # the reference itself
    expected = tokens_forward(name, bare, x, prompts_of(model), deep)
    assert torch.allclose(model(pixel_values=x).logits, expected, atol=1e-5)
    assert not torch.allclose(expected, bare(x).logits, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("options", [{"deep": True}, {"deep": False}, {"deep": False, "pool_prompts": True}])
def test_equals_the_paper_in_windows(name, options):
    model, x = prompted(name, **options), images(name, 2)
    bare = plain(name, model)
    assert torch.allclose(swin_forward(bare, x), bare(x).logits, atol=1e-5)  # the reference itself
    expected = swin_forward(bare, x, prompts_of(model), **options)
    assert torch.allclose(model(pixel_values=x).logits, expected, atol=1e-5)
    assert not torch.allclose(expected, bare(x).logits, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit", "beit"])
def test_one_projection_serves_all_blocks(name):
    model, x = prompted(name, projection=5), images(name)
    projections = [m for n, m in model.named_modules() if n.endswith("vpt_projection.default")]
    assert len(projections) == 1
    expected = tokens_forward(name, plain(name, model), x, [projections[0](p) for p in prompts_of(model)])
    assert torch.allclose(model(pixel_values=x).logits, expected, atol=1e-5)


def test_prompts_start_as_the_paper_says():
    torch.manual_seed(0)
    values = torch.cat([p.flatten() for p in prompts_of(get_peft_model(tiny("vit"), VptConfig(num_prompts=400)))])
    bound = math.sqrt(6 / (3 * 4 * 4 + 16))
    assert values.abs().max() <= bound
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    normal = torch.cat([p.flatten() for p in prompts_of(get_peft_model(tiny("vit"), VptConfig(num_prompts=400, init="normal")))])
    assert normal.std().item() == pytest.approx(0.02, rel=0.05)


def test_dropout_only_in_training():
    model, x = prompted("vit", prompt_dropout=0.5), images("vit")
    with torch.no_grad():
        assert torch.equal(model(pixel_values=x).logits, model(pixel_values=x).logits)
        assert not torch.equal(model.train()(pixel_values=x).logits, model(pixel_values=x).logits)


def test_another_image_size_than_the_models_own():
    model = prompted("beit")
    assert model(pixel_values=torch.randn(2, 3, 24, 24), interpolate_pos_encoding=True).logits.shape == (2, 4)
    assert prompted("swin")(pixel_values=torch.randn(2, 3, 40, 40)).logits.shape == (2, 4)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_convolutional_network_has_no_tokens(name):
    with pytest.raises(MedfmcError, match="no sequence of tokens"):
        get_peft_model(tiny(name), VptConfig())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_prompts": 0}, "num_prompts"),
        ({"num_prompts": True}, "num_prompts"),
        ({"prompt_dropout": 1.0}, "prompt_dropout"),
        ({"init": "zeros"}, "init"),
        ({"pool_prompts": True}, "deep=False"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(MedfmcError, match=said):
        VptConfig(**options)


def test_prompts_go_before_blocks_only():
    with pytest.raises(MedfmcError, match="prompts go before blocks"):
        get_peft_model(tiny("vit"), VptConfig(target_modules=["q_proj"]))


def test_projection_needs_one_width():
    with pytest.raises(MedfmcError, match="one width"):
        get_peft_model(tiny("swin"), VptConfig(projection=4))
