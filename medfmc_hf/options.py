"""Turns a YAML recipe and command-line flags into a `RunConfig`. The flags' help is the docstring of `RunConfig`."""

import argparse
import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from .errors import MedfmcError
from .runs import RunConfig
from .shipped import shipped
from .subsets import SUBSETS

_GROUPS = {
    "which rows": ("subset", "shots", "seed", "protocol"),
    "which model and method": ("model", "revision", "method", "method_options", "image_size"),
    "how to train": (
        "epochs", "batch_size", "learning_rate", "weight_decay", "optimizer", "schedule", "final_lr_fraction", "warmup_epochs",
        "gradient_clip", "augmentation", "loss", "sampling", "select", "dtype", "compile",
    ),
    "what to predict": ("predict_challenge",),
}  # fmt: skip


def attribute_help() -> dict[str, str]:
    """What the docstring of `RunConfig` says of each attribute."""
    section = inspect.getdoc(RunConfig).split("Attributes:")[1]
    found = re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w|\Z)", section, flags=re.M | re.S)
    return {name: " ".join(text.replace("`", "").replace("%", "%%").split()) for name, text in found}


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each attribute of `RunConfig`, and `--config` and `--option`. A recipe goes before the defaults."""
    helps, hints = attribute_help(), get_type_hints(RunConfig)
    defaults = {f.name: f.default for f in dataclasses.fields(RunConfig)}
    parser.add_argument("--config", type=Path, metavar="YAML", help="recipe file; without it, the recipe of the method is used")
    helps["method"] = f"adaptation method by name. With a recipe of their own: {', '.join(recipe_names())}."
    for title, names in _GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            flag, text = "--" + name.replace("_", "-"), helps[name]
            if defaults[name] not in (dataclasses.MISSING, None, False):
                text += f" Default: {defaults[name]}."
            kinds = {hints[name], *get_args(hints[name])}
            if name == "subset":
                group.add_argument(flag, choices=list(SUBSETS), help="which of the five image sets.")
            elif name == "method_options":
                text = "option of the method, such as r=16; repeatable"
                group.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help=text)
            elif name == "shots":
                group.add_argument(flag, metavar="N", help=text.replace("None", "all"))
            elif bool in kinds:
                group.add_argument(flag, action="store_true", default=None, help=text)
            elif get_origin(hints[name]) is Literal:
                group.add_argument(flag, choices=get_args(hints[name]), help=text)
            elif kinds & {int, float}:
                group.add_argument(flag, type=float if float in kinds else int, metavar="N", help=text)
            else:
                group.add_argument(flag, metavar="NAME", help=text)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The options in a recipe file.

    Raises:
        MedfmcError: there is no such file, or it is not a YAML mapping.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedfmcError(f"there is no recipe {path}; the ones that ship are {', '.join(recipe_names())}.") from None
    except yaml.YAMLError as error:
        raise MedfmcError(f"{path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise MedfmcError(f"{path} holds {type(values).__name__}; a recipe is a list of `option: value` lines.")
    return values


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.stem for path in shipped("recipes/configs").glob("*.yaml"))


def recipe_of(method: str) -> dict[str, Any]:
    """The recommended options of a method: its recipe if one ships, else only its name."""
    return read_recipe(shipped("recipes/configs") / f"{method}.yaml") if method in recipe_names() else {"method": method}


def run_config(args: argparse.Namespace) -> RunConfig:
    """The config that a recipe (`--config`, or the method's own) and flags on top of it make."""
    values = read_recipe(args.config) if args.config else recipe_of(args.method or "lora")
    flags = {f.name: getattr(args, f.name, None) for f in dataclasses.fields(RunConfig) if f.name != "method_options"}
    values |= {name: value for name, value in flags.items() if value is not None}
    if args.option:
        values["method_options"] = dict(values.get("method_options") or {}) | parse_options(args.option)
    if isinstance(values.get("shots"), str):
        values["shots"] = parse_shots(values["shots"])
    if "subset" not in values:
        raise MedfmcError("which subset? Give --subset chest, colon, endo, neojaundice or retino.")
    return RunConfig.from_dict(values)


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
        options[name] = yaml.safe_load(value)
    return options
