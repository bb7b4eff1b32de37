"""Puts a PEFT method into a backbone, all or nothing: where PEFT fails, the backbone is left as it was."""

import warnings
from collections.abc import Mapping
from typing import Any

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn

from ..errors import MedfmcError
from ..models.backbones import image_size_of


def inject(model: nn.Module, config_cls: type[peft.PeftConfig], options: Mapping[str, Any]) -> peft.PeftModel:
    """`get_peft_model`, whose many ways to fail become one error.

    An image of zeros is run through, since some methods fail only there.

    Args:
        model: the backbone; changed in place.
        config_cls: the method's config.
        options: what to make the config of; it may refuse them.

    Raises:
        MedfmcError: the method does not fit the model, or its options do not fit each other.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            adapted = peft.get_peft_model(model, config_cls(**options), revision=getattr(getattr(model, "origin", None), "revision", None))
        with torch.no_grad():
            probe(adapted)
        return adapted
    except Exception as error:  # PEFT raises nearly every kind
        remove_layers(model)
        if isinstance(error, MedfmcError):
            raise
        raise MedfmcError(
            f"PEFT's code of this method refuses the layers of this backbone. It says: {type(error).__name__}: {error}"
        ) from error


def probe(model: Any) -> torch.Tensor:
    """The logits of one image of zeros, in evaluation mode."""
    size = model.origin.image_size if hasattr(model, "origin") else image_size_of(model.config)
    some = next(model.parameters())
    was_training = model.training
    try:
        return model.eval()(pixel_values=torch.zeros(1, 3, size, size, device=some.device, dtype=some.dtype)).logits
    finally:
        model.train(was_training)


def remove_layers(model: nn.Module) -> None:
    """Put every wrapped module back in the place of its wrapper, however far PEFT came."""
    for name, part in list(model.named_modules()):
        if isinstance(part, ModulesToSaveWrapper):
            model.set_submodule(name, part.original_module)
        elif isinstance(part, BaseTunerLayer) and hasattr(part, "base_layer"):
            getattr(part, "release", lambda: None)()
            model.set_submodule(name, part.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
