"""Checks a value against a type hint and a range, with an error message that states them."""

import math
import numbers
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from .errors import MedfmcError


def checked(name: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    """Check a value and convert it to its type hint: a whole number to float if the hint is float, numpy numbers to Python's.

    Args:
        name: name of the value, for the error message.
        value: value to check; may be None if the hint allows it.
        hint: a type, `Literal`, list, tuple or mapping, or a union of these. The values of a mapping are not checked.
        metadata: optional `low` and `high` (inclusive bounds), `above` (exclusive lower bound) and `words` (the description in the error
            message).

    Raises:
        MedfmcError: the value has another type, or is out of range.
    """
    found = next((found for kind in _kinds(hint) if (found := _as(kind, value)) is not None), None)
    if (value is None and type(None) in _kinds(hint)) or (found is not None and _is_inside(found, metadata)):
        return found
    raise MedfmcError(f"{name} is {metadata.get('words') or _words(hint, metadata)}; got {_short(value)}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text):,} characters)"


def _kinds(hint: Any) -> tuple:
    """The types of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_inside(value: Any, metadata: Mapping[str, Any]) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return True
    low, high, above = (metadata.get(key) for key in ("low", "high", "above"))
    return (
        (isinstance(value, int) or math.isfinite(value))
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
    )


def _as(kind: Any, value: Any) -> Any:
    """The value converted to this type, or None. A bool is not a number."""
    if value is None or kind is type(None):
        return None
    origin = get_origin(kind) or kind
    if kind is Any or isinstance(kind, str):
        return value
    if origin is Literal:
        stands_for_others = any("[" in str(choice) for choice in get_args(kind))  # such as PEFT's `pissa_niter_[number of iters]`
        return value if isinstance(value, str) and (value in get_args(kind) or stands_for_others) else None
    if issubclass(origin, Mapping):
        return value if isinstance(value, Mapping) and all(isinstance(key, str) for key in value) else None
    if issubclass(origin, (list, tuple)):
        inner = (get_args(kind) or (Any,))[0]
        items = list(value) if isinstance(value, (Sequence, set)) and not isinstance(value, str) else None
        return value if items is not None and all(any(_as(part, item) is not None for part in _kinds(inner)) for item in items) else None
    if kind is bool:
        return value if isinstance(value, bool) else None
    if kind is int:
        return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else None
    if kind is float:
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):  # 1e-3 is text in YAML 1.1
            return float(value)
        try:
            return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else None
        except OverflowError:  # an integer of hundreds of digits
            return None
    return value if isinstance(value, kind) else None


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _words(hint: Any, metadata: Mapping[str, Any]) -> str:
    kinds, words = _kinds(hint), []
    for kind in kinds:
        origin = get_origin(kind) or kind
        if origin is Literal:
            words.append("one of " + ", ".join(map(str, get_args(kind))))
        elif origin in (list, tuple):
            words.append("a list")
        elif origin in _KINDS:
            words.append(_KINDS[origin] + _range(metadata))
        elif origin is not type(None):
            words.append("a mapping of names to values" if issubclass(origin, Mapping) else f"a {origin.__name__}")
    return " or ".join([*words, *(["none"] if type(None) in kinds else [])])


def _range(metadata: Mapping[str, Any]) -> str:
    low, high, above = (metadata.get(key) for key in ("low", "high", "above"))
    if above is not None:
        return f" above {above}" + (f" and at most {high}" if high is not None else "")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else ""
