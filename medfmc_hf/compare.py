"""Compares models on the same test pictures: paired differences, their intervals over patients and over draws, and a verdict in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .bootstrap import Bootstrap, bootstrap, mean_of
from .challenge import METRIC_TITLES
from .errors import MedfmcError
from .scored import Scored
from .statistics import Draws, auc_covariance, holm, normal_p_value, over_draws

Group = tuple[str, int | None, str]  # subset, shots, variant of the configs that differ in the draw only


@dataclass(frozen=True)
class Comparison:
    """One row of a comparison: one metric of two models, on one subset and number of shots. Fractions; differences are other minus base.

    Attributes:
        test: what was compared, such as `endo 5-shot`.
        other: name of the model compared with the base.
        metric: `map` or `accuracy`, or `auc`.
        base_value: the base's value, the mean over draws.
        other_value: the other's.
        difference: other_value - base_value.
        low: lower end of the test-set interval of the difference (paired bootstrap over patients, draws as they are).
        high: upper end.
        p: two-sided p that the difference is 0 on other patients: from the same bootstrap.
        p_holm: p after Holm's correction over the whole table.
        p_delong: for a single AUC of one draw (two classes), DeLong's p; else None.
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

    def verdict(self, base: str, alpha: float = 0.05) -> str:
        """One sentence: which is better, whether that would hold for other patients, and whether for other draws."""
        title = METRIC_TITLES[self.metric]
        if np.isnan(self.p_holm):
            return f"{self.test}, {title}: undefined on these pictures, so nothing can be said."
        if self.difference == 0 and self.low == self.high == 0:
            return f"{self.test}, {title}: {self.other} and {base} score the same."
        points = (
            f"{100 * self.difference:+.2f} points, 95 % interval {100 * self.low:+.2f} to {100 * self.high:+.2f}, p = {self.p_holm:.3g}"
        )
        if self.p_holm >= alpha:
            return f"{self.test}, {title}: no difference shown between {self.other} and {base} ({points})."
        better, worse = (self.other, base) if self.difference > 0 else (base, self.other)
        sentence = f"{self.test}, {title}: {better} is better than {worse} on these draws, and would be on other {self.group} ({points})"
        if self.draws is None:
            return sentence + "; one draw says nothing about other support sets."
        same_side = sum(value * self.difference > 0 for value in self.draws.values)
        share = f"in {same_side} of {len(self.draws.values)} draws, t interval {100 * self.draws.low:+.2f} to {100 * self.draws.high:+.2f}"
        if self.draws.low * self.draws.high > 0:
            return sentence + f"; it holds over draws too ({share})."
        return sentence + f"; another support set may turn it ({share})."


def compare(
    base: Sequence[Scored],
    others: Mapping[str, Sequence[Scored]],
    *,
    replicates: int = 2000,
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
        replicates: of the bootstrap over patients.
        seed: of the bootstrap.
        level: coverage of the intervals.

    Raises:
        MedfmcError: a model has a config twice, nothing can be paired, or paired runs were not tested on the same pictures.
    """
    rows = []
    own = _by_config(base, "the first")
    resampled: dict[int, Bootstrap] = {}

    def boot(scored: Scored) -> Bootstrap:
        if id(scored) not in resampled:
            resampled[id(scored)] = bootstrap(
                scored.targets, scored.scores, scored.patient_ids, classes=scored.classes, replicates=replicates, seed=seed
            )
        return resampled[id(scored)]

    for name, theirs in others.items():
        theirs = _by_config(theirs, name)
        common = [key for key in own if key in theirs]
        if not common:
            raise MedfmcError(f"{name} has no run to compare: it has {_known(theirs)}, the first has {_known(own)}.")
        pairs = [(own[key], _aligned(own[key], theirs[key])) for key in common]
        for group in dict.fromkeys(_group(mine) for mine, _ in pairs):
            members = [(mine, other) for mine, other in pairs if _group(mine) == group]
            for mine, _ in members[1:]:
                if not _same_pictures(members[0][0], mine):
                    raise MedfmcError(
                        f"{mine.name} and {members[0][0].name} were tested on different pictures, so their mean says nothing."
                    )
            # One order of rows for all draws, so that every bootstrap numbers the patients alike.
            mine, other = (mean_of([boot(pair[side]) for pair in members]) for side in (0, 1))
            rows += [_row(members, mine, other, metric, name, level) for metric in (members[0][0].main, "auc")]
    return [replace(row, p_holm=p) for row, p in zip(rows, holm([row.p for row in rows]))]


def _row(members: list[tuple[Scored, Scored]], mine: Bootstrap, other: Bootstrap, metric: str, name: str, level: float) -> Comparison:
    first = members[0][0]
    difference = other - mine
    low, high = difference.interval(metric, level)
    draws = None
    if len(members) > 1:
        from .scoring import score

        def value(scored: Scored) -> float:
            return score(scored.targets, scored.scores, classes=scored.classes)[metric]

        draws = over_draws([value(theirs) - value(ours) for ours, theirs in members], level)
    p_delong = None
    if metric == "auc" and len(members) == 1 and not first.multilabel and len(first.classes) == 2:
        aucs, covariance = auc_covariance(first.targets == 1, np.stack([s.scores[:, 1] for s in members[0]]), first.patient_ids)
        p_delong = normal_p_value(aucs[1] - aucs[0], covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
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
        p_delong=p_delong,
        draws=draws,
        patients=mine.patients,
        pictures=len(first.image_ids),
        group=first.group,
    )


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
