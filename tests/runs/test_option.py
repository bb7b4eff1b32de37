"""What a value of an option may be, and the one form it takes."""

import numpy as np
import pytest

from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("image_size", -5, "from 1 to 8192"),
        ("image_size", "big", "a whole number"),
        ("method", 3, "text"),
        ("shots", True, "all for the whole pool"),
        ("shots", 2.5, "all for the whole pool"),
        ("seed", True, "a whole number"),
        ("seed", -1, "at least 0"),
        ("training_seed", -1, "from 0 to"),
        ("learning_rate", 0, "above 0"),
        ("learning_rate", True, "a number"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", float("inf"), "a number"),
        ("warmup_epochs", 1e9, "at most epochs"),
        ("warmup_epochs", -1, "at least 0"),
        ("predict_challenge", "no", "true or false"),
        ("predict_challenge", 1, "true or false"),
        ("epochs", 1.5, "a whole number"),
        ("epochs", "5", "a whole number"),
        ("batch_size", 0, "from 1"),
        ("weight_decay", None, "a number"),
        ("optimizer", "lion", "adamw, sgd"),
        ("protocol", None, "clean, official"),
        ("method_options", ["r"], "a mapping"),
        ("method_options", {3: 4}, "a mapping"),
        ("model", None, "text"),
        ("dtype", "auto", "dtype: bfloat16"),
        ("dtype", "float16", "float32, bfloat16"),
        ("recipe", "nowhere.yaml", "there is no recipe"),
        ("recipe", 3, "text"),
    ],
)
def test_a_value_that_is_none_of_its_option_is_refused(option, value, says):
    for make in (lambda: RunConfig("endo", **{option: value}), lambda: RunConfig.from_dict({"subset": "endo", option: value})):
        with pytest.raises(MedfmcError) as error:
            make()
        assert says in str(error.value) and option in str(error.value)


def test_numbers_have_one_form():
    one = RunConfig("endo", learning_rate=1, seed=np.int64(2), epochs=np.int32(3), warmup_epochs=1)
    assert repr((one.learning_rate, one.seed, one.epochs)) == "(1.0, 2, 3)" and one.to_dict()["warmup_epochs"] == 1.0
    assert RunConfig.from_dict({"subset": "endo", "learning_rate": "1e-3"}).learning_rate == 1e-3  # text in YAML 1.1
    assert RunConfig.from_dict({"subset": "endo", "shots": "all"}).shots is None
