"""The rows of the board that are not runs: chance, and what others published."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.published import PUBLISHED, Published, caveat
from ..subsets import SUBSETS
from .cells import Cell


def references(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reference rows for the subsets of some cells.

    Returns:
        For each row `key`, `kind` (`chance` or `published`), `source`, `where`, `method`, `model`, `label`, `test_list`, `caveat`, by
        subset `test_rows`, `caveats` and `comparable` (whether the test list is as long as that of the cells), and `values`: `subset`,
        `shots`, `metric`, `value` (a fraction).
    """
    present = {cell.subset for cell in cells}
    rows = {key: Counter(cell.test_rows for cell in cells if cell.subset == key).most_common(1)[0][0] for key in SUBSETS if key in present}
    result = [_chance(cells, rows)] if cells else []
    for index, reference in enumerate(PUBLISHED):
        own = {key: rows[key] for key in rows if any(place[0] == key for place in reference.values)}
        if own:
            result.append(_row(f"p{index}", reference, own))
    return result


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


def _chance(cells: Sequence[Cell], rows: Mapping[str, int | None]) -> dict[str, Any]:
    """Mean prevalence (mAP), the largest class (accuracy) and a half (AUC), from the class counts of the runs' own test sets."""
    values = []
    for subset, count in rows.items():
        own = [cell for cell in cells if cell.subset == subset]
        cell = next(cell for cell in own if cell.test_rows == count)
        positives = [positives for row in cell.per_class.values() if (positives := row.get("positives"))]
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
