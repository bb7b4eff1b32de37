"""Folds LoRA's low-rank updates into the weights while a trained model is tested, which saves their cost for every image."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer
from torch import nn


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Inside the block the weights are W + BA and the adapters idle; afterwards all is as it was, bit for bit.

    Other methods have nothing to merge, or cannot: for their models nothing changes.
    """
    layers = [part for part in model.modules() if isinstance(part, LoraLayer) and not part.merged and not part.disable_adapters]
    kept = {}
    try:
        with torch.no_grad():
            for layer in layers:
                base = layer.get_base_layer()
                kept[layer] = {name: p.detach().clone() for name, p in base.named_parameters(recurse=False)}
                layer.merge()
        yield
    finally:
        with torch.no_grad():
            for layer, values in kept.items():
                layer.unmerge()  # by subtraction, which rounds; the copies undo that
                for name, value in values.items():
                    layer.get_base_layer().get_parameter(name).data.copy_(value)
