"""The command line of a run: one flag for each option of `RunConfig`; the way from flags to a config, and from a config to its command."""

import argparse
import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from ..errors import MedfmcError
from ..subsets import SUBSETS
from .config import RunConfig
from .launcher import launcher_options
from .option import Unset
from .recipes import NONE, recipe_called, recipe_names


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each option of `RunConfig`."""
    hints = get_type_hints(RunConfig)
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(RunConfig):
        name, flag, text = field.name, "--" + field.name.replace("_", "-"), field.metadata["help"].replace("%", "%%")
        title = field.metadata["group"]
        group = groups[title] = groups.get(title) or parser.add_argument_group(title)
        default = field.default.default if isinstance(field.default, Unset) else None
        if default is not None and default is not False and default != {}:
            text += f"; default: {default}"
        kinds = {hints[name], *get_args(hints[name])}
        if name == "subset":
            group.add_argument(flag, choices=list(SUBSETS), help=text)
        elif name == "recipe":
            text += f". These ship: {', '.join(recipe_names())}"
            group.add_argument("--config", flag, dest=name, metavar="NAME|YAML", help=text)
        elif name == "method_options":
            group.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help=text + "; repeatable")
        elif name == "shots":
            group.add_argument(flag, metavar="N", help=text.replace("none", "all"))
        elif bool in kinds:
            group.add_argument(flag, action="store_true", default=None, help=text)
        elif get_origin(hints[name]) is Literal:
            group.add_argument(flag, choices=get_args(hints[name]), help=text)
        elif kinds & {int, float}:
            group.add_argument(flag, type=float if float in kinds else int, metavar="N", help=text)
        else:
            group.add_argument(flag, metavar="NAME", help=text)


def run_config(args: argparse.Namespace) -> RunConfig:
    """The config that a recipe and flags on top of it make; what neither says, the launcher may."""
    flags = {f.name: getattr(args, f.name, None) for f in dataclasses.fields(RunConfig) if f.name != "method_options"}
    values = {name: value for name, value in flags.items() if value is not None}
    if args.option:
        values["method_options"] = parse_options(args.option)
    if "shots" in values:
        values["shots"] = parse_shots(values["shots"])
    recipe = recipe_called(str(values.get("recipe") or NONE))
    return RunConfig.from_dict({name: value for name, value in launcher_options().items() if name not in recipe} | values)


def parse_shots(text: str) -> int | None:
    """`"5"` is 5; `"all"` is None, the whole pool."""
    if text == "all":
        return None
    if text.isdecimal():
        return int(text)
    raise MedfmcError(f"--shots is 1, 5, 10 or all; got {text!r}.")


def parse_options(pairs: Sequence[str]) -> Mapping[str, Any]:
    """`["r=16", "target_modules=[q,v]"]` as a dict; values are read as YAML."""
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise MedfmcError(f"--option takes NAME=VALUE; got {pair!r}.")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise MedfmcError(f"the value of --option {pair} is not YAML: {error}") from None
    return options


def flags_of(config: RunConfig) -> str:
    """The flags of recipes/peft_train.py that give this config, whatever the defaults and the recipe say."""
    plain = RunConfig(config.subset, recipe=NONE)
    recipe = RunConfig(config.subset, method=config.method)
    always = ("subset", "shots", "seed", "method", "model")
    words = []
    for f in dataclasses.fields(RunConfig):
        value = getattr(config, f.name)
        differs = value != getattr(plain, f.name) or value != getattr(recipe, f.name)
        if f.name == "recipe":
            continue  # all that it says is said
        if f.name == "method_options":
            words += [word for name, item in _explicit(config, recipe).items() for word in ("--option", f"{name}={_yaml(item)}")]
        elif f.name in always or (differs and value is not None and value is not False):
            flag = "--" + f.name.replace("_", "-")
            words += [flag] if value is True else [flag, "all" if value is None else str(value)]
    return shlex.join(words)


def _explicit(config: RunConfig, recipe: RunConfig) -> dict:
    """The method's options, and the defaults of those that the recipe sets and the config does not."""
    unset = [name for name in recipe.method_options if name not in config.method_options]
    if not unset:
        return dict(config.method_options)
    from ..adaptation.methods import all_options  # takes a second: PEFT

    return dict(config.method_options) | {name: all_options(config.method, {})[name] for name in unset}


def _yaml(value: object) -> str:
    """A value as a flag takes it: read back as YAML it is the same."""
    try:
        if isinstance(value, str) and yaml.safe_load(value) == value:
            return value
    except yaml.YAMLError:  # such as a pattern that begins with a bracket
        pass
    return json.dumps(value)
