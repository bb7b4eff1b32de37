"""The numbers of a cell with their two uncertainties, and the paired comparison of the settings of one column of the board."""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..evaluation.bootstrap import Bootstrap, mean_of
from ..evaluation.statistics import holm, normal_p_value, over_draws
from ..subsets import SUBSETS
from .settings import Run

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A metric over the draws of a cell, in fractions; None is undefined.

    Attributes:
        mean: over draws.
        sd: standard deviation over draws; None for one draw.
        draws: how many of them define the metric.
        draw_interval: what other support sets (and initialisations) would give: 95 % interval of the mean from the spread over draws.
        test_interval: what other test patients would give: 95 % interval of the mean of these very draws, patients resampled (normal,
            less the bias of the bootstrap).
    """

    mean: float | None
    sd: float | None
    draws: int
    draw_interval: tuple[float, float] | None
    test_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    """All pairs of settings of one subset, number of shots and metric, on the same test rows and the same draws.

    Attributes:
        subset: subset key.
        shots: column.
        metric: what is compared.
        settings: keys of the settings compared.
        pairs: for each pair `a`, `b` (places in `settings`), `difference` (a minus b, mean over the common draws), `low` and `high`
            (95 % interval over test patients), `p` (two-sided, normal with the bootstrap's variance), `p_holm` (corrected over the pairs
            of this comparison), `seeds` (the common draws), `wins` and `losses` (draws in which a is better, or worse).
    """

    subset: str
    shots: str
    metric: str
    settings: tuple[str, ...]
    pairs: tuple[dict, ...]


def slim(whole: Bootstrap) -> Bootstrap:
    """A bootstrap without per-class replicates and jackknife, which a board of hundreds of runs has no use for."""
    names = [name for name in whole.point if " of " not in name]
    return Bootstrap({n: whole.point[n] for n in names}, {n: whole.replicates[n] for n in names}, None, whole.patients)


def estimate(name: str, values: Sequence[float | None], bootstraps: Sequence[Bootstrap | None]) -> Estimate:
    """A metric over draws.

    Args:
        name: metric.
        values: of each draw, in fractions; None or NaN where undefined.
        bootstraps: of each draw; the test interval needs all of those that define the metric.
    """
    defined = [(float(v), boot) for v, boot in zip(values, bootstraps) if v is not None and math.isfinite(v)]
    if not defined:
        return Estimate(None, None, 0, None, None)
    draws = over_draws([value for value, _ in defined], LEVEL)
    whole = [boot for _, boot in defined if boot is not None]
    test = _defined(mean_of(whole).interval(name, LEVEL)) if len(whole) == len(defined) else None
    if test is not None:
        test = max(test[0], 0.0), min(test[1], 1.0)
    return Estimate(draws.mean, draws.sd if len(defined) > 1 else None, len(defined), _defined((draws.low, draws.high)), test)


def _defined(interval: tuple[float, float]) -> tuple[float, float] | None:
    return interval if all(map(math.isfinite, interval)) else None


def compare(cells: Sequence, runs: Mapping[str, Run], bootstraps: Mapping[str, Bootstrap]) -> list[Comparison]:
    """Compare the cells of each column pair by pair.

    Only cells whose runs were tested on the same rows and that have draws in common are paired.

    Args:
        cells: of the board.
        runs: by run id; their `test_key` tells their test rows apart.
        bootstraps: by run id.
    """
    columns = defaultdict(list)
    for cell in cells:
        known = {seed: run for seed, run in zip(cell.seeds, cell.runs) if run in bootstraps}
        keys = {runs[run].test_key for run in known.values()}
        if len(keys) == 1:
            columns[cell.subset, cell.shots, keys.pop()].append((cell.setting, known))
    result = []
    for (subset, shots, _), members in columns.items():
        for metric in (SUBSETS[subset].metric, "auc", "score") if len(members) > 1 else ():
            pairs = [
                pair
                for (a, left), (b, right) in itertools.combinations(enumerate(draws for _, draws in members), 2)
                if (pair := _pair(metric, a, left, b, right, bootstraps)) is not None
            ]
            corrected = holm([pair["p"] for pair in pairs])
            settings = tuple(setting for setting, _ in members)
            result.append(
                Comparison(subset, shots, metric, settings, tuple(pair | {"p_holm": float(p)} for pair, p in zip(pairs, corrected)))
            )
    return [comparison for comparison in result if comparison.pairs]


def _pair(
    metric: str, a: int, left: Mapping[int, str], b: int, right: Mapping[int, str], bootstraps: Mapping[str, Bootstrap]
) -> dict | None:
    seeds = sorted(set(left) & set(right))
    if not seeds:
        return None
    draws = [bootstraps[left[seed]] - bootstraps[right[seed]] for seed in seeds]
    difference = mean_of(draws)
    value, variance = difference.point[metric], float(np.nanvar(difference.replicates[metric], ddof=1))
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(variance)  # the bias of the bootstrap cancels in a difference
    # Counting replicates cannot give a p below 2 / (replicates + 1), which Holm's correction over many pairs would always lift above 0.05.
    p = normal_p_value(value, variance)
    if not math.isfinite(value + half + p):
        return None
    wins, losses = (sum(sign * draw.point[metric] > 0 for draw in draws) for sign in (1, -1))
    return {"a": a, "b": b, "difference": value, "low": value - half, "high": value + half, "p": p, "seeds": seeds,
            "wins": wins, "losses": losses}  # fmt: skip
