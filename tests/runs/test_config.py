"""Options and recipes: what is taken, what is refused, and that the shell, a grid and Python make the same config."""

import argparse
import json
from dataclasses import replace

import pytest

from medfmc_hf.benchmark.grid import Grid
from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig
from medfmc_hf.runs.flags import add_run_arguments, run_config
from medfmc_hf.runs.recipes import recipe_names

CONFIG = RunConfig(subset="endo", shots=5, seed=1, model="somewhere/backbone", method_options={"r": 4})


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


def test_config_survives_a_dict():
    assert RunConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


def test_config_names_its_dataset_config():
    assert str(CONFIG.dataset_config) == "endo-5shot-seed1"
    assert str(replace(CONFIG, protocol="official").dataset_config) == "endo-5shot-seed1-official"
    assert str(replace(CONFIG, protocol="transfer").dataset_config) == "endo-transfer"
    assert str(replace(CONFIG, shots=None).dataset_config) == "endo"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"subset": "lung"}, "chest, colon, endo"),
        ({"subset": "endo", "shots": 3}, "(1, 5, 10)"),
        ({"subset": "retino", "protocol": "official"}, "not in the challenge"),
        ({"subset": "endo", "epoch": 3}, "epochs"),
        ({"subset": "endo", "epochs": 1.5}, "whole number"),
        ({"subset": "endo", "learning_rate": float("nan")}, "above 0"),
        ({"subset": "endo", "optimizer": "lion"}, "adamw, sgd"),
    ],
)
def test_a_wrong_config_says_what_is_right(values, says):
    with pytest.raises(MedfmcError) as error:
        RunConfig.from_dict(values)
    assert says in str(error.value)


@pytest.mark.parametrize("options", [{"subset": "colon", "shots": None}, {"subset": "endo", "protocol": "transfer"}])
def test_where_there_is_one_split_a_seed_is_that_of_the_training(options):
    config = RunConfig(**options, seed=3)
    assert (config.seed, config.training_seed, config.seed_of_training) == (0, 3, 3)
    assert config == RunConfig(**options, seed=0, training_seed=3)
    assert RunConfig(**options, seed=3, training_seed=0) == RunConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 10**400},
        {"epochs": 10**400},
        {"warmup_epochs": -(10**400)},
        {"recipe": "a\0"},
        {"recipe": "x" * 5000},
        {"recipe": "."},
    ],
)
def test_values_beyond_all_bounds_are_refused_with_a_sentence(options):
    with pytest.raises(MedfmcError) as caught:
        RunConfig("endo", **options)
    assert len(str(caught.value)) < 600


def test_train_free_methods_read_none_of_the_loops_options():
    from medfmc_hf.adaptation.methods import METHODS
    from medfmc_hf.runs.config import OF_THE_LOOP, TRAIN_FREE

    assert set(TRAIN_FREE) == {name for name, method in METHODS.items() if method.kind == "frozen"}
    acting = RunConfig("endo", method="knn", epochs=7).acting()
    assert not set(OF_THE_LOOP) & set(acting) and {"dtype", "image_size", "method_options", "recipe"} <= set(acting)
    assert set(RunConfig("endo").acting()) == set(RunConfig("endo").to_dict())
