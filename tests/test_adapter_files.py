"""The names of saved files are those that the libraries write."""

import peft
import transformers
from peft.utils.peft_types import PeftType

import medfmc_hf.tuners  # noqa: F401 - registers them
from medfmc_hf import adapter_files


def test_names_are_the_libraries_own():
    assert (adapter_files.PEFT_CONFIG, adapter_files.PEFT_WEIGHTS) == (peft.utils.CONFIG_NAME, peft.utils.SAFETENSORS_WEIGHTS_NAME)
    assert adapter_files.WHOLE == transformers.utils.SAFE_WEIGHTS_NAME
    assert set(adapter_files.OUR_PEFT_TYPES) <= {kind.value for kind in PeftType}
