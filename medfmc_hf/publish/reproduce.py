"""The command that repeats a run."""

import dataclasses
import json
import shlex

import yaml

from ..options import recipe_of
from ..runs import RunConfig


def flags_of(config: RunConfig) -> str:
    """The flags of recipes/peft_train.py that give this config, whatever the defaults and the recipe say."""
    defaults = RunConfig(config.subset)
    recipe = RunConfig.from_dict({"subset": config.subset} | recipe_of(config.method))
    always = ("subset", "shots", "seed", "method", "model")
    words = []
    for f in dataclasses.fields(RunConfig):
        value = getattr(config, f.name)
        differs = value != getattr(defaults, f.name) or value != getattr(recipe, f.name)
        if f.name == "method_options":
            words += [word for name, option in _explicit(config, recipe).items() for word in ("--option", f"{name}={_yaml(option)}")]
        elif f.name in always or (differs and value is not None and value is not False):
            flag = "--" + f.name.replace("_", "-")
            words += [flag] if value is True else [flag, "all" if value is None else str(value)]
    return shlex.join(words)


def _explicit(config: RunConfig, recipe: RunConfig) -> dict:
    """The method's options, and the defaults of those that the recipe sets and the config does not."""
    unset = [name for name in recipe.method_options if name not in config.method_options]
    if not unset:
        return dict(config.method_options)
    from ..models.methods import all_options  # takes a second: PEFT

    return dict(config.method_options) | {name: all_options(config.method, {})[name] for name in unset}


def _yaml(value: object) -> str:
    """A value as a flag takes it: read back as YAML it is the same."""
    try:
        if isinstance(value, str) and yaml.safe_load(value) == value:
            return value
    except yaml.YAMLError:  # such as a pattern that begins with a bracket
        pass
    return json.dumps(value)
