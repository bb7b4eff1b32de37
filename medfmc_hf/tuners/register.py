"""Registers a tuner of this package with PEFT, so that `get_peft_model` and `PeftModel.from_pretrained` find it by name."""

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method
from peft.utils.peft_types import PeftType

from ..private_names import add_member


def register(name: str, config_cls: type[PeftConfig], model_cls: type[BaseTuner]) -> None:
    """Register a tuner with PEFT; registering it again does nothing.

    Args:
        name: name in lower case; in upper case it is the `peft_type` in `adapter_config.json`.
        config_cls: config of the tuner.
        model_cls: class of the tuner.

    Raises:
        KeyError: PEFT has another method of that name.
    """
    member = name.upper()
    add_member(PeftType, member)
    if PEFT_TYPE_TO_CONFIG_MAPPING.get(PeftType(member)) is config_cls:
        return
    register_peft_method(name=name, config_cls=config_cls, model_cls=model_cls)
