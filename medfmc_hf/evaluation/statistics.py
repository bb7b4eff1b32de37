"""Formulas of uncertainty that resample nothing: DeLong's variance, Holm's correction, the spread over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import stdtrit


def auc_covariance(positive: np.ndarray, scores: np.ndarray, patients: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The AUCs of several runs for one class, and their covariance over patients, without resampling.

    DeLong et al. (1988), extended to several images per patient by Obuchowski (1997); with one image a patient the two are the same.

    Args:
        positive: bool, (n,).
        scores: (runs, n), or (n,) for one run.
        patients: n ids; None where every image is of another patient.

    Returns:
        AUCs (runs,) and covariance (runs, runs). NaN where fewer than two patients have positives or fewer than two have negatives.
    """
    scores = np.atleast_2d(scores)
    positive = np.asarray(positive, bool)
    groups = np.arange(len(positive)) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    own, others = positive.sum(), (~positive).sum()
    counts = np.stack([np.bincount(groups[mask], minlength=groups.max() + 1) for mask in (positive, ~positive)])
    if min(own, others) == 0 or (counts > 0).sum(axis=1).min() < 2:
        aucs = [_placements(row[positive], row[~positive]).mean() if min(own, others) else np.nan for row in scores]
        return np.array(aucs, float), np.full((len(scores), len(scores)), np.nan)
    aucs, of_positives, of_negatives = [], [], []
    for row in scores:
        placed = _placements(row[positive], row[~positive])  # share of the negatives below each positive
        placed_others = 1 - _placements(row[~positive], row[positive])  # share of the positives above each negative
        aucs.append(placed.mean())
        of_positives.append(np.bincount(groups[positive], placed - aucs[-1], counts.shape[1]) / own)
        of_negatives.append(np.bincount(groups[~positive], placed_others - aucs[-1], counts.shape[1]) / others)
    a, b = np.stack(of_positives), np.stack(of_negatives)
    with_positives, with_negatives, all_groups = (counts[0] > 0).sum(), (counts[1] > 0).sum(), (counts.sum(axis=0) > 0).sum()
    covariance = (
        a @ a.T * with_positives / (with_positives - 1)
        + b @ b.T * with_negatives / (with_negatives - 1)
        + (a @ b.T + b @ a.T) * all_groups / (all_groups - 1)
    )
    return np.array(aucs), covariance


def _placements(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score, the share of the others below it, ties counting half."""
    others = np.sort(others)
    return (others.searchsorted(scores, "left") + others.searchsorted(scores, "right")) / (2 * len(others))


def normal_p_value(difference: float, variance: float) -> float:
    """Two-sided p that a normally distributed difference is 0; 1 where both are 0."""
    if variance > 0:
        return 2 * NormalDist().cdf(-abs(difference) / variance**0.5)
    return 1.0 if difference == 0 and variance == 0 else float("nan")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): p values that may be read together, in the order they came. NaN stays and is not counted."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted.tolist()


@dataclass(frozen=True)
class Spread:
    """The spread of one statistic over seeds of the split.

    Attributes:
        values: one per seed, the mean over its training seeds.
        mean: their mean.
        sd: their standard deviation (n - 1); NaN for a single seed.
        low: lower end of Student's t interval of the mean; NaN for a single seed.
        high: upper end.
        training_sd: standard deviation over the training seeds of one split, pooled over splits; NaN where no split was trained twice.
        split_sd: the part of `sd` that the split makes, the rest being what training seeds make of it; NaN where either is not known.
    """

    values: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float
    training_sd: float = math.nan
    split_sd: float = math.nan


def over_seeds(values: Sequence[float | Sequence[float]], level: float = 0.95, inside: tuple[float, float] | None = None) -> Spread:
    """The mean over seeds with Student's t interval. It says nothing about the test set: see `medfmc_hf.evaluation.jackknife` for that.

    Args:
        values: of each seed of the split, one number, or one for each training seed.
        level: coverage.
        inside: least and largest value that the statistic can have, to which the interval is cut.
    """
    runs = [np.atleast_1d(np.asarray(own, float)) for own in values]
    means = tuple(float(own.mean()) for own in runs)
    mean = float(np.mean(means))
    freedom = sum(len(own) - 1 for own in runs)
    within = sum(float(((own - own.mean()) ** 2).sum()) for own in runs) / freedom if freedom else math.nan
    if len(means) < 2:
        return Spread(means, mean, math.nan, math.nan, math.nan, within**0.5)
    sd = float(np.std(means, ddof=1))
    half = float(stdtrit(len(means) - 1, (1 + level) / 2)) * sd / len(means) ** 0.5
    low, high = inside or (-math.inf, math.inf)
    share = within * float(np.mean([1 / len(own) for own in runs]))  # of the variance of the means, made by training seeds
    return Spread(
        means, mean, sd, max(mean - half, low), min(mean + half, high), within**0.5, max(sd**2 - share, 0.0) ** 0.5 if freedom else math.nan
    )
