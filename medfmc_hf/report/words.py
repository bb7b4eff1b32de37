"""How the report writes numbers: percent, intervals, and counts that are easy to read."""

from collections.abc import Sequence

from .uncertainty import Estimate

MISSING = "\N{EN DASH}"


def percent(fraction: float | None, digits: int = 2) -> str:
    """`0.6321` as `63.21`."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f}"


def interval(ends: Sequence[float] | None) -> str:
    """`(0.601, 0.66)` as `60.1 to 66.0`."""
    return MISSING if ends is None else f"{percent(ends[0], 1)} to {percent(ends[1], 1)}"


def mean_and_spread(estimate: Estimate) -> str:
    """`63.21 ± 4.10`; one draw has no spread."""
    return percent(estimate.mean) + ("" if estimate.sd is None else f" ± {percent(estimate.sd)}")


def count(number: float | None) -> str:
    """`85801732` as `85.8 M`."""
    if number is None:
        return MISSING
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def shots_words(shots: str) -> str:
    """`5` as `5-shot`; `pool` and `train_20` as what they are."""
    return {"pool": "whole pool", "train_20": "train_20"}.get(shots, f"{shots}-shot")
