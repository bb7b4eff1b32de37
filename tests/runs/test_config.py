"""Options and recipes: what is taken, what is refused, and that the shell, a grid and Python make the same config."""

import argparse
from dataclasses import replace

import numpy as np
import pytest

from medfmc_hf.benchmark.grid import Grid
from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig
from medfmc_hf.runs.flags import add_run_arguments, run_config
from medfmc_hf.runs.recipes import recipe_names


def shell(*argv: str) -> RunConfig:
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    return run_config(parser.parse_args(argv))


METHODS = [name for name in recipe_names() if not name.startswith(("official", "long"))]


@pytest.mark.parametrize("method", METHODS)
def test_shell_python_and_grid_make_the_same_config(method):
    python = RunConfig("endo", method=method, model="a/b")
    assert python == shell("--subset", "endo", "--method", method, "--model", "a/b")
    (grid,) = Grid.from_dict({"backbones": "a/b", "methods": method, "subsets": "endo", "shots": 5, "seeds": 0}).configs()
    assert python == grid
    assert python.recipe == method and python.changes() == {}


def test_options_go_on_top_of_the_recipes_alike():
    python = RunConfig("endo", method="vpt", method_options={"prompt_dropout": 0.1}, epochs=3)
    assert dict(python.method_options) == {"num_prompts": 8, "prompt_dropout": 0.1}
    assert python == shell("--subset", "endo", "--method", "vpt", "--option", "prompt_dropout=0.1", "--epochs", "3")
    assert python.changes() == {"method_options": {"num_prompts": 8, "prompt_dropout": 0.1}, "epochs": 3}


def test_a_named_recipe_is_taken_from_python_too(tmp_path):
    python = RunConfig("endo", recipe="official-vpt-swin-b")
    assert (python.method, python.protocol, python.image_size, python.epochs) == ("vpt-shallow", "official", 384, 20)
    assert python == shell("--subset", "endo", "--config", "official-vpt-swin-b")
    file = tmp_path / "mine.yaml"
    file.write_text("method: lora\nepochs: 7\nlearning_rate: 1e-4\n")
    assert RunConfig("endo", recipe=str(file)).learning_rate == 1e-4
    assert dict(RunConfig("endo", recipe=str(file)).method_options) == {}, "a recipe of one's own is whole"


def test_no_recipe_is_the_plain_defaults():
    plain = RunConfig("endo", method="vpt", recipe="none")
    assert (plain.learning_rate, dict(plain.method_options)) == (1e-3, {})


def test_another_method_is_another_recipe():
    with pytest.raises(MedfmcError, match="Make a new RunConfig"):
        replace(RunConfig("endo", method="vpt"), method="lora")


def test_a_record_is_read_as_it_is():
    """Such as of version 0.1.0, where `RunConfig(method="vpt")` had no options, and a precision chosen by a probe."""
    values = {"subset": "endo", "method": "vpt", "method_options": {}, "learning_rate": 1e-3, "dtype": "auto"}
    config = RunConfig.from_record(values)
    assert (dict(config.method_options), config.learning_rate, config.dtype) == ({}, 1e-3, "float32")
    assert dict(replace(config, epochs=2).method_options) == {}
    gone = RunConfig.from_record(RunConfig("endo").to_dict() | {"recipe": "/home/someone/gone.yaml"})
    assert replace(gone, epochs=2).recipe == "/home/someone/gone.yaml"


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


def test_a_grid_repeats_the_training_of_each_split():
    configs = Grid.from_dict({"backbones": "a/b", "methods": "lora", "subsets": "endo", "shots": 5, "seeds": [0, 1], "repeat": 3}).configs()
    assert [(c.seed, c.seed_of_training) for c in configs] == [(0, 0), (0, 100), (0, 200), (1, 1), (1, 101), (1, 201)]
    assert len({str(c.dataset_config) for c in configs}) == 2
    for repeat in (0, True, "three"):
        with pytest.raises(MedfmcError, match="repeat"):
            Grid.from_dict({"backbones": "a/b", "methods": "lora", "repeat": repeat}).configs()
