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
    problem = f"{name} is {metadata.get('words') or _words(hint, metadata)}; got {value!r}."
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None:
        if type(None) not in kinds:
            raise MedfmcError(problem)
        return None
    for kind in kinds:
        if kind is type(None):
            continue
        found = _as(kind, value)
        if found is not None:
            low, high, above = (metadata.get(key) for key in ("low", "high", "above"))
            if isinstance(found, (int, float)) and not isinstance(found, bool):
                outside = (low is not None and found < low) or (high is not None and found > high) or (above is not None and found <= above)
                if outside or not math.isfinite(found):
                    raise MedfmcError(problem)
            return found
    raise MedfmcError(problem)


def _as(kind: Any, value: Any) -> Any:
    """The value as one of this type, or None. A bool is no number."""
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
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words = []
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
