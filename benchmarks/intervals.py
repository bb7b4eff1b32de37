"""How often intervals hold what they promise: python benchmarks/intervals.py

Test sets are drawn again and again from a population whose scores are known (from one very large draw); an honest 95 % interval holds the
true value 95 times in 100. "chest" has one picture a patient and classes down to 1 % prevalence; "endo" has 50 patients of 30 like
pictures. Differences are of two models on the same pictures. Hence `medfmc score` uses normal intervals, `medfmc compare` percentiles,
and neither resamples pictures.
"""

import argparse
from statistics import NormalDist

import numpy as np

from medfmc_hf.evaluation.bootstrap import bootstrap
from medfmc_hf.scoring import score

PREVALENCE = {"chest": np.geomspace(0.25, 0.01, 10), "endo": np.array([0.2, 0.25, 0.1, 0.02])}


def draw(kind: str, patients: int, each: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Targets, the scores of two models, and patients; pictures of one patient share part of their labels and of their scores."""
    share = 0.7 if each > 1 else 0.0
    prevalence = PREVALENCE[kind]
    patient = np.repeat(np.arange(patients), each)

    def noise() -> np.ndarray:
        own = rng.normal(size=(patients * each, len(prevalence)))
        return share**0.5 * rng.normal(size=(patients, len(prevalence)))[patient] + (1 - share) ** 0.5 * own

    targets = noise() > [NormalDist().inv_cdf(1 - p) for p in prevalence]
    common = noise()
    return targets, [strength * targets + 0.7 * common + 0.7 * noise() for strength in (1.0, 1.3)], patient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=300, help="test sets per row (default: %(default)s)")
    args = parser.parse_args()
    print(f"{'':30}{'normal':>12}{'percentile':>12}{'bca':>8}{'normal over pictures':>24}")
    for kind, patients, each in (("chest", 1000, 1), ("endo", 50, 30)):
        targets, models, _ = draw(kind, 400_000 // each, each, np.random.default_rng(0))
        true = [score(targets, scores) for scores in models]
        hits: dict[tuple[str, str], list[bool]] = {}
        for number in range(args.draws):
            targets, models, patient = draw(kind, patients, each, np.random.default_rng(number + 1))
            options = {"replicates": 400, "seed": number, "bca": True}
            boots = {"patients": [bootstrap(targets, s, patient, **options) for s in models]}
            if each > 1:
                boots["pictures"] = [bootstrap(targets, s, **options) for s in models]
            for over, (a, b) in boots.items():
                for name in ("map", "auc"):
                    for what, boot, value in ((name, a, true[0][name]), (f"difference of {name}", b - a, true[1][name] - true[0][name])):
                        for method in ("normal", "percentile", "bca") if over == "patients" else ("normal",):
                            low, high = boot.interval(name, method=method)
                            hits.setdefault((what, f"{method} over {over}"), []).append(low <= value <= high)
        for what in ("map", "auc", "difference of map", "difference of auc"):
            columns = ["normal over patients", "percentile over patients", "bca over patients", "normal over pictures"]
            cells = [hits.get((what, column)) for column in columns]
            words = [f"{100 * np.mean(cell):.1f} %" if cell else "-" for cell in cells]
            print(f"{kind + ', ' + what:30}{words[0]:>12}{words[1]:>12}{words[2]:>8}{words[3]:>24}")


if __name__ == "__main__":
    main()
