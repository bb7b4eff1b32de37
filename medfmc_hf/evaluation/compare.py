"""Compares models on the same test pictures: paired differences, their intervals over patients and over draws, and a verdict in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import MedfmcError
from ..progress import bar
from .bootstrap import Bootstrap, bootstrap, mean_of
from .challenge import METRIC_TITLES
from .scored import Scored
from .statistics import Draws, auc_covariance, holm, normal_p_value, over_draws

FEW = 20  # patients below which a bootstrap over them is known to be too sure of itself

Group = tuple[str, int | None, str]  # subset, shots, variant of the configs that differ in the draw only


@dataclass(frozen=True)
class Comparison:
    """One row of a comparison: one metric of two models, on one subset and number of shots. Fractions; differences are other minus base.

    Attributes:
        test: what was compared, such as `endo 5-shot`.
        other: name of the model compared with the base.
        metric: `map` or `accuracy`, `auc`, or `auc of NAME` for one class.
        base_value: the base's value, the mean over draws.
        other_value: the other's.
        difference: other_value - base_value.
        low: lower end of the test-set interval of the difference (paired bootstrap over patients, draws as they are).
        high: upper end.
        p: two-sided p that the difference is 0 on other patients: from the same bootstrap.
        p_holm: p after Holm's correction over the whole table.
        p_delong: for a single AUC (of one class, or of two classes that exclude each other) DeLong's p; else None.
        draws: the differences draw by draw, with the t interval of their mean; None for a single draw.
        patients: how many patients were resampled.
        pictures: how many test pictures they have.
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
    p_delong: float | None
    draws: Draws | None
    patients: int
    pictures: int
    group: str

    def verdict(self, base: str, level: float = 0.95) -> str:
        """One sentence: which is better, whether that would hold for other patients, and whether for other draws."""
        title = metric_title(self.metric)
        if np.isnan(self.p_holm):
            return f"{self.test}, {title}: undefined on these pictures, so nothing can be said."
        if self.difference == 0 and self.low == self.high == 0:
            return f"{self.test}, {title}: {self.other} and {base} score the same."
        ends = f"{100 * self.low:+.2f} to {100 * self.high:+.2f}"
        points = f"{100 * self.difference:+.2f} points, {level:.0%} interval {ends}, p = {self.p_holm:.3g}"
        if self.p_holm >= 1 - level:
            return f"{self.test}, {title}: no difference shown between {self.other} and {base} ({points})."
        better, worse = (self.other, base) if self.difference > 0 else (base, self.other)
        sentence = f"{self.test}, {title}: {better} is better than {worse}, likely on other {self.group} too ({points})"
        if self.patients < FEW:
            sentence += f" - though {self.patients} {self.group} are few, and such an interval is too narrow"
        if self.draws is None:
            return sentence + "; one draw says nothing about other support sets."
        same_side = sum(value * self.difference > 0 for value in self.draws.values)
        share = f"in {same_side} of {len(self.draws.values)} draws, t interval {100 * self.draws.low:+.2f} to {100 * self.draws.high:+.2f}"
        if self.draws.low * self.draws.high > 0:
            return sentence + f"; it holds over draws too ({share})."
        return sentence + f"; another support set may turn it ({share})."


def metric_title(metric: str) -> str:
    """Such as `mAP`, or `AUC of tumor`."""
    kind, of, name = metric.partition(" of ")
    return METRIC_TITLES[kind] + of + name


def compare(
    base: Sequence[Scored],
    others: Mapping[str, Sequence[Scored]],
    *,
    per_class: bool = False,
    replicates: int | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> list[Comparison]:
    """Compare one or several models with a base.

    Runs are paired by dataset config; CSVs one to one. The draws of one subset and number of shots are taken together: the difference is
    the mean over draws, its test-set interval resamples patients once for all draws, and its draw interval comes from the spread of the
    differences. The two are never mixed.

    Args:
        base: scored pictures of the base, each config once.
        others: by name, scored pictures of each model to compare, each config once.
        per_class: also compare the AUC of each class (of two exclusive classes it is the AUC).
        replicates: of the bootstrap over patients; None for 2,000, or as many as Holm's correction of the table needs to reach p = 0.02.
        seed: of the bootstrap.
        level: coverage of the intervals.

    Raises:
        MedfmcError: a model has a config twice, nothing can be paired, or paired runs were not tested on the same pictures.
    """
    tests: list[tuple[str, list[tuple[Scored, ...]], list[str]]] = []
    rows: list[Comparison] = []
    own = _by_config(base, "the first")

    def boot(scored: Scored) -> Bootstrap:
        progress.update()
        return bootstrap(scored.targets, scored.scores, scored.patient_ids, classes=scored.classes, replicates=replicates, seed=seed)

    for name, theirs in others.items():
        theirs = _by_config(theirs, name)
        common = [key for key in own if key in theirs]
        if not common:
            raise MedfmcError(f"{name} has no run to compare: it has {_known(theirs)}, the first has {_known(own)}.")
        for group in dict.fromkeys(_group(own[key]) for key in common):
            keys = [key for key in common if _group(own[key]) == group]
            first = own[keys[0]]
            members = [tuple(_aligned(first, scored) for scored in (own[key], theirs[key])) for key in keys]
            metrics = [first.main, "auc"] + [
                f"auc of {c}" for c in first.classes if per_class and (first.multilabel or len(first.classes) > 2)
            ]
            tests.append((name, members, metrics))
    if replicates is None:
        replicates = max(2000, 100 * sum(len(metrics) for _, _, metrics in tests))
    with bar(total=2 * sum(len(members) for _, members, _ in tests), desc="resampling patients", unit="run") as progress:
        for name, members, metrics in tests:
            boots = [tuple(boot(scored) for scored in pair) for pair in members]
            rows += [_row(members, boots, metric, name, level) for metric in metrics]
    return [replace(row, p_holm=p) for row, p in zip(rows, holm([row.p for row in rows]))]


def _row(members: list[tuple[Scored, ...]], boots: list[tuple[Bootstrap, ...]], metric: str, name: str, level: float) -> Comparison:
    first = members[0][0]
    mine, other = (mean_of([pair[side] for pair in boots]) for side in (0, 1))
    difference = other - mine
    low, high = difference.interval(metric, level, "percentile")
    changes = [theirs.point[metric] - ours.point[metric] for ours, theirs in boots]
    return Comparison(
        test=_title(first),
        other=name,
        metric=metric,
        base_value=mine.point[metric],
        other_value=other.point[metric],
        difference=difference.point[metric],
        low=low,
        high=high,
        p=difference.p_value(metric),
        p_holm=float("nan"),
        p_delong=_delong(members, metric),
        draws=over_draws(changes, level) if len(changes) > 1 else None,
        patients=mine.patients,
        pictures=len(first.image_ids),
        group=first.group,
    )


def _delong(members: list[tuple[Scored, ...]], metric: str) -> float | None:
    """DeLong's p for the difference of an AUC, or of the mean of the AUCs over draws; None where the AUC is not a single one."""
    first = members[0][0]
    if " of " in metric:
        column = first.classes.index(metric.partition(" of ")[2])
    elif metric == "auc" and not first.multilabel and len(first.classes) == 2:
        column = 1
    else:
        return None
    positive = first.targets[:, column] > 0 if first.multilabel else first.targets == column
    aucs, covariance = auc_covariance(positive, np.stack([s.scores[:, column] for pair in members for s in pair]), first.patient_ids)
    contrast = np.tile([-1, 1], len(members)) / len(members)
    return normal_p_value(float(contrast @ aucs), float(contrast @ covariance @ contrast))


def _by_config(scored: Sequence[Scored], name: str) -> dict[str, Scored]:
    found: dict[str, Scored] = {}
    for item in scored:
        key = str(item.config) if item.config else ""
        if key in found:
            what = f"two runs of {key} ({found[key].name}, {item.name})" if key else "two CSV files"
            raise MedfmcError(f"{name} has {what}; a comparison is of one model: give a folder that holds one run per config.")
        found[key] = item
    return found


def _known(scored: Mapping[str, Scored]) -> str:
    return ", ".join(key or item.name for key, item in scored.items()) or "none"


def _group(scored: Scored) -> Group | None:
    return (scored.config.subset, scored.config.shots, scored.config.variant) if scored.config else None


def _title(scored: Scored) -> str:
    if scored.config is None:
        return scored.subset.key if scored.subset else "the test set"
    shots = f" {scored.config.shots}-shot" if scored.config.shots else ""
    return scored.config.subset + shots + ("" if scored.config.variant == "clean" else f" {scored.config.variant}")


def _same_pictures(a: Scored, b: Scored) -> bool:
    return len(a.image_ids) == len(b.image_ids) and set(a.image_ids) == set(b.image_ids)


def _aligned(base: Scored, other: Scored) -> Scored:
    """`other` with its rows in the order of `base`.

    Raises:
        MedfmcError: the two are not of the same pictures with the same labels and classes.
    """
    if base.classes != other.classes or base.multilabel != other.multilabel:
        raise MedfmcError(f"{base.name} and {other.name} have different classes: {', '.join(base.classes)} and {', '.join(other.classes)}.")
    if not _same_pictures(base, other):
        only = len(set(base.image_ids) - set(other.image_ids)), len(set(other.image_ids) - set(base.image_ids))
        raise MedfmcError(
            f"{base.name} and {other.name} were tested on different pictures ({only[0]} only in the first, {only[1]} only in the second); "
            "only scores on the same pictures can be compared."
        )
    row_of = {image_id: row for row, image_id in enumerate(other.image_ids)}
    rows = np.array([row_of[image_id] for image_id in base.image_ids])
    other = replace(
        other,
        image_ids=other.image_ids[rows],
        patient_ids=base.patient_ids,
        targets=other.targets[rows],
        scores=other.scores[rows],
    )
    if (other.targets != base.targets).any():
        raise MedfmcError(f"{base.name} and {other.name} have different labels for the same pictures.")
    return other
