"""Declares an option of a run once: its default, what it means, and its range. What a value may be is read from its type hint."""

import dataclasses
import math
import numbers
import re
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from ..errors import MedfmcError


class Unset:
    """Stands for an option that was not given, until the recipe or its `default` fills it."""

    def __init__(self, default: Any) -> None:
        self.default = default

    def __repr__(self) -> str:
        return f"{self.default!r}, or the recipe's"


def option(
    default: Any,
    help: str,
    *,
    group: str,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    words: str | None = None,
) -> Any:
    """A field of `RunConfig`.

    Args:
        default: where neither the caller nor the recipe says; `dataclasses.MISSING` if one of them must.
        help: what it means, for documentation and command line.
        group: under which heading the command line lists it.
        low: least value.
        high: largest value.
        above: what the value must be larger than.
        words: what errors say that it is; None for what type and range say.
    """
    metadata = {"help": help, "group": group, "low": low, "high": high, "above": above, "words": words}
    return dataclasses.field(default=default if default is dataclasses.MISSING else Unset(default), metadata=metadata)


def checked(name: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    """A value as its type hint has it: a whole number as a float where the hint is float, numpy's numbers as Python's.

    Raises:
        MedfmcError: it is of another type, or out of range.
    """
    found = next((found for kind in _kinds(hint) if (found := _as(kind, value)) is not None), None)
    if (value is None and type(None) in _kinds(hint)) or (found is not None and _is_inside(found, metadata)):
        return found
    raise MedfmcError(f"{name} is {metadata.get('words') or _words(hint, metadata)}; got {value!r}.")


def _kinds(hint: Any) -> tuple:
    """The types of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_inside(value: Any, metadata: Mapping[str, Any]) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return True
    low, high, above = (metadata.get(key) for key in ("low", "high", "above"))
    return math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)


def _as(kind: Any, value: Any) -> Any:
    """The value as one of this type, or None. A bool is no number."""
    if value is None or kind is type(None):
        return None
    if get_origin(kind) is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else None
    if get_origin(kind) is not None and issubclass(get_origin(kind), Mapping):
        return value if isinstance(value, Mapping) and all(isinstance(key, str) for key in value) else None
    if kind is bool:
        return value if isinstance(value, bool) else None
    if kind is int:
        return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else None
    if kind is float:
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):  # 1e-3 is text in YAML 1.1
            return float(value)
        return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else None
    return value if isinstance(value, kind) else None


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _words(hint: Any, metadata: Mapping[str, Any]) -> str:
    kinds, words = _kinds(hint), []
    for kind in kinds:
        if get_origin(kind) is Literal:
            words.append("one of " + ", ".join(get_args(kind)))
        elif get_origin(kind) is not None:
            words.append("a mapping of names to values")
        elif kind is not type(None):
            words.append(_KINDS[kind] + _range(metadata))
    return " or ".join([*words, *(["none"] if type(None) in kinds else [])])


def _range(metadata: Mapping[str, Any]) -> str:
    low, high, above = (metadata.get(key) for key in ("low", "high", "above"))
    if above is not None:
        return f" above {above}" + (f" and at most {high}" if high is not None else "")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else ""
