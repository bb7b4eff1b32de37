"""How every surface writes numbers and names: metrics, percent, intervals, p values, counts, seeds, plurals, and tables in Markdown.

`reporting/static/page.js` writes the numbers of the page in the same way, to which a test holds it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TypeGuard

METRICS = {"accuracy": "Accuracy", "map": "mAP", "auc": "AUC", "score": "Score", "ap": "AP", "recall": "Recall"}
MISSING = "\N{EN DASH}"
ONE_SUPPORT_SET = ("pool", "train_20")  # where seeds are training seeds, for there is one split


def is_defined(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def percent(fraction: float | None, missing: str = MISSING, sign: str = "") -> str:
    """`0.6321` as `63.21`; with the sign `+` as `+63.21`."""
    return f"{100 * fraction:{sign}.2f}" if is_defined(fraction) else missing


def interval(ends: Sequence[float] | None, sign: str = "", missing: str = MISSING) -> str:
    """`(0.601, 0.66)` as `60.10 to 66.00`; with the sign `+` as `+60.10 to +66.00`."""
    return f"{100 * ends[0]:{sign}.2f} to {100 * ends[1]:{sign}.2f}" if ends is not None and is_defined(sum(ends)) else missing


def p_value(p: float | None, missing: str = MISSING) -> str:
    """Three significant digits: `0.0123`, `1.23e-05`."""
    return f"{p:.3g}" if is_defined(p) else missing


def comparisons(number: int) -> str:
    """What a p value that Holm corrected is corrected over: `Holm, over 3 comparisons`."""
    return f"Holm, over {number} {plural('comparison', number)}"


def count(number: float | None) -> str:
    """`85801732` as `85.8 M`."""
    if number is None:
        return MISSING
    size, letter = next((unit for unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if number >= unit[0]), (1, ""))
    return f"{float(f'{number / size:.3g}'):g}{letter}"  # by way of a number, so that it is 1000 and not 1e+03


def seconds(number: float | None) -> str:
    """Whole seconds; below ten with one digit."""
    return MISSING if number is None else f"{number:.{int(number < 10)}f}"


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


def seed_kind(shots: str) -> str:
    """What tells the runs of an experiment apart: the `split seed`, or the `training seed` where there is one support set."""
    return "training seed" if shots in ONE_SUPPORT_SET else "split seed"


def seeds_words(shots: str, splits: int, runs: int) -> str:
    """How many seeds of what an experiment has: `5 split seeds`, `2 split seeds, 6 runs`, or `5 training seeds` of one support set."""
    number = runs if shots in ONE_SUPPORT_SET else splits
    return f"{number} {plural(seed_kind(shots), number)}" + (f", {runs} runs" if runs > number else "")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, one line per row. A `|` in a cell must be escaped."""
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]]) + "\n"
