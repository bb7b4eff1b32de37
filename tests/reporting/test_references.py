"""Chance and published numbers beside the runs."""

import pytest
from invented_runs import invent_run

from medfmc_hf.evaluation.published import PUBLISHED
from medfmc_hf.reporting.board import make_board
from medfmc_hf.reporting.references import references
from medfmc_hf.runs import load_predictions


def cells_of(root):
    return make_board(root, intervals=False).results


def test_chance_is_what_a_constant_score_gets(tmp_path):
    """Of accuracy the share of the largest class, of mAP the mean share of positives, of AUC a half."""
    endo = load_predictions(invent_run(tmp_path, subset="endo", shots=5, rows=50)).targets
    colon = load_predictions(invent_run(tmp_path, subset="colon", shots=1, rows=40)).targets
    chance = references(cells_of(tmp_path))[0]
    assert chance["kind"] == "chance" and chance["test_rows"] == {"colon": 40, "endo": 50}
    found = {(value["subset"], value["shots"], value["metric"]): value["value"] for value in chance["values"]}
    share, largest = endo.mean(), max(colon.mean(), 1 - colon.mean())
    assert found == {
        ("endo", "5", "map"): pytest.approx(share), ("endo", "5", "auc"): 0.5, ("endo", "5", "score"): pytest.approx((share + 0.5) / 2),
        ("colon", "1", "accuracy"): pytest.approx(largest), ("colon", "1", "auc"): 0.5,
        ("colon", "1", "score"): pytest.approx((largest + 0.5) / 2),
    }  # fmt: skip


def test_published_numbers_are_fractions_of_the_subsets_that_are_there(tmp_path):
    invent_run(tmp_path, subset="colon", shots=5, rows=40)
    published = references(cells_of(tmp_path))[1:]
    assert len(published) == sum(any(place[0] == "colon" for place in reference.values) for reference in PUBLISHED)
    for row in published:
        original = PUBLISHED[int(row["key"][1:])]
        assert row["label"] == f"{original.method} · {original.model}"
        shown = {("colon", value["shots"], value["metric"]): value["value"] for value in row["values"]}
        assert shown == {place: pytest.approx(value / 100) for place, value in original.values.items() if place[0] == "colon"}
        assert row["comparable"] == {"colon": False}


def test_a_test_list_of_the_same_length_is_comparable(tmp_path):
    invent_run(tmp_path, subset="endo", shots=5, rows=881)  # as many as test_WithLabel has
    rows = {row["test_list"]: row for row in references(cells_of(tmp_path))[1:]}
    assert [name for name, row in rows.items() if row["comparable"]["endo"]] == ["test_WithLabel"]
    assert "not comparable" not in rows["test_WithLabel"]["caveats"]["endo"]
    assert "here 881): not comparable" in rows["complement of trainval"]["caveats"]["endo"]


def test_without_cells_there_are_none():
    assert references([]) == []
