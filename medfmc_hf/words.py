"""Formatting shared by all outputs: metrics, percent, intervals, counts, plurals, and Markdown tables."""

import math
from collections.abc import Iterable, Sequence
from typing import TypeGuard

METRICS = {"accuracy": "Accuracy", "map": "mAP", "auc": "AUC", "score": "Score", "ap": "AP", "recall": "Recall"}
MISSING = "\N{EN DASH}"


def is_defined(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def percent(fraction: float | None, missing: str = MISSING) -> str:
    """`0.6321` as `63.21`."""
    return f"{100 * fraction:.2f}" if is_defined(fraction) else missing


def interval(ends: Sequence[float] | None, sign: str = "", missing: str = MISSING) -> str:
    """`(0.601, 0.66)` as `60.10 to 66.00`; with the sign `+` as `+60.10 to +66.00`."""
    return f"{100 * ends[0]:{sign}.2f} to {100 * ends[1]:{sign}.2f}" if ends is not None and is_defined(sum(ends)) else missing


def count(number: float | None) -> str:
    """`85801732` as `85.8 M`."""
    if number is None:
        return MISSING
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def plural(word: str, number: int = 2) -> str:
    """`study` as `studies`, unless the number is 1."""
    if number == 1:
        return word
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def first_few(items: Sequence[object], most: int = 3) -> str:
    """The first few of many: `a, b, c and 4 more`."""
    shown = ", ".join(str(item) for item in items[:most])
    return shown + (f" and {len(items) - most:,} more" if len(items) > most else "")


def shots_words(shots: str) -> str:
    """`5` as `5-shot`, `pool` as `whole pool`; `train_20` unchanged."""
    return {"pool": "whole pool", "train_20": "train_20"}.get(shots, f"{shots}-shot")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, one line per row. A `|` in a cell must be escaped."""
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]]) + "\n"
