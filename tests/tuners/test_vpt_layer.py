import pytest
import torch
from prompted import prompted, prompts_of
from tiny_models import TOKENS, images, plain
from tuner_references import tokens_forward

from medfmc_hf.tuners.vpt_layer import PromptedBlock


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
@pytest.mark.parametrize("name", ["vit", "beit"])
def test_one_projection_serves_all_blocks(name):
    model, x = prompted(name, projection=5), images(name)
    projections = [m for n, m in model.named_modules() if n.endswith("vpt_projection.default")]
    assert len(projections) == 1
    expected = tokens_forward(name, plain(name, model), x, [projections[0](p) for p in prompts_of(model)])
    assert torch.allclose(model(pixel_values=x).logits, expected, atol=1e-5)


def test_dropout_only_in_training():
    model, x = prompted("vit", prompt_dropout=0.5), images("vit")
    with torch.no_grad():
        assert torch.equal(model(pixel_values=x).logits, model(pixel_values=x).logits)
        assert not torch.equal(model.train()(pixel_values=x).logits, model(pixel_values=x).logits)


def test_another_image_size_than_the_models_own():
    model = prompted("beit")
    assert model(pixel_values=torch.randn(2, 3, 24, 24), interpolate_pos_encoding=True).logits.shape == (2, 4)


@torch.no_grad()
@pytest.mark.parametrize("position", [0, 1, 3])
def test_a_bias_is_zero_where_a_prompt_attends_or_is_attended(position):
    """Biases 1 .. 9 for the pairs of three tokens, with two prompts among them."""
    bias = torch.arange(1.0, 10).view(1, 3, 3)
    widened = PromptedBlock(torch.nn.Identity(), position)._widen(bias, 2)
    old = [place for place in range(5) if not position <= place < position + 2]
    assert widened.shape == (1, 5, 5)
    assert torch.equal(widened[:, old][:, :, old], bias)
    assert widened.sum() == bias.sum()
