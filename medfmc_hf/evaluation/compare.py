"""Compares models on the same test images: paired differences, their intervals over patients and over seeds, and a verdict in words."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import MedfmcError
from ..progress import bar
from ..words import METRICS, comparisons, interval, is_defined, p_value, percent, seeds_words, shots_words
from .experiments import one_experiment, seedless, shots_of
from .intervals import by_key, mean_over_seeds
from .jackknife import Jackknife
from .scored import Scored
from .statistics import Spread, auc_covariance, holm, normal_p_value, over_seeds

FEW = 20  # patients below which an interval over them is known to be too sure of itself

Seeds = dict[tuple[int, int], Jackknife]  # by seed of the split and training seed
Key = tuple[str, int]  # dataset config and training seed
Pair = tuple[Scored, Scored]  # of the base and of the other, on the same images in the same order


@dataclass(frozen=True)
class Comparison:
    """One row of a comparison: one metric of two models, on one subset and number of shots. Fractions; differences are other minus base.

    Attributes:
        test: what was compared, such as `endo 5-shot`.
        other: name of the model compared with the base.
        metric: `map` or `accuracy`, `auc`, or `auc of NAME` for one class.
        base_value: the base's value, the mean over seeds.
        other_value: the other's.
        difference: other_value - base_value.
        low: lower end of the test interval of the difference (over patients, the trained models as they are).
        high: upper end.
        p: two-sided p that the difference is 0 on other patients, from the same standard error.
        p_holm: p after Holm's correction over every pair of the models that are compared in this metric on this test, as on the board.
        comparisons: how many these are.
        p_delong: for a single AUC (of one class, or of two classes that exclude each other) DeLong's p; else None.
        seeds: the differences split by split, with the t interval of their mean; None for a single split.
        seeds_are: what the runs of each are seeds of, such as `5 split seeds`; empty for a CSV.
        patients: how many patients there are.
        images: how many test images they have.
        group: what a patient id stands for, in the plural.
    """

    test: str
    other: str
    metric: str
    base_value: float
    other_value: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    comparisons: int
    p_delong: float | None
    seeds: Spread | None
    seeds_are: str
    patients: int
    images: int
    group: str

    def verdict(self, base: str, level: float = 0.95) -> str:
        """One sentence: which is better, whether that would hold for other patients, and whether for other seeds."""
        title = metric_title(self.metric)
        if np.isnan(self.p_holm):
            return f"{self.test}, {title}: undefined on these images, so nothing can be said."
        if self.difference == 0 and self.low == self.high == 0:
            return f"{self.test}, {title}: {self.other} and {base} score the same."
        points = f"{percent(self.difference, sign='+')} points, {level:.0%} interval {interval((self.low, self.high), '+')}"
        points += f", p = {p_value(self.p_holm)}, {comparisons(self.comparisons)}"
        if self.p_holm >= 1 - level:
            return f"{self.test}, {title}: no difference shown between {self.other} and {base} ({points})."
        better, worse = (self.other, base) if self.difference > 0 else (base, self.other)
        sentence = f"{self.test}, {title}: {better} is better than {worse}, likely on other {self.group} too ({points})"
        if self.patients < FEW:
            sentence += f" - though {self.patients} {self.group} are few, and such an interval is too narrow"
        if self.seeds is None:
            one = "split" if "training" in self.seeds_are else "seed"
            return f"{sentence}; one {one} says nothing about other support sets."
        same_side = sum(value * self.difference > 0 for value in self.seeds.values)
        share = f"in {same_side} of {len(self.seeds.values)} split seeds, t interval {interval((self.seeds.low, self.seeds.high), '+')}"
        if self.seeds.low * self.seeds.high > 0:
            return sentence + f"; it holds over seeds too ({share})."
        return sentence + f"; another support set may turn it ({share})."


def metric_title(metric: str) -> str:
    """Such as `mAP`, or `AUC of tumor`."""
    kind, of, name = metric.partition(" of ")
    return METRICS[kind] + of + name


def compare(
    base: Sequence[Scored], others: Mapping[str, Sequence[Scored]], *, per_class: bool = False, level: float = 0.95
) -> list[Comparison]:
    """Compare one or several models with a base.

    Runs are paired by dataset config and training seed; CSVs one to one. The seeds of one subset and number of shots are taken together:
    the difference is the mean over seeds, its test interval leaves out patients for all seeds at once, and its seed interval comes from the
    spread of the differences. The two are never mixed.

    Args:
        base: scored images of the base, each config once.
        others: by name, scored images of each model to compare, each config once.
        per_class: also compare the AUC of each class (of two exclusive classes it is the AUC).
        level: coverage of the intervals.

    Raises:
        MedfmcError: a model has a run twice or is of several experiments, nothing can be paired, or paired runs were not tested on the same
            images.
    """
    mine = _by_config(base, "the first")
    tests: list[tuple[str, list[Pair]]] = []
    unpaired: list[tuple[str, Scored, Scored]] = []  # model, the base's first run of the test, and a run on a seed that the base lacks
    for name, scored in others.items():
        theirs = _by_config(scored, name)
        common = [key for key in mine if key in theirs]
        if not common:
            raise MedfmcError(f"{name} has no run to compare: it has {_known(theirs)}, the first has {_known(mine)}.")
        for group, keys in by_key(common, (_group(mine[key]) for key in common)).items():
            first = mine[keys[0]]
            tests.append((name, [(_aligned(first, mine[key]), _aligned(first, theirs[key])) for key in keys]))
            unpaired += [(name, first, item) for key, item in theirs.items() if key not in mine and _group(item) == group]
    rows: list[Comparison] = []
    models: dict[str, dict[str, Seeds]] = defaultdict(lambda: defaultdict(dict))  # the jackknives of the others by test, model and seeds
    with bar(total=2 * sum(len(pairs) for _, pairs in tests) + len(unpaired), desc="leaving out patients", unit="run") as progress:

        def made(scored: Scored) -> Jackknife:
            progress.update()
            return scored.jackknife()

        for name, pairs in tests:
            jackknives = [(made(own), made(other)) for own, other in pairs]
            first = pairs[0][0]
            models[_title(first)][name] |= {_seeds(other): known for (_, other), (_, known) in zip(pairs, jackknives)}
            classes = first.classes if per_class and (first.multilabel or len(first.classes) > 2) else ()
            metrics = [first.main, "auc", *(f"auc of {name}" for name in classes)]
            rows += [_row(name, pairs, jackknives, metric, level) for metric in metrics]
        for name, first, item in unpaired if len(others) > 1 else ():
            if set(item.image_ids) == set(first.image_ids):  # else it is of another test set, and of another comparison
                models[_title(first)][name][_seeds(item)] = made(_aligned(first, item))
    for (test, metric), places in by_key(range(len(rows)), ((row.test, row.metric) for row in rows)).items():
        p = [rows[place].p for place in places] + [
            (pair[1] - pair[0]).difference(metric, level).p
            for left, right in itertools.combinations(models[test].values(), 2)
            if (pair := means_of_common(left, right)) is not None
        ]
        for place, corrected in zip(places, holm(p)):
            rows[place] = replace(rows[place], p_holm=corrected, comparisons=sum(map(is_defined, p)))
    return rows


def _seeds(scored: Scored) -> tuple[int, int]:
    return (scored.run.seed, scored.run.training_seed) if scored.run else (0, 0)


def means_of_common(left: Seeds, right: Seeds) -> tuple[Jackknife, Jackknife] | None:
    """The means over seeds of two models, on the seeds that both have; None where there are none."""
    common = sorted(left.keys() & right.keys())
    if not common:
        return None
    splits = [split for split, _ in common]
    return mean_over_seeds([left[key] for key in common], splits), mean_over_seeds([right[key] for key in common], splits)


def _row(name: str, pairs: list[Pair], jackknives: list[tuple[Jackknife, Jackknife]], metric: str, level: float) -> Comparison:
    first = pairs[0][0]
    seeds = [own.run.seed if own.run else 0 for own, _ in pairs]
    mine, other = (mean_over_seeds(side, seeds) for side in zip(*jackknives))
    found = (other - mine).difference(metric, level)
    changes = by_key((theirs.point[metric] - ours.point[metric] for ours, theirs in jackknives), seeds)
    return Comparison(
        test=_title(first),
        other=name,
        metric=metric,
        base_value=mine.point[metric],
        other_value=other.point[metric],
        difference=found.value,
        low=found.low,
        high=found.high,
        p=found.p,
        p_holm=float("nan"),
        comparisons=0,
        p_delong=_delong(pairs, metric, seeds),
        seeds=over_seeds(list(changes.values()), level, inside=(-1.0, 1.0)) if len(changes) > 1 else None,
        seeds_are=seeds_words(shots_of(first.run.config), len(changes), len(pairs)) if first.run else "",
        patients=mine.patients,
        images=len(first.image_ids),
        group=first.group,
    )


def _delong(pairs: list[Pair], metric: str, seeds: Sequence[int]) -> float | None:
    """DeLong's p for the difference of an AUC, or of its mean over seeds; None where the AUC is not a single one."""
    first = pairs[0][0]
    if " of " in metric:
        column = first.classes.index(metric.partition(" of ")[2])
    elif metric == "auc" and not first.multilabel and len(first.classes) == 2:
        column = 1
    else:
        return None
    positive = first.targets[:, column] > 0 if first.multilabel else first.targets == column
    aucs, covariance = auc_covariance(positive, np.stack([s.scores[:, column] for pair in pairs for s in pair]), first.patient_ids)
    weights = [1 / (len(set(seeds)) * seeds.count(seed)) for seed in seeds]  # of the mean over seeds of means over training seeds
    contrast = np.ravel([(-weight, weight) for weight in weights])
    return normal_p_value(float(contrast @ aucs), float(contrast @ covariance @ contrast))


def _by_config(scored: Sequence[Scored], name: str) -> dict[Key, Scored]:
    found: dict[Key, Scored] = {}
    for item in scored:
        key = (str(item.config), item.run.training_seed) if item.run else ("", 0)
        if key in found:
            what = f"two runs of {key[0]} ({found[key].name}, {item.name})" if item.run else "two CSV files"
            raise MedfmcError(f"{name} has {what}; a comparison is of one model: give a folder that holds one run per config.")
        found[key] = item
    of_runs = [item for item in scored if item.run]
    for runs in by_key((item.run for item in of_runs if item.run), map(_group, of_runs)).values():
        one_experiment(runs)
    return found


def _known(scored: Mapping[Key, Scored]) -> str:
    return ", ".join(config or item.name for (config, _), item in scored.items()) or "none"


def _group(scored: Scored) -> str:
    """What the seeds of one subset and number of shots have in common; of CSVs there is one group."""
    return seedless(str(scored.config))


def _title(scored: Scored) -> str:
    if scored.config is None or scored.run is None:
        return scored.subset.key if scored.subset else "the test set"
    shots = shots_words(shots_of(scored.run.config))
    return f"{scored.config.subset} {shots}" + (" official" if scored.config.variant == "official" else "")


def _aligned(base: Scored, other: Scored) -> Scored:
    """`other` with its rows in the order of `base`.

    Raises:
        MedfmcError: the two are not of the same images with the same labels and classes.
    """
    if base.classes != other.classes or base.multilabel != other.multilabel:
        raise MedfmcError(f"{base.name} and {other.name} have different classes: {', '.join(base.classes)} and {', '.join(other.classes)}.")
    images, others = set(base.image_ids), set(other.image_ids)
    if images != others or len(base.image_ids) != len(other.image_ids):
        raise MedfmcError(
            f"{base.name} and {other.name} were tested on different images ({len(images - others)} only in the first, "
            f"{len(others - images)} only in the second); "
            "only scores on the same images can be compared."
        )
    row_of = {image_id: row for row, image_id in enumerate(other.image_ids)}
    rows = np.array([row_of[image_id] for image_id in base.image_ids])
    if (rows != np.arange(len(rows))).any() or (other.patient_ids != base.patient_ids).any():  # else it keeps what is known of it
        other = replace(
            other,
            image_ids=other.image_ids[rows],
            patient_ids=base.patient_ids,
            targets=other.targets[rows],
            scores=other.scores[rows],
        )
    if (other.targets != base.targets).any():
        raise MedfmcError(f"{base.name} and {other.name} have different labels for the same images.")
    return other
