import math

import pytest
import torch
from peft import get_peft_model
from prompted import prompts_of
from tiny_models import CONVOLUTIONAL, tiny

from medfmc_hf.errors import MedfmcError
from medfmc_hf.tuners import VptConfig


def test_prompts_start_as_the_paper_says():
    torch.manual_seed(0)
    values = torch.cat([p.flatten() for p in prompts_of(get_peft_model(tiny("vit"), VptConfig(num_prompts=400)))])
    bound = math.sqrt(6 / (3 * 4 * 4 + 16))
    assert values.abs().max() <= bound
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    normal = torch.cat([p.flatten() for p in prompts_of(get_peft_model(tiny("vit"), VptConfig(num_prompts=400, init="normal")))])
    assert normal.std().item() == pytest.approx(0.02, rel=0.05)


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
