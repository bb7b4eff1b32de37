import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model
from tiny_models import CONFIGS, TOKENS, WINDOWS, images, plain, stir, tiny
from tuner_references import swin_forward, tokens_forward

from medfmc_hf.errors import MedfmcError
from medfmc_hf.tuners import BottleneckConfig
from medfmc_hf.tuners.bottleneck import find_places, targets_of

STYLES = ("houlsby", "pfeiffer", "adaptformer")


def fits(name, style):
    return name not in ("convnext", "resnet", "efficientnet") and (name, style) != ("swinv2", "adaptformer")


def edit_of(model, style, scale):
    """The adapters' effect, computed from their weights alone."""
    weights = {n: p.detach() for n, p in model.named_parameters() if "bottleneck_adapters" in n}
    names = list(dict.fromkeys(n.split(".bottleneck_adapters")[0] for n in weights))

    def edit(block, place, inputs, outputs):
        per_block = 2 if style == "houlsby" else 1
        if place == "attention" and style != "houlsby":
            return outputs
        own = names[per_block * block : per_block * (block + 1)]
        name = own[0] if place == "attention" else own[-1]
        down, down_bias, up, up_bias = (
            weights[f"{name}.bottleneck_adapters.default.{part}"] for part in ("down.weight", "down.bias", "up.weight", "up.bias")
        )
        x = inputs if style == "adaptformer" else outputs
        return outputs + scale * (F.relu(x @ down.T + down_bias) @ up.T + up_bias)

    return edit


@torch.no_grad()
@pytest.mark.parametrize(("name", "style"), [(name, style) for name in [*TOKENS, *WINDOWS] for style in STYLES if fits(name, style)])
def test_equals_the_papers(name, style):
    model, x = get_peft_model(tiny(name), BottleneckConfig(style=style, bottleneck_dim=5, scale=0.7)).eval(), images(name, 2)
    stir(model)
    bare = plain(name, model)
    forward = swin_forward if name in WINDOWS else lambda *a, **k: tokens_forward(name, *a, **k)
    expected = forward(bare, x, edit=edit_of(model, style, 0.7))
    assert torch.allclose(model(pixel_values=x).logits, expected, atol=1e-5)
    assert not torch.allclose(expected, bare(x).logits, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_starts_as_exactly_the_backbone(name, style):
    model, x = tiny(name), images(name)
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # attention may use another kernel if its bias needs a gradient
    expected = model(x).logits
    try:
        adapted = get_peft_model(model, BottleneckConfig(style=style))
    except MedfmcError:
        assert not fits(name, style) and (name, style) != ("convnext", "pfeiffer")
        return
    assert torch.equal(adapted.eval()(pixel_values=x).logits, expected)


def test_scales_of_the_papers():
    assert [BottleneckConfig(style=style).scale for style in STYLES] == [1.0, 1.0, 0.1]


@pytest.mark.parametrize(
    ("name", "style", "said"),
    [("resnet", "houlsby", "attention"), ("resnet", "pfeiffer", "MLP"), ("swinv2", "adaptformer", "an MLP that is one module")],
)
def test_refusals(name, style, said):
    with pytest.raises(MedfmcError, match=said):
        get_peft_model(tiny(name), BottleneckConfig(style=style))


@pytest.mark.parametrize("options", [{"style": "x"}, {"bottleneck_dim": 0}, {"bottleneck_dropout": 1}, {"activation": "tanh"}])
def test_bad_options(options):
    with pytest.raises(MedfmcError, match=next(iter(options))):
        BottleneckConfig(**options)


def test_it_says_which_blocks_it_targeted(capsys):
    get_peft_model(tiny("vit"), BottleneckConfig())
    assert "adaptformer, 64 wide, parallel to the MLP of vit.layers.0 .. vit.layers.1; also trained: classifier" in capsys.readouterr().err
    get_peft_model(tiny("vit"), BottleneckConfig(target_modules=["vit.layers.1.mlp"]))
    assert "parallel to the MLP of vit.layers.1 .. vit.layers.1;" in capsys.readouterr().err
    with pytest.raises(ValueError, match="No modules were targeted"):
        get_peft_model(tiny("vit"), BottleneckConfig(target_modules=["nothing"]))


def test_places_are_found_in_the_given_blocks():
    model = tiny("vit")
    places = find_places(model, ["vit.layers.1"])
    assert targets_of(model, places, "houlsby") == ["vit.layers.1.attention.o_proj", "vit.layers.1.mlp"]
    with pytest.raises(MedfmcError, match=r"adaptformer adapters need .* The block swinv2.*, a Swinv2Layer, has none"):
        swin = tiny("swinv2")
        targets_of(swin, find_places(swin, ["swinv2.encoder.layers.0.blocks.0"]), "adaptformer")
