import argparse
import dataclasses
import shlex

import pytest

from medfmc_hf.adaptation.methods import all_options
from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import MethodOptions, RunConfig
from medfmc_hf.runs.flags import add_run_arguments, flags_of, run_config


def parsed(*argv: str) -> RunConfig:
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    return run_config(parser.parse_args(argv))


def test_every_option_has_a_flag_with_help():
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    helps = {action.dest: action.help for action in parser._actions}
    for field in dataclasses.fields(RunConfig):
        name = {"method_options": "option"}.get(field.name, field.name)
        assert helps[name].startswith(field.metadata["help"].split(",")[0].split(" none")[0]), name


def test_flags_override_the_recipe_of_the_method(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: lora\nepochs: 3\nlearning_rate: 0.5\nmethod_options: {r: 2, alpha: 4}\n")
    config = parsed("--config", str(recipe), "--subset", "endo", "--epochs", "7", "--option", "r=16")
    assert (config.method, config.epochs, config.learning_rate, dict(config.method_options)) == ("lora", 7, 0.5, {"r": 16, "alpha": 4})


def test_shots_may_be_all():
    assert parsed("--subset", "endo", "--shots", "all").shots is None


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "which subset"),
        (["--subset", "endo", "--shots", "five"], "1, 5, 10 or all"),
        (["--subset", "endo", "--option", "r"], "NAME=VALUE"),
        (["--subset", "endo", "--config", "nowhere.yaml"], "lora"),
    ],
)
def test_mistakes_are_explained(argv, says):
    with pytest.raises(MedfmcError) as error:
        parsed(*argv)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shots": None, "seed": 3},
        {"protocol": "official", "select": "best", "epochs": 3, "predict_challenge": True},
        {"method": "vpt", "method_options": {"num_prompts": 5}, "image_size": 384, "dtype": "bfloat16"},
        {"model": "a folder/with spaces", "learning_rate": 3e-5, "revision": "abc"},
        {"method_options": {"target_modules": ["q", "v"], "bias": "none", "use_rslora": True, "rank_pattern": None}},
    ],
)
def test_the_flags_give_the_config_back(options):
    config = RunConfig.from_dict({"subset": "endo", "method": "lora"} | options)
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    again = run_config(parser.parse_args(shlex.split(flags_of(config))))
    plain = [dataclasses.replace(one, method_options=MethodOptions(), recipe="none") for one in (again, config)]
    assert plain[0] == plain[1]
    assert all_options(config.method, again.method_options) == all_options(config.method, config.method_options)
