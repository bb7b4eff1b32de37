"""Each formula against a slow, obvious reference and against scikit-learn; then what the metric must and must not depend on."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from medfmc_hf.errors import MedfmcError
from medfmc_hf.scoring import as_array, as_scores, as_targets, score
from medfmc_hf.subsets import SUBSETS

GRID = st.sampled_from([-2.0, -1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1.0, 3.0])  # few values, so that ties are the rule


def slow_auc(positive, scores):
    """The share of pairs of a positive and a negative that are in order."""
    pairs = [(a > b) + 0.5 * (a == b) for a, p in zip(scores, positive) if p for b, q in zip(scores, positive) if not q]
    return sum(pairs) / len(pairs) if pairs else math.nan


def slow_ap(positive, scores):
    """Precision at each distinct threshold, weighted by the recall it adds."""
    value, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = [p for p, s in zip(positive, scores) if s >= threshold]
        value += (sum(called) / sum(positive) - recall) * sum(called) / len(called)
        recall = sum(called) / sum(positive)
    return value


def slow_official_ap(positive, scores):
    """Walk down the rows from the highest score, rows of the same score in the order they come: precision at each positive."""
    if not any(positive):
        return 0.0
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    precisions = [sum(positive[i] for i in order[: n + 1]) / (n + 1) for n, row in enumerate(order) if positive[row]]
    return sum(precisions) / len(precisions)


def tables(least=2, most=4):
    """Multi-label targets and scores with ties, of so many classes."""
    return st.tuples(st.integers(2, 25), st.integers(least, most)).flatmap(
        lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(float, shape, elements=GRID))
    )


@given(tables())
def test_multilabel_agrees_with_the_slow_references(table):
    targets, scores = table
    for ties, reference in (("sklearn", slow_ap), ("official", slow_official_ap)):
        result = score(targets, scores, ties=ties)
        aucs, aps, undefined = [], [], []
        for c in range(scores.shape[1]):
            y, s, own = targets[:, c].tolist(), scores[:, c].tolist(), result["per_class"][str(c)]
            assert (own["positives"], own["negatives"]) == (sum(y), len(y) - sum(y))
            if sum(y) in (0, len(y)):
                undefined.append(str(c))
                assert math.isnan(own["auc"]) and math.isnan(own["ap"])
                continue
            aucs.append(slow_auc(y, s))
            aps.append(reference(y, s))
            assert own["auc"] == pytest.approx(aucs[-1], abs=1e-12)
            assert own["ap"] == pytest.approx(aps[-1], abs=1e-12)
        assert result["undefined"] == undefined
        if not aucs:
            assert all(math.isnan(result[key]) for key in ("map", "auc", "score"))
            continue
        assert result["auc"] == pytest.approx(np.mean(aucs), abs=1e-12)
        assert result["map"] == pytest.approx(np.mean(aps), abs=1e-12)
        assert result["score"] == pytest.approx((np.mean(aucs) + np.mean(aps)) / 2, abs=1e-12)
        assert 0 <= result["map"] <= 1 and 0 <= result["auc"] <= 1


@given(tables())
def test_the_official_mode_agrees_with_the_slow_reference(table):
    targets, scores = table
    degenerate = [sum(column) in (0, len(column)) for column in targets.T.tolist()]
    if degenerate[0]:
        with pytest.raises(MedfmcError, match="UnboundLocalError"):
            score(targets, scores, undefined="official")
        return
    result = score(targets, scores, undefined="official", ties="official")
    aucs, aps = [], []
    for c, bad in enumerate(degenerate):
        aucs.append(aucs[-1] if bad else slow_auc(targets[:, c], scores[:, c]))
        aps.append(slow_official_ap(targets[:, c].tolist(), scores[:, c].tolist()))
    assert result["auc"] == pytest.approx(np.mean(aucs), abs=1e-12)
    assert result["map"] == pytest.approx(np.mean(aps), abs=1e-12)
    if not any(degenerate):
        assert score(targets, scores, undefined="official") == score(targets, scores)


@given(tables(3, 3), st.data())
def test_single_label_agrees_with_scikit_learn(table, data):
    scores = table[1]
    targets = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(scores), max_size=len(scores))))
    assume(len(set(targets)) > 1)
    result = score(targets, scores)
    assert result["accuracy"] == accuracy_score(targets, scores.argmax(axis=1))
    aucs = {c: roc_auc_score(targets == c, scores[:, c]) for c in set(targets.tolist())}
    assert result["auc"] == pytest.approx(np.mean(list(aucs.values())), abs=1e-12)
    assert result["undefined"] == [str(c) for c in range(3) if c not in aucs]
    for c in range(3):
        own = result["per_class"][str(c)]
        if c in aucs:
            assert own["recall"] == pytest.approx((scores.argmax(axis=1)[targets == c] == c).mean())
        else:
            assert math.isnan(own["recall"])


@pytest.mark.parametrize("ties", [None, 100, 10, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_agrees_with_scikit_learn_at_the_size_of_a_test_set(ties, dtype):
    rng = np.random.default_rng(0)
    targets = rng.random((2708, 19)) < np.geomspace(0.3, 0.005, 19)
    scores = targets * 0.5 + rng.normal(size=targets.shape)
    scores = (scores if ties is None else np.round(scores * ties) / ties).astype(dtype)
    result = score(targets, scores)
    for c in range(19):
        own = result["per_class"][str(c)]
        assert own["auc"] == pytest.approx(roc_auc_score(targets[:, c], scores[:, c]), abs=1e-12)
        assert own["ap"] == pytest.approx(average_precision_score(targets[:, c], scores[:, c]), abs=1e-12)


@given(tables(), st.randoms(use_true_random=False))
def test_order_of_rows_and_classes_and_monotone_maps_change_nothing(table, random):
    targets, scores = table
    rows, columns = (random.sample(range(n), n) for n in targets.shape)
    expected = score(targets, scores)
    names = [str(c) for c in columns]
    for changed in (
        score(targets[rows], scores[rows]),
        score(targets[:, columns], scores[:, columns], classes=names),
        score(targets, np.exp(scores) * 7 - 3),
        score(targets, (scores * [1.5, 2.0, 0.25, 8.0][: scores.shape[1]]).astype("float32")),
    ):
        assert json.dumps(sorted(changed.pop("undefined"))) == json.dumps(sorted(expected["undefined"]))
        for key in ("map", "auc", "score"):
            assert changed[key] == pytest.approx(expected[key], abs=1e-12, nan_ok=True)
        for name, own in changed["per_class"].items():
            assert own == pytest.approx(expected["per_class"][name], abs=1e-12, nan_ok=True)


def test_turning_scores_and_labels_around_turns_the_auc_around():
    rng = np.random.default_rng(3)
    targets, scores = rng.random((50, 3)) < 0.4, rng.integers(0, 6, (50, 3)) / 5
    auc = score(targets, scores)["auc"]
    assert score(targets, -scores)["auc"] == pytest.approx(1 - auc)
    assert score(~targets, -scores)["auc"] == pytest.approx(auc)
    assert score(targets, np.where(targets, 1.0, 0.0))["score"] == 1
    assert score(targets, np.zeros((50, 3)))["auc"] == 0.5
    assert score(targets, np.zeros((50, 3)))["map"] == pytest.approx(targets.mean())


def test_probabilities_and_logits_where_the_mathematics_agrees_and_where_not():
    rng = np.random.default_rng(4)
    logits, multi = rng.normal(size=(60, 3)), rng.random((60, 3)) < 0.4
    assert score(multi, logits) == score(multi, 1 / (1 + np.exp(-logits)))
    single = rng.integers(0, 3, 60)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    a, b = score(single, logits), score(single, softmax)
    assert a["accuracy"] == b["accuracy"]
    assert a["auc"] != b["auc"]  # a softmax mixes the classes of a row


def test_negative_zero_is_zero():
    targets = [[1, 0], [0, 1], [0, 0], [1, 1]]
    minus, plus = np.array([[-0.0, 1], [0.0, -0.0], [-0.0, 0.0], [0.0, 2]]), np.array([[0.0, 1], [0, 0], [0, 0], [0, 2]])
    for ties in ("sklearn", "official"):
        assert score(targets, minus, ties=ties) == score(targets, plus, ties=ties)


def test_equal_scores_in_the_official_order_count_by_row():
    up, down = [[1, 0], [0, 1]], [[0, 1], [1, 0]]
    assert score(up, [[0, 0], [0, 0]], ties="official")["per_class"]["0"]["ap"] == 1
    assert score(down, [[0, 0], [0, 0]], ties="official")["per_class"]["0"]["ap"] == 0.5
    assert score(up, [[0, 0], [0, 0]])["per_class"]["0"]["ap"] == score(down, [[0, 0], [0, 0]])["per_class"]["0"]["ap"] == 0.5


def test_the_first_of_equal_scores_is_the_prediction():
    assert score([0, 1, 1], [[0.5, 0.5], [0.5, 0.5], [0, 1]])["accuracy"] == pytest.approx(2 / 3)


def test_undefined_classes_are_left_out_and_listed():
    targets = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]])
    scores = np.array([[0.9, 0.1, 0.4], [0.8, 0.2, 0.1], [0.7, 0.3, 0.3], [0.1, 0.4, 0.2]])
    result = score(targets, scores, classes=["ulcer", "tumor", "polyp"])
    assert result["undefined"] == ["tumor", "polyp"]
    assert result["auc"] == result["per_class"]["ulcer"]["auc"] == 0.75
    assert result["map"] == result["per_class"]["ulcer"]["ap"]
    official = score(targets, scores, classes=["ulcer", "tumor", "polyp"], undefined="official")
    assert [own["auc"] for own in official["per_class"].values()] == [0.75, 0.75, 0.75]
    assert [own["ap"] for own in official["per_class"].values()] == [result["map"], 0, 1]
    assert official["map"] == pytest.approx((result["map"] + 0 + 1) / 3)
    assert official["undefined"] == ["tumor", "polyp"]


def test_one_row_has_an_accuracy_and_nothing_else():
    result = score([1], [[0.2, 0.8]])
    assert result["accuracy"] == 1 and result["undefined"] == ["0", "1"]
    assert math.isnan(result["auc"]) and math.isnan(result["score"])


def test_the_result_is_plain_python():
    for targets in ([0, 1, 1], [[0], [0, 1], []]):
        json.dumps(score(targets, np.float32([[0.1, 0.2], [0.3, 0.1], [0.5, 0.6]])), allow_nan=False)


MULTI = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 0]])
SCORES = np.array([[0.9, 0.25, 0.5], [0.125, 0.5, 0.75], [0.25, 0.75, 0.625], [0.5, 0.125, 0.25]])


@pytest.mark.parametrize(
    "targets",
    [
        MULTI, MULTI.astype(bool), MULTI.astype(float), MULTI.tolist(), MULTI.astype(object), MULTI.astype("uint8"),
        tuple(map(tuple, MULTI)), [[0, 2], [], [1, 2], [0, 1]],
        [[2, 0], (), np.array([1, 2]), [0, 1]], np.array([[0, 2], [], [1, 2], [0, 1]], dtype=object),
    ],
)  # fmt: skip
def test_every_form_of_multilabel_references_is_the_same(targets):
    assert as_targets(targets, SCORES.shape).tolist() == MULTI.astype(bool).tolist()
    assert score(targets, SCORES) == score(MULTI, SCORES)


@pytest.mark.parametrize(
    "scores",
    [SCORES.astype("float32"), SCORES.astype("float16"), SCORES.tolist(), SCORES.astype(object), np.asfortranarray(SCORES), list(SCORES)],
)
def test_every_form_of_predictions_is_the_same(scores):
    expected = score(MULTI, SCORES)
    found = score(MULTI, scores)
    assert found["score"] == expected["score"] and found["per_class"] == expected["per_class"]


def test_tensors_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    scores = torch.tensor(SCORES, requires_grad=True)
    expected = score(MULTI, SCORES)
    assert score(torch.tensor(MULTI), scores) == expected
    assert score([torch.tensor(row) for row in MULTI], [row for row in scores]) == expected
    assert score(torch.tensor(MULTI), scores.to(torch.bfloat16))["auc"] == expected["auc"]
    assert score(torch.tensor([0, 1, 1, 0]), scores[:, :2])["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("targets", "scores", "message"),
    [
        ([0, 1], [0.1, 0.9], r"shape \(2,\); expected \(rows, classes\)"),
        ([0, 1], [[0.1], [0.9]], "at least two classes"),
        ([], np.empty((0, 2)), "no predictions"),
        ([0, 1], [[0.1, np.nan], [0.9, 0.1]], r"1 of 4 predictions are not finite \(the first is nan in row 0, class 1\)"),
        ([0, 1], [[0.1, 0.5], [-np.inf, 0.1]], "not finite"),
        ([0, 1], [["a", "b"], ["c", "d"]], "expected numbers"),
        ([0, 1], [[0.1, 0.5], [0.9]], "rows of equally many numbers"),
        ([0, 1], np.zeros((2, 2), complex), "complex128"),
        ([0], [[0.1, 0.5], [0.9, 0.1]], "1 references for 2 predictions"),
        (1, [[0.1, 0.5], [0.9, 0.1]], "no references"),
        ([0, 2], [[0.1, 0.5], [0.9, 0.1]], "reference 2 in row 1 is out of range; expected class indices 0 to 1"),
        ([0, -1], [[0.1, 0.5], [0.9, 0.1]], "reference -1 in row 1 is out of range"),
        ([0, 0.5], [[0.1, 0.5], [0.9, 0.1]], "float64; expected class indices"),
        ([0, np.nan], [[0.1, 0.5], [0.9, 0.1]], "float64; expected class indices"),
        (["a", "b"], [[0.1, 0.5], [0.9, 0.1]], "expected class indices"),
        ([None, 1], [[0.1, 0.5], [0.9, 0.1]], "references"),
        (np.array([[0, 1, 1], [1, 0, 0]]), [[0.1, 0.5], [0.9, 0.1]], r"shape \(2, 3\) and values 0 to 1"),
        (np.array([[0, 2], [1, 0]]), [[0.1, 0.5], [0.9, 0.1]], "values 0 to 2"),
        (np.array([[0, -1], [1, 0]]), [[0.1, 0.5], [0.9, 0.1]], "values -1 to 1"),
        (np.zeros((2, 2, 2)), [[0.1, 0.5], [0.9, 0.1]], r"\(2, 2, 2\)"),
        ([[0, 1, 1], [1, 0, 0]], [[0.1, 0.5], [0.9, 0.1]], "names a class twice"),
        ([[0, 2], []], [[0.1, 0.5], [0.9, 0.1]], r"row 0 is \[0, 2\]; expected class indices 0 to 1"),
        ([["x"], []], [[0.1, 0.5], [0.9, 0.1]], "row 0"),
        ([[0], 1], [[0.1, 0.5], [0.9, 0.1]], "row 1"),
    ],
)  # fmt: skip
def test_bad_input_is_named(targets, scores, message):
    with pytest.raises(MedfmcError, match=message):
        score(targets, scores)


def test_bad_options_are_named():
    for options, message in (
        ({"undefined": "zero"}, "undefined is skip or official; got 'zero'"),
        ({"ties": "random"}, "ties is sklearn or official"),
        ({"task": "regression"}, "single-label, multi-label or None"),
        ({"task": "multi-label"}, "this is a multi-label task"),
        ({"classes": ["a"]}, "expected 1"),
        ({"classes": ["a", "a"]}, "must differ"),
    ):
        with pytest.raises(MedfmcError, match=message):
            score([0, 1], [[0.1, 0.5], [0.9, 0.1]], **options)
    with pytest.raises(MedfmcError, match="this is a single-label task"):
        score([[0], [1]], [[0.1, 0.5], [0.9, 0.1]], task="single-label")


def test_numpy_alone_and_no_copy_of_what_fits():
    scores = np.zeros((3, 2), np.float32)
    assert as_scores(scores) is scores and as_array(scores) is scores
    source = Path(score.__code__.co_filename).read_text()
    imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported <= {"collections.abc", "typing", "numpy", ".errors"}


GOLDEN = {  # openmedlab/MedFM's sample submission against the published labels; main metric and AUC for 1, 5 and 10 shots
    "chest": ["13.4502", "58.2087", "15.1944", "63.8912", "17.5996", "67.8915"],
    "colon": ["74.2824", "82.9108", "92.0551", "97.6172", "91.6188", "97.0589"],
    "endo": ["24.7991", "71.3860", "20.5461", "65.9968", "25.7090", "73.8473"],
}
LABELS = {"chest": "pleural_effusion", "colon": "tumor", "endo": "ulcer"}  # the first label column of the published tables


def test_golden_sample_submission(shared):
    values = {"official": [], "default": []}
    for key, expected in GOLDEN.items():
        subset = SUBSETS[key]
        with next(shared.rglob(subset.table)).open(newline="") as file:
            table = list(csv.DictReader(file))
        names = list(table[0])
        columns = names[names.index(LABELS[key]) :][: len(subset.classes) if subset.multilabel else 1]
        labels = {row["img_id"]: [int(row[column]) for column in columns] for row in table if row["img_id"]}
        for place, shots in enumerate((1, 5, 10)):
            with (shared / "openmedlab" / "result_sample" / f"{key}_{shots}-shot_submission.csv").open(newline="") as file:
                rows = list(csv.reader(file))
            targets = np.array([labels[row[0]] for row in rows])
            targets = targets if subset.multilabel else targets[:, 0]
            scores = np.array([row[1:] for row in rows], float)
            options = {"task": subset.task, "classes": subset.classes}
            official = score(targets, scores, undefined="official", ties="official", **options)
            default = score(targets, scores, **options)
            assert [f"{100 * official[metric]:.4f}" for metric in (subset.metric, "auc")] == expected[2 * place : 2 * place + 2]
            for mode, result in (("official", official), ("default", default)):
                values[mode] += [100 * result[subset.metric], 100 * result["auc"]]
    assert f"{np.mean(values['official']):.6f}" == "58.559064"
    assert np.abs(np.subtract(values["official"], values["default"])).max() <= 0.0002
