"""Tiny classifiers with visual prompts, for the tests of the tuner and of its layers."""

import torch
from peft import PeftModel, get_peft_model
from tiny_models import stir, tiny

from medfmc_hf.tuners import VptConfig


def prompted(name: str, **options) -> PeftModel:
    """A model of `tiny_models` with three prompts, in evaluation mode, moved away from its initial values."""
    model = get_peft_model(tiny(name), VptConfig(num_prompts=3, **options)).eval()
    stir(model)
    return model


def prompts_of(model: PeftModel) -> list[torch.Tensor]:
    """The prompts in the order of the blocks, as the tuner holds them."""
    found = [p.detach() for n, p in model.named_parameters() if "vpt_prompts" in n]
    return [row for p in found for row in (p if p.ndim == 3 else p[None])]
