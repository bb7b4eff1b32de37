import pytest
import torch
from tiny_models import CONFIGS, CONVOLUTIONAL, TOKENS, WINDOWS, images, tiny
from torch import nn

from medfmc_hf.errors import MedfmcError
from medfmc_hf.models.structure import (
    attention_of,
    attention_output,
    block_width,
    has_class_token,
    inside_attention,
    inside_mlp,
    mlp_module,
    mlp_output,
    norm_layers,
    patch_pixels,
    query_value,
    structure_of,
)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_structure_is_found(name):
    model = tiny(name)
    found = structure_of(model)
    assert found.family == ("tokens" if name in TOKENS else "windows" if name in WINDOWS else "convolutional")
    assert len(found.heads) == (2 if name == "deit teacher" else 1)
    assert all(model.get_submodule(head).out_features == 4 for head in found.heads)
    if name in CONVOLUTIONAL:
        return
    assert len(found.blocks) == (4 if name in WINDOWS else 2)
    for part in query_value(model, found):
        assert isinstance(model.get_submodule(part), torch.nn.Linear)
    for block in map(model.get_submodule, found.blocks):
        assert isinstance(block.get_submodule(attention_output(block)), torch.nn.Linear)
        assert isinstance(block.get_submodule(mlp_output(block)), torch.nn.Linear)
        assert (mlp_module(block) is None) == (name == "swinv2")


def test_an_unknown_structure_says_what_was_looked_for():
    with pytest.raises(MedfmcError, match="looked for a ModuleList or Sequential"):
        structure_of(torch.nn.Linear(3, 3))
    headless = tiny("vit").vit
    with pytest.raises(MedfmcError, match="no classification head"):
        structure_of(headless)


def test_the_layers_of_a_block():
    model = tiny("vit")
    found = structure_of(model)
    first = [f"vit.layers.0.{name}" for name in ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj")]
    assert inside_attention(model, found)[:4] == first
    assert inside_attention(model, found, ("key", "output"))[:2] == [first[1], first[3]]
    assert query_value(model, found)[:2] == [first[0], first[2]]
    assert inside_mlp(model, found)[:2] == ["vit.layers.0.mlp.fc1", "vit.layers.0.mlp.fc2"]
    assert set(norm_layers(model)) == {
        "vit.layernorm",
        *(f"vit.layers.{n}.layernorm_{where}" for n in (0, 1) for where in ("before", "after")),
    }


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_attention_and_mlp_split_the_dense_layers_of_the_blocks(name):
    model = tiny(name)
    found = structure_of(model)
    attention, mlp = inside_attention(model, found), inside_mlp(model, found)
    dense = [
        f"{block}.{inner}"
        for block in found.blocks
        for inner, part in model.get_submodule(block).named_modules()
        if (isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.groups == 1)) and "position_bias" not in inner
    ]
    if name in CONVOLUTIONAL:
        assert attention == mlp == dense
    else:
        assert sorted(attention + mlp) == sorted(dense)


def test_a_fused_projection_is_named_once():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(4, 12), nn.Linear(4, 4)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn, self.mlp = Attention(), nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))

    model = nn.Module()
    model.config = type("Config", (), {"num_labels": 3})
    model.blocks, model.head = nn.ModuleList([Block(), Block()]), nn.Linear(4, 3)
    found = structure_of(model)
    assert (found.family, found.blocks, found.heads) == ("tokens", ("blocks.0", "blocks.1"), ("head",))
    assert query_value(model, found) == ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]
    assert inside_attention(model, found)[:2] == ["blocks.0.attn.qkv", "blocks.0.attn.proj"]
    assert inside_mlp(model, found)[:2] == ["blocks.0.mlp.0", "blocks.0.mlp.2"]
    assert (attention_output(model.blocks[0]), mlp_module(model.blocks[0]), block_width(model.blocks[0])) == ("attn.proj", "mlp", 4)


@torch.no_grad()
@pytest.mark.parametrize("name", [*TOKENS, *WINDOWS])
def test_the_width_is_that_of_the_tokens(name):
    model, widths = tiny(name), []
    blocks = [model.get_submodule(block) for block in structure_of(model).blocks]

    def note(block, inputs, options):
        tokens = inputs[0] if inputs else options["hidden_states"]
        widths.append(tokens.shape[-1])

    for block in blocks:
        block.register_forward_pre_hook(note, with_kwargs=True)
    model(pixel_values=images(name))
    assert [block_width(block) for block in blocks] == widths


def test_patches_and_class_tokens():
    assert {name for name in CONFIGS if has_class_token(tiny(name))} == set(TOKENS) - {"siglip vision"}
    assert (patch_pixels(tiny("vit")), patch_pixels(tiny("swin"))) == (3 * 4 * 4, 3 * 2 * 2)
    assert patch_pixels(nn.Linear(2, 2)) == 3 * 16 * 16


def test_a_convolutional_block_has_no_attention():
    block = tiny("resnet").get_submodule(structure_of(tiny("resnet")).blocks[0])
    assert (attention_of(block), attention_output(block)) == (None, None)
