"""The score, compared with its peers: python benchmarks/score.py [--quick]

Invented scores, one thread, float32. Within a case the alternatives alternate in each round, in one process; a time is the median over
rounds, in milliseconds of CPU time. Agreement with scikit-learn is checked on the same arrays, ties included.

- floor: one numpy argsort per class of the same scores, which a sort-based metric cannot avoid (ours sorts values, which is cheaper).
- ours: `medfmc_hf.scoring.score`: AUC, AP and accuracy or mAP, with all checks of the input; per class and mean.
- official shape: the challenge's algorithm, reimplemented as plainly: per class Python lists of labels and scores, filled row by row,
  scikit-learn's AUC on the lists, and mmcls' average precision from an argsort.
- scikit-learn: `roc_auc_score` and `average_precision_score` per class on arrays.
- torchmetrics: exact mode (thresholds=None), AUROC and AveragePrecision per class; skipped with a message if it is not installed.
- bootstrap: replicates over patients of AUC and mAP (or accuracy); the peer scores each resample with scikit-learn, measured on a
  few replicates and scaled up.
- through evaluate: `compute` of the loaded metric on arrays, against the bare function; and by `add_batch`, which goes through Arrow.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from medfmc_hf import metric
from medfmc_hf.evaluation.bootstrap import bootstrap
from medfmc_hf.scoring import score


def invent(rows: int, classes: int, multilabel: bool, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Targets with the prevalence of the challenge's chest (9 % on average) or colon, and weakly informative scores."""
    rng = np.random.default_rng(0)
    if multilabel:
        targets = rng.random((rows, classes)) < np.geomspace(0.25, 0.01, classes)
    else:
        targets = rng.integers(0, classes, rows)
    truth = targets if multilabel else np.eye(classes)[targets]
    scores = truth + rng.normal(size=(rows, classes))
    return targets, (np.round(scores, 1) if ties else scores).astype(np.float32)


def one_hot(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return targets if targets.ndim == 2 else targets[:, None] == np.arange(scores.shape[1])


def official_shape(targets: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """AUC and mAP (or accuracy) the long way round."""
    positive, aucs, aps = one_hot(targets, scores), [], []
    for column in range(scores.shape[1]):
        truths, guesses = [], []
        for row in range(len(scores)):
            truths.append(positive[row][column])
            guesses.append(scores[row][column])
        aucs.append(roc_auc_score(truths, guesses))
        if targets.ndim == 2:
            found = positive[np.argsort(-scores[:, column]), column]
            precision = np.cumsum(found) / np.arange(1, len(found) + 1)
            aps.append(precision[found].sum() / found.sum())
    main = np.mean(aps) if aps else np.mean(scores.argmax(axis=1) == targets)
    return float(np.mean(aucs)), float(main)


def sklearn_arrays(targets: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    positive, columns = one_hot(targets, scores), range(scores.shape[1])
    auc = np.mean([roc_auc_score(positive[:, c], scores[:, c]) for c in columns])
    if targets.ndim == 1:
        return float(auc), float(np.mean(scores.argmax(axis=1) == targets))
    return float(auc), float(np.mean([average_precision_score(positive[:, c], scores[:, c]) for c in columns]))


def torchmetrics_exact(targets: np.ndarray, scores: np.ndarray) -> Callable[[], object] | None:
    """A function that scores prepared tensors; None without torchmetrics."""
    try:
        from torchmetrics.functional import classification
    except ImportError:
        return None
    import torch

    torch.set_num_threads(1)
    t, s = torch.tensor(targets.astype(np.int64)), torch.sigmoid(torch.tensor(scores))
    if targets.ndim == 2:
        width = scores.shape[1]
        return lambda: (
            classification.multilabel_auroc(s, t, width, average=None),
            classification.multilabel_average_precision(s, t, width, average=None),
        )
    width = scores.shape[1]
    return lambda: (classification.multiclass_auroc(s, t, width, average=None), classification.multiclass_accuracy(s, t, width))


def alternate(alternatives: dict[str, Callable[[], object] | None], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each alternative, alternating in each round."""
    times: dict[str, list[float]] = {name: [] for name, call in alternatives.items() if call}
    for _ in range(rounds):
        for name in times:
            start = time.process_time()
            alternatives[name]()
            times[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, times: dict[str, float], goals: dict[str, float]) -> None:
    print(f"\n{title}\n{'':>24}{'ms':>12}{'x ours':>9}  goal")
    for name, value in times.items():
        ratio = value / times["ours"]
        goal = f"at least {goals[name]:g}: {'met' if ratio >= goals[name] else 'NOT met'}" if name in goals else ""
        print(f"{name:>24}{value:>12.2f}{ratio:>9.1f}  {goal}")


def kernel(rows: int, classes: int, multilabel: bool, rounds: int, goals: dict[str, float]) -> None:
    targets, scores = invent(rows, classes, multilabel)
    alternatives = {
        "floor: argsort": lambda: np.argsort(np.ascontiguousarray(scores.T), axis=1),
        "ours": lambda: score(targets, scores),
        "official shape": lambda: official_shape(targets, scores),
        "scikit-learn": lambda: sklearn_arrays(targets, scores),
        "torchmetrics, exact": torchmetrics_exact(targets, scores),
    }
    if alternatives["torchmetrics, exact"] is None:
        print("torchmetrics is not installed: its row is omitted")
    if rounds > 1:
        score(targets, scores)
    show(f"({rows:,}, {classes}) {'multi-label' if multilabel else 'single-label'}", alternate(alternatives, rounds), goals)
    tracemalloc.start()
    score(targets, scores)
    print(f"ours, peak memory besides the input: {tracemalloc.get_traced_memory()[1] / 1e6:.1f} MB")
    tracemalloc.stop()


def agreement(rows: int, classes: int) -> None:
    targets, scores = invent(rows, classes, True, ties=True)
    ours = score(targets, scores)["per_class"].values()
    worst = 0.0
    for column, own in enumerate(ours):
        worst = max(worst, abs(own["auc"] - roc_auc_score(targets[:, column], scores[:, column])))
        worst = max(worst, abs(own["ap"] - average_precision_score(targets[:, column], scores[:, column])))
    print(f"largest difference of a class from scikit-learn at ({rows:,}, {classes}) with ties: {worst:.1e} (goal 1e-12)")


def resampling(rows: int, classes: int, patients: int, multilabel: bool, goal: float, few: int) -> None:
    targets, scores = invent(rows, classes, multilabel)
    patient = np.random.default_rng(1).permutation(rows) % patients
    of_patient = [np.flatnonzero(patient == p) for p in range(patients)]
    rng = np.random.default_rng(2)

    def peer() -> None:
        for _ in range(few):
            resample = np.concatenate([of_patient[p] for p in rng.integers(0, patients, patients)])
            sklearn_arrays(targets[resample], scores[resample])

    times = alternate({"ours": lambda: bootstrap(targets, scores, patient), "scikit-learn loop": peer}, 3)
    times["scikit-learn loop"] *= 1000 / few
    show(f"1,000 replicates of ({rows:,}, {classes}), {patients:,} patients", times, {"scikit-learn loop": goal})


def through_evaluate(rows: int, classes: int, rounds: int) -> None:
    import evaluate

    targets, scores = invent(rows, classes, True)
    module = evaluate.load(str(metric.install()))

    def batches() -> None:
        for first in range(0, rows, 64):
            module.add_batch(predictions=scores[first : first + 64], references=targets[first : first + 64].astype(int))
        module.compute()

    calls = {
        "ours": lambda: score(targets, scores),
        "compute(arrays)": lambda: module.compute(predictions=scores, references=targets),
        "add_batch of 64": batches,
    }
    times = alternate(calls, rounds)
    show(f"through evaluate, ({rows:,}, {classes})", times, {})
    ratio = times["compute(arrays)"] / times["ours"]
    print(f"compute(arrays) costs {ratio:.2f} times the bare function (goal: at most 3: {'met' if ratio <= 3 else 'NOT met'})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="skip the case of a million rows")
    args = parser.parse_args()
    print(f"numpy {np.__version__}")
    agreement(2708, 19)
    kernel(2708, 19, True, 15, {"official shape": 30, "torchmetrics, exact": 8})
    kernel(4355, 2, False, 15, {})
    resampling(2708, 19, 2708, True, goal=150, few=5)
    resampling(2936, 4, 57, True, goal=150, few=20)
    through_evaluate(2708, 19, 9)
    if not args.quick:
        kernel(1_000_000, 19, True, 1, {"official shape": 7})


if __name__ == "__main__":
    main()
