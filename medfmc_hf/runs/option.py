"""Declares an option of a run once: its default, what it means, and its range. What a value may be is read from its type hint."""

import dataclasses
from typing import Any


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
