import argparse
import dataclasses

import pytest

from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig
from medfmc_hf.runs.flags import add_run_arguments, run_config
from medfmc_hf.runs.recipes import recipe_names


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


@pytest.mark.parametrize(("text", "says"), [("- a\n", "list"), ("a: [", "not YAML"), ("learning_rte: 1\nsubset: endo\n", "learning_rate")])
def test_a_broken_recipe_is_explained(tmp_path, text, says):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(MedfmcError) as error:
        parsed("--config", str(tmp_path / "broken.yaml"), "--subset", "endo")
    assert says in str(error.value)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_that_ship_are_configs(name):
    from medfmc_hf.runs.recipes import recipe_of

    RunConfig.from_dict({"subset": "endo"} | recipe_of(name))
