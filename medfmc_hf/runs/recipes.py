"""Recipes: YAML files of options, among them the recommended ones of each method."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ..errors import MedfmcError
from ..shipped import shipped

NONE = "none"  # the name of no recipe: every option that is not given has its plain default


def read_options(path: str | Path, what: str, shipped_ones: str) -> dict[str, Any]:
    """The content of a YAML file of `key: value` lines.

    Args:
        path: of the file.
        what: what such a file is called.
        shipped_ones: those that ship, in words.

    Raises:
        MedfmcError: there is no such file, or it is not a YAML mapping.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise MedfmcError(f"there is no {what} {path}; the ones that ship are {shipped_ones}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MedfmcError(f"{path} is not YAML: {error}") from None
    except (OSError, ValueError) as error:  # no permission, or no name of a file at all
        raise MedfmcError(f"the {what} {str(path)[:200]!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not isinstance(values, dict):
        raise MedfmcError(f"{path} holds {type(values).__name__}; a {what} is a list of `key: value` lines.")
    return values


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The options in a recipe file.

    Raises:
        MedfmcError: there is no such file, or it is not a YAML mapping of options.
    """
    values = read_options(path, "recipe", ", ".join(recipe_names()))
    if "recipe" in values:
        raise MedfmcError(f"{path} names a recipe itself; a recipe holds options alone.")
    return values


@cache
def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that ship with the package."""
    return tuple(sorted(path.stem for path in shipped("recipes/configs").glob("*.yaml")))


@cache
def _shipped_recipe(name: str) -> dict[str, Any]:
    return read_recipe(shipped("recipes/configs") / f"{name}.yaml")


def recipe_of(method: str) -> dict[str, Any]:
    """The recommended options of a method: its recipe if one ships, else only its name."""
    return dict(_shipped_recipe(method)) if method in recipe_names() else {"method": method}


def recipe_called(name: str) -> dict[str, Any]:
    """The options of a recipe by its name (one that ships, or `none`) or by the path of its file.

    Raises:
        MedfmcError: there is none, or it is not one.
    """
    if name == NONE:
        return {}
    return dict(_shipped_recipe(name)) if name in recipe_names() else read_recipe(name)
