"""Coverage of the confidence intervals: python benchmarks/intervals.py

Test sets are sampled repeatedly from a population with known scores: those of the same models on one very large test set with the same
prevalence. A correct 95 % interval contains the true value 95 times in 100; the goal is 93 to 97. "endo" has Endo's prevalence and 26 or 50
patients (studies) of 30 similar images; "chest" has ChestDR's prevalence and 2,700 patients of one image. Five models represent five seeds,
and a sixth is compared with the first.

Every command prints the jackknife; `medfmc score --interval` offers the others, too.
"""

import argparse
from statistics import NormalDist

import numpy as np

from medfmc_hf.evaluation.bootstrap import bootstrap
from medfmc_hf.evaluation.jackknife import Jackknife, jackknife
from medfmc_hf.scoring import score
from medfmc_hf.subsets import SUBSETS

CASES = (("endo", 26, 30), ("endo", 50, 30), ("chest", 2700, 1))
METHODS = ("jackknife", "normal", "percentile", "bca")
STRENGTHS = (1.0, 0.9, 1.1, 0.95, 1.05, 1.3)  # of the models of five seeds, and of the sixth model


def sample(key: str, patients: int, each: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Sample targets, the scores of six models, and patients; labels and scores are correlated within a patient."""
    share = 0.7 if each > 1 else 0.0
    prevalence = np.array(SUBSETS[key].counts) / SUBSETS[key].images
    patient = np.repeat(np.arange(patients), each)

    def noise() -> np.ndarray:
        own = rng.normal(size=(patients * each, len(prevalence)))
        return share**0.5 * rng.normal(size=(patients, len(prevalence)))[patient] + (1 - share) ** 0.5 * own

    targets = noise() > [NormalDist().inv_cdf(1 - p) for p in prevalence]
    common = noise()
    return targets, [strength * targets + 0.7 * common + 0.7 * noise() for strength in STRENGTHS], patient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400, help="test sets per row (default: %(default)s)")
    parser.add_argument("--bootstraps", type=int, default=100, help="how many of these get bootstrap intervals (default: %(default)s)")
    args = parser.parse_args()
    print(f"| what | {' | '.join(METHODS)} | goal |\n|{'---|' * (len(METHODS) + 2)}")
    for key, patients, each in CASES:
        targets, models, _ = sample(key, 600_000 // each, each, np.random.default_rng(0))
        true = [score(targets, scores) for scores in models]
        hits: dict[str, dict[str, list[bool]]] = {}
        for number in range(args.draws):
            targets, models, patient = sample(key, patients, each, np.random.default_rng(number + 1))
            own = [jackknife(targets, scores, patient) for scores in models]
            others = {m: bootstrap(targets, models[0], patient, replicates=400, seed=number, method=m) for m in METHODS[1:]}
            for name in ("map", "auc", "score"):
                values = [each[name] for each in true]
                rows = hits.setdefault(name, {})
                _count(rows, "jackknife", own[0].interval(name), values[0])
                for method, made in others.items() if number < args.bootstraps else ():
                    _count(rows, method, made.interval(name), values[0])
                _count(
                    hits.setdefault(f"{name}, mean over five seeds", {}),
                    "jackknife",
                    Jackknife.mean_of(own[:5]).interval(name),
                    np.mean(values[:5]),
                )
                found = (own[5] - own[0]).difference(name)
                _count(hits.setdefault(f"{name}, difference", {}), "jackknife", (found.low, found.high), values[5] - values[0])
        for what, rows in hits.items():
            cells = [f"{100 * np.mean(rows[m]):.1f} %" if m in rows else "" for m in METHODS]
            met = "met" if 0.93 <= np.mean(rows["jackknife"]) <= 0.97 else "OPEN"
            print(f"| {key}, {patients:,} patients: {what} | {' | '.join(cells)} | 93 to 97 %: {met} |", flush=True)


def _count(rows: dict[str, list[bool]], method: str, ends: tuple[float, float], value: float) -> None:
    rows.setdefault(method, []).append(bool(ends[0] <= value <= ends[1]))


if __name__ == "__main__":
    main()
