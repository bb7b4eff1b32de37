import peft
import pytest
import torch
from tiny_models import CONFIGS, images, tiny

from medfmc_hf.adaptation.inject import inject, probe, remove_layers
from medfmc_hf.errors import MedfmcError
from medfmc_hf.tuners import BottleneckConfig, VptConfig


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("config_cls", "options", "said"),
    [
        (peft.LoraConfig, {"target_modules": ["nowhere"]}, "PEFT's code of this method refuses .* It says: NoMatchingPeftModuleError"),
        (peft.LoraConfig, {"target_modules": ["q_proj"], "no_option": 1}, "It says: TypeError"),
        (peft.C3AConfig, {"target_modules": ["fc2"], "block_size": 5}, "It says: ValueError"),  # fails among the layers
        (peft.PolyConfig, {"target_modules": ["q_proj"]}, "task_ids"),  # fails as it runs
        (VptConfig, {"target_modules": ["layers.1", "q_proj"]}, "^prompts go before blocks"),  # an error of ours is passed on
    ],
)
def test_a_failure_is_one_error_and_leaves_the_backbone_whole(config_cls, options, said):
    model = tiny("vit")
    before = state(model)
    with pytest.raises(MedfmcError, match=said):
        inject(model, config_cls, options)
    assert same(state(model), before)
    assert not hasattr(model, "peft_config")
    inject(model, peft.LoraConfig, {"target_modules": ["q_proj"]})


@pytest.mark.parametrize("config", [VptConfig(), BottleneckConfig(style="houlsby"), peft.LoraConfig(target_modules=["fc1"])])
def test_layers_are_taken_off_with_their_hooks(config):
    model, x = tiny("beit"), images("beit")
    before, hooks = state(model), sum(len(part._forward_hooks) for part in model.modules())
    config.modules_to_save = ["classifier"]
    adapted = peft.get_peft_model(model, config)
    assert not same(state(model), before)
    remove_layers(adapted.get_base_model())
    assert same(state(model), before)
    assert sum(len(part._forward_hooks) for part in model.modules()) == hooks
    assert model(x).logits.shape == (3, 4)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"resnet"}))  # whose config says no size
def test_a_probe_is_one_image_of_zeros(name):
    model = tiny(name).train()
    logits = probe(model)
    assert model.training
    assert torch.equal(logits, model.eval()(torch.zeros_like(images(name, 1))).logits)
