import math

import pytest
import torch
from prompted import prompted, prompts_of
from tiny_models import WINDOWS, images, plain, tiny
from tuner_references import swin_forward

from medfmc_hf.errors import MedfmcError
from medfmc_hf.models.structure import structure_of
from medfmc_hf.tuners import windows


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
@pytest.mark.parametrize("name", WINDOWS)
def test_a_block_without_prompts_is_the_block(name):
    """Also where SwinV2's cosine, times up to 100, outweighs a mask of -100: transformers adds its mask twice."""
    stage = tiny(name).get_submodule(f"{name}.encoder.layers.0")
    for block in stage.blocks if name == "swinv2" else ():
        own = block.attention.self
        own.query.weight.copy_(torch.eye(8))
        own.key.weight.copy_(-torch.eye(8))
        own.query.bias.zero_()
        own.logit_scale.fill_(math.log(100))
    layer, patches = windows.prompted_stage(stage), torch.randn(2, 64, 8)
    assert [block.shift_size for block in stage.blocks] == [0, 1]
    for block in stage.blocks:
        assert torch.allclose(layer._block(block, patches, 0, (8, 8)), block(patches, (8, 8))[0], atol=1e-5)


def test_a_grid_that_windows_do_not_divide():
    assert prompted("swin")(pixel_values=torch.randn(2, 3, 40, 40)).logits.shape == (2, 4)


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize(("sides", "shift"), [((4, 6), 0), ((4, 6), 1), ((3, 5), 0), ((3, 5), 1)])
def test_windows_are_cut_and_joined_again(name, sides, shift):
    block = structure_blocks(tiny(name))[0]
    block.shift_size = shift
    patches = torch.randn(2, sides[0] * sides[1], 8)
    cut, padded = windows._cut_into_windows(block, patches, sides)
    assert padded == (4, 6)
    assert cut.shape == (2, 6, 4, 8)
    assert torch.equal(windows._join_windows(block, cut, padded, sides), patches)
    corner = cut[0, 0].view(2, 2, 8)  # the first window of the grid after the shift
    assert torch.equal(corner[0, 0], patches[0, shift * sides[1] + shift])


def structure_blocks(model):
    return [model.get_submodule(name) for name in structure_of(model).blocks]


def test_windows_of_another_kind_are_refused():
    stage = torch.nn.Module()
    stage.blocks = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    with pytest.raises(MedfmcError, match=r"attention\.relative_position_bias or attention\.self in Linear"):
        windows.prompted_stage(stage)
