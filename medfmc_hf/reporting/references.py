"""The rows of the board that are not runs: chance, and what others published."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.published import PUBLISHED, Published, caveat
from ..subsets import SUBSETS
from .results import Result


def references(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Reference rows for the subsets of some results.

    Returns:
        For each row `key`, `kind` (`chance` or `published`), `source`, `where`, `method`, `model`, `label`, `test_list`, `caveat`, by
        subset `test_rows`, `caveats` and `comparable` (whether the test list is as long as that of the results), and `values`: `subset`,
        `shots`, `metric`, `value` (a fraction).
    """
    present = {result.subset for result in results}
    counts = {key: Counter(result.test_rows for result in results if result.subset == key) for key in SUBSETS if key in present}
    rows = {key: count.most_common(1)[0][0] for key, count in counts.items()}
    found = [_chance(results, rows)] if results else []
    for index, reference in enumerate(PUBLISHED):
        own = {key: rows[key] for key in rows if any(place[0] == key for place in reference.values)}
        if own:
            found.append(_row(f"p{index}", reference, own))
    return found


def _row(key: str, reference: Published, rows: Mapping[str, int | None]) -> dict[str, Any]:
    return {
        "key": key,
        "kind": "published",
        "source": reference.source,
        "where": reference.where,
        "method": reference.method,
        "model": reference.model,
        "label": f"{reference.method} · {reference.model}",
        "test_list": reference.test_list,
        "test_rows": {subset: reference.test_rows(subset) for subset in rows},
        "caveat": reference.caveat,
        "caveats": {subset: caveat(reference, subset, count) for subset, count in rows.items()},
        "comparable": {subset: count is not None and reference.test_rows(subset) == count for subset, count in rows.items()},
        "values": [
            {"subset": subset, "shots": shots, "metric": metric, "value": value / 100}
            for (subset, shots, metric), value in reference.values.items()
            if subset in rows
        ],
    }


def _chance(results: Sequence[Result], rows: Mapping[str, int | None]) -> dict[str, Any]:
    """Mean prevalence (mAP), the largest class (accuracy) and a half (AUC), from the class counts of the runs' own test sets."""
    values = []
    for subset, count in rows.items():
        own = [result for result in results if result.subset == subset]
        result = next(result for result in own if result.test_rows == count)
        positives = [positives for row in result.per_class.values() if (positives := row.get("positives"))]
        if not positives or not count:
            continue
        main = SUBSETS[subset].metric
        level = sum(positives) / len(positives) / count if main == "map" else max(positives) / count
        for metric, value in ((main, level), ("auc", 0.5), ("score", (level + 0.5) / 2)):
            shots = dict.fromkeys(c.shots for c in own)
            values += [{"subset": subset, "shots": shot, "metric": metric, "value": value} for shot in shots]
    return {
        "key": "chance",
        "kind": "chance",
        "source": "Chance",
        "where": "mAP: mean class prevalence; accuracy: always the largest class; AUC: 50",
        "label": "Chance",
        "test_list": "the test rows of the runs",
        "test_rows": dict(rows),
        "caveat": "",
        "caveats": dict.fromkeys(rows, ""),
        "comparable": dict.fromkeys(rows, True),
        "values": values,
    }
