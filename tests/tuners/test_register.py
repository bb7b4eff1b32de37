import pytest
from peft import LoraConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import LoraModel
from peft.utils.peft_types import PeftType

from medfmc_hf.tuners import BottleneckConfig, BottleneckModel, VptConfig, VptModel
from medfmc_hf.tuners.register import register

OURS = [("vpt", VptConfig, VptModel), ("bottleneck", BottleneckConfig, BottleneckModel)]


@pytest.mark.parametrize(("name", "config_cls", "model_cls"), OURS)
def test_peft_knows_our_tuners_by_name_and_twice_is_once(name, config_cls, model_cls):
    types = list(PeftType)
    register(name, config_cls, model_cls)
    assert list(PeftType) == types
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name.upper())] is config_cls
    assert PEFT_TYPE_TO_TUNER_MAPPING[PeftType(name.upper())] is model_cls


def test_a_name_of_pefts_own_is_not_taken():
    with pytest.raises(KeyError, match="already PEFT method"):
        register("lora", VptConfig, VptModel)
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.LORA] is LoraConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[PeftType.LORA] is LoraModel
