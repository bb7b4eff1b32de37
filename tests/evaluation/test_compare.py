"""Paired comparisons: what is paired, which interval means what, and what the verdict says."""

import numpy as np
import pytest
from invented_runs import invent_run, invent_runs

from medfmc_hf.errors import MedfmcError
from medfmc_hf.evaluation.compare import _delong, compare
from medfmc_hf.evaluation.experiments import Run
from medfmc_hf.evaluation.scored import Scored, of_run
from medfmc_hf.reporting.board import make_board
from medfmc_hf.runs import RunConfig, RunRecord
from medfmc_hf.runs.folders import find_runs
from medfmc_hf.scoring import score
from medfmc_hf.subsets import ConfigName, subset_of


def load(root):
    return [of_run(folder, record) for folder, record in find_runs(root)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    options = {"subsets": ("endo", "colon"), "shots": (5,), "rows": 200, "patients": 40}
    for method in ("linear", "lora", "full"):
        invent_runs(root / method, methods=(method,), **options)
    return {method: load(root / method) for method in ("linear", "lora", "full")}


def made(noise, seed=0, config="colon-5shot-seed0", strength=1.0, rows=300):
    """A model of colon whose skill is chosen; the images and their labels are always the same."""
    rng = np.random.default_rng(99)
    targets, common = rng.integers(0, 2, rows), rng.normal(size=rows)
    signal = strength * (2 * targets - 1) + 0.3 * common + noise * np.random.default_rng(seed).normal(size=rows)
    positive = 1 / (1 + np.exp(-signal))
    ids = np.array([f"region{row // 3:04d}-lv1-p{row:04d}" for row in range(rows)])
    patients = np.array([name[:10] for name in ids])
    name = ConfigName.parse(config)
    colon = subset_of("colon")
    run = Run(RunRecord(f"{seed:016d}", "finished", RunConfig("colon", shots=name.shots, seed=name.seed).to_dict()))
    return Scored(str(name), colon, run, colon.classes, ids, patients, targets, np.stack([1 - positive, positive], axis=1))


def test_rows_of_the_table(models):
    rows = compare(models["linear"], {"lora": models["lora"]})
    assert [(row.test, row.metric) for row in rows] == [
        ("colon 5-shot", "accuracy"),
        ("colon 5-shot", "auc"),
        ("endo 5-shot", "map"),
        ("endo 5-shot", "auc"),
    ]
    for row in rows:
        members = [[s for s in models[m] if s.config.subset == row.test.split()[0]] for m in ("linear", "lora")]
        values = [[score(s.targets, s.scores)[row.metric] for s in side] for side in members]
        assert row.base_value == pytest.approx(np.mean(values[0])) and row.other_value == pytest.approx(np.mean(values[1]))
        assert row.difference == pytest.approx(row.other_value - row.base_value)
        assert row.seeds.values == pytest.approx(np.subtract(values[1], values[0]))
        assert row.low < row.difference < row.high and row.patients == len(set(members[0][0].patient_ids))
    assert [row.p_delong is None for row in rows] == [True, False, True, True]


@pytest.mark.parametrize("gaps", [(), (("linear", 1), ("full", 4))])
def test_the_board_and_the_command_say_the_same(tmp_path, gaps):
    """Of two models and of three, also where some seeds are not there: the same family of pairs, and so the same corrected p."""
    for method in ("linear", "lora", "full"):
        seeds = [seed for seed in range(5) if (method, seed) not in gaps]
        invent_runs(tmp_path / method, methods=(method,), subsets=("endo",), shots=(5,), rows=90, patients=26, seeds=seeds)
    for names in (("linear", "lora"), ("linear", "lora", "full")):
        base, *others = ({name: load(tmp_path / name)} for name in names)
        rows = compare(base[names[0]], {name: own for other in others for name, own in other.items()})
        board = make_board([tmp_path / name for name in names])
        method_of = {adaptation.key: adaptation.method for adaptation in board.adaptations}
        assert len(rows) == 2 * len(others)
        for row in rows:
            comparison = next(c for c in board.comparisons if c.metric == row.metric)
            at = [[method_of[key] for key in comparison.adaptations].index(name) for name in (row.other, names[0])]
            pair = next(pair for pair in comparison.pairs if {pair["a"], pair["b"]} == set(at))
            sign = 1 if pair["a"] == at[0] else -1
            ends = (pair["low"], pair["high"])[::sign]
            assert (sign * pair["difference"], *(sign * end for end in ends)) == pytest.approx(
                (row.difference, row.low, row.high), abs=1e-12
            )
            assert (pair["p"], pair["p_holm"]) == pytest.approx((row.p, row.p_holm), rel=1e-9)
            assert row.comparisons == len(comparison.pairs) == (1 if len(names) == 2 else 3)
            words = "1 comparison)" if row.comparisons == 1 else "3 comparisons)"
            assert f"Holm, over {words}" in row.verdict("linear")


def test_a_model_is_one_experiment_on_each_test(tmp_path):
    invent_runs(tmp_path / "a", methods=("lora",), subsets=("endo",), shots=(5,), seeds=(0, 1), rows=40)
    invent_run(tmp_path / "b", subset="endo", seed=0, rows=40)
    invent_run(tmp_path / "b", subset="endo", seed=1, rows=40, epochs=3)
    with pytest.raises(MedfmcError, match=r"not seeds of one experiment, for they differ in epochs"):
        compare(load(tmp_path / "a"), {"b": load(tmp_path / "b")})


def test_per_class_rows_are_single_aucs(models):
    rows = compare(models["linear"], {"lora": models["lora"]}, per_class=True)
    names = [row.metric for row in rows if row.metric.startswith("auc of")]
    assert names == [f"auc of {name}" for name in subset_of("endo").classes]  # colon's two are one, its AUC
    assert all(0 <= row.p_delong <= 1 for row in rows if row.metric in names)


def test_a_better_model_is_called_better_and_a_like_one_is_not():
    good, bad = made(1.0), made(4.0, seed=1)
    for row in compare([bad], {"good": [good]}):
        assert row.p_holm < 0.05 and row.low > 0
        assert "good is better than bad, likely on other regions too" in row.verdict("bad")
        assert "one seed says nothing about other support sets" in row.verdict("bad")
        assert "few" not in row.verdict("bad")
    assert "good is better than bad" in compare([good], {"bad": [bad]})[0].verdict("good").replace("better than good", "")
    for row in compare([made(2.0)], {"twin": [made(2.0, seed=5)]}):
        assert row.low < 0 < row.high and "no difference shown between twin and base" in row.verdict("base")


def test_the_same_predictions_score_the_same():
    rows = compare([made(1.0)], {"copy": [made(1.0)]})
    assert len(rows) > 1
    for row in rows:
        assert (row.difference, row.low, row.high, row.p_holm) == (0, 0, 0, 1)
        assert row.verdict("base").endswith("copy and base score the same.")


def test_delong_and_the_jackknife_agree():
    row = compare([made(2.5)], {"other": [made(1.9, seed=3)]})[1]
    assert row.metric == "auc" and row.p_delong == pytest.approx(row.p, abs=0.03)


def test_seeds_are_told_apart_from_patients():
    def over_seeds(strengths):
        return [made(1.5, seed=i, config=f"colon-5shot-seed{i}", strength=s) for i, s in enumerate(strengths)]

    steady = compare(over_seeds([0.3] * 5), {"b": over_seeds([1.0] * 5)})[1]
    assert steady.seeds.low > 0 and "it holds over seeds too (in 5 of 5 split seeds" in steady.verdict("a")
    wild = compare(over_seeds([0.5] * 5), {"b": over_seeds([0.3, 3.0, 0.2, 4.0, 0.6])})[1]
    assert wild.p_holm < 0.05 and wild.seeds.low < 0 < wild.seeds.high
    assert "another support set may turn it" in wild.verdict("a")
    assert wild.high - wild.low < (wild.seeds.high - wild.seeds.low) / 2  # two uncertainties, two intervals


def test_few_patients_are_named():
    few = [made(1.0, rows=45), made(5.0, seed=1, rows=45)]
    assert "15 regions are few" in compare([few[1]], {"b": [few[0]]})[1].verdict("a")


def test_rows_are_matched_by_image():
    base, other = made(2.0), made(1.5, seed=1)
    order = np.random.default_rng(0).permutation(300)
    turned = Scored(**{**vars(other), **{key: getattr(other, key)[order] for key in ("image_ids", "patient_ids", "targets", "scores")}})
    assert compare([base], {"b": [turned]}) == compare([base], {"b": [other]})


def test_what_cannot_be_compared_is_named(models):
    base = made(1.0)
    cases = [
        ([base, base], {"b": [base]}, "two runs of colon-5shot-seed0"),
        ([base], {"b": [made(1.0, config="colon-1shot-seed0")]}, "b has no run to compare: it has colon-1shot-seed0"),
        ([base], {"b": [made(1.0, rows=297)]}, r"different images \(3 only in the first, 0 only in the second\)"),
        ([base], {"b": [Scored(**{**vars(base), "targets": 1 - base.targets})]}, "different labels"),
        ([base], {"b": [Scored(**{**vars(base), "classes": ("a", "b")})]}, "different classes"),
    ]
    for mine, others, message in cases:
        with pytest.raises(MedfmcError, match=message):
            compare(mine, others)


def test_delong_weighs_runs_as_the_difference_it_stands_beside(tmp_path):
    """A split that was trained three times with the same outcome says no more than once."""
    folders = {
        (method, seed): invent_run(tmp_path, subset="colon", shots=5, seed=seed, method=method, rows=120)
        for method in ("linear", "lora")
        for seed in (0, 1)
    }
    scored = {key: of_run(folder, RunRecord.load(folder)) for key, folder in folders.items()}
    pairs = [(scored["linear", seed], scored["lora", seed]) for seed in (0, 1)]
    once = _delong(pairs, "auc", [0, 1])
    assert _delong([pairs[0]] * 3 + [pairs[1]], "auc", [0, 0, 0, 1]) == pytest.approx(once)
    assert _delong(pairs[:1], "auc", [0]) != pytest.approx(once), "the case must be one where the splits differ"
