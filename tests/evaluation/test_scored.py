"""Scored images from runs, from CSV files with labels and from submission files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented_runs import invent_run
from trees import FORMS, save_table

from medfmc_hf.errors import MedfmcError
from medfmc_hf.evaluation import scored
from medfmc_hf.evaluation.experiments import read_run
from medfmc_hf.runs import RunRecord, load_predictions, save_predictions
from medfmc_hf.scoring import score
from medfmc_hf.subsets import subset_of


def write(path, text):
    path.write_text(text)
    return path


def test_a_run(tmp_path):
    folder = invent_run(tmp_path, subset="endo", shots=5, seed=2, rows=40)
    record = RunRecord.load(folder)
    item = scored.of_run(folder, record)
    assert item.name == "endo-5shot-seed2 lora · vit-base-patch16-224-in21k" and item.main == "map" and item.group == "studies"
    assert str(item.config) == "endo-5shot-seed2"
    result = score(item.targets, item.scores, classes=item.classes)
    assert result["map"] == pytest.approx(record.scores["test"]["map"], abs=1e-6)


def test_no_two_runs_have_one_name(tmp_path):
    options = ({}, {"model": "other/vit-base-patch16-224-in21k"}, {"epochs": 3}, {"training_seed": 7}, {"method_options": {"r": 4}})
    folders = [invent_run(tmp_path, subset="endo", rows=40, **own) for own in options]
    runs = [read_run(folder, RunRecord.load(folder)) for folder in folders]
    named = scored.run_names(runs)
    names = [named[run.record.id] for run in runs]
    assert len(set(names)) == 5 and "training seed 7" in names[3] and "other/vit-base" in names[1] and "epochs 3" in names[2]


def test_a_run_that_cannot_be_scored(tmp_path):
    failed = invent_run(tmp_path, subset="endo", shots=5, seed=1, status="failed")
    with pytest.raises(MedfmcError, match="out of memory"):
        scored.of_run(failed, RunRecord.load(failed))
    folder = invent_run(tmp_path, subset="endo", shots=5, seed=0, rows=10)
    test = load_predictions(folder)
    hidden = type(test)(test.image_ids, test.patient_ids, np.full_like(test.targets, -1), test.logits)
    save_predictions(folder, {"test": test, "challenge-test": hidden})
    with pytest.raises(MedfmcError, match="not public"):
        scored.of_run(folder, RunRecord.load(folder), "challenge-test")


def test_a_csv_with_a_class_per_row(tmp_path):
    path = write(tmp_path / "a.csv", "image_id,patient_id,label,cat,dog\nx.png,p1,0,0.9,0.1\ny.png,p1,dog,0.2,0.8\nz.png,p2,1,0.6,0.4\n")
    item = scored.of_csv(path)
    assert item.classes == ("cat", "dog") and item.main == "accuracy" and item.subset is None
    assert item.image_ids.tolist() == ["x", "y", "z"] and item.patient_ids.tolist() == ["p1", "p1", "p2"]
    assert item.targets.tolist() == [0, 1, 1] and item.scores[2].tolist() == [0.6, 0.4]


def test_a_csv_with_several_classes_per_row(tmp_path):
    path = write(tmp_path / "a.csv", "labels,ulcer,erosion,polyp,tumor\n0 2,.1,.2,.3,.4\n,.1,.2,.3,.4\ntumor;ulcer,.1,.2,.3,.4\n")
    item = scored.of_csv(path, subset_of("endo"))
    assert item.targets.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]]
    assert len(set(item.patient_ids)) == 3  # nothing is known of the patients


def test_patients_come_from_the_names_of_a_subset(tmp_path):
    rows = "".join(f"13333_2021.12_000{n // 2}_5623{n}.png,{n % 4},.1,.2,.3,.4\n" for n in range(4))
    item = scored.of_csv(write(tmp_path / "a.csv", "image_id,labels,ulcer,erosion,polyp,tumor\n" + rows), subset_of("endo"))
    assert item.patient_ids.tolist() == ["13333_2021.12_0000"] * 2 + ["13333_2021.12_0001"] * 2


def test_a_submission_file_takes_its_labels_from_elsewhere(tmp_path):
    path = write(tmp_path / "endo_5-shot_submission.csv", "b.png,0.1,0.2,0.3,0.4\na.png,0.5,0.6,0.7,0.8\n")
    item = scored.of_csv(path, labels={"a": (0, 3), "b": (), "c": (1,)})
    assert item.subset.key == "endo" and item.targets.tolist() == [[0, 0, 0, 0], [1, 0, 0, 1]]
    with pytest.raises(MedfmcError, match=r"1 of 2 images .* have no label in what was given, such as a"):
        scored.of_csv(path, labels={"b": ()})
    with pytest.raises(MedfmcError, match="--labels"):
        scored.of_csv(path)
    with pytest.raises(MedfmcError, match="--subset"):
        scored.of_csv(path.rename(tmp_path / "mine.csv"))


def test_labels_from_published_files(shared):
    endo, colon = subset_of("endo"), subset_of("colon")
    labels = scored.read_labels(next(shared.rglob(endo.table)), endo)
    assert len(labels) == 3865 and sum(3 in label for label in labels.values()) == 136
    listed = scored.read_labels(shared / "openmedlab" / "MedFMC" / "endo" / "test_WithLabel.txt", endo)
    assert len(listed) == 881 and all(labels[name] == label for name, label in listed.items())
    assert sum(scored.read_labels(next(shared.rglob(colon.table)), colon).values()) == 3515
    with pytest.raises(MedfmcError, match="column"):
        scored.read_labels(next(shared.rglob(subset_of("chest").table)), colon)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("label,a,b\n", "0 rows"),
        ("name,a,b\nx,1,2\n", "expected label or labels"),
        ("label,a\n0,1\n", "at least two classes"),
        ("label,a,a\n0,1,2\n", "comes more than once"),
        ("label,a,b\n0,1,2\n1,1\n", "line 3: 2 cells; the header has 3"),
        ("label,a,b\n0,1,x\n", "line 2: could not convert"),
        ("label,a,b\n\n0,1,\n", "line 3: could not convert"),
        ("label,a,b\n0,1,nan\n", "line 2: the scores 1, nan are not all finite"),
        ("label,a,b\n0,1,0\n1,-inf,0\n", "line 3: the scores -inf, 0 are not all finite"),
        ('label,a,b\n0,1,"1,000"\n', "line 2: '1,000' may be a decimal number or one above a thousand"),
        ('note,label,a,b\n"two\nlines",0,1,0\nx,1,1\n', "line 4: 3 cells; the header has 4"),
        ('label,a,b\n0,1,"0\n', "is not a CSV table"),
        ("label,label,a,b\n0,0,1,0\n", "the column label comes more than once in the header label, label, a, b; leave one"),
        ("label,a,b,a.1\n0,1,0,1\n", "the column a comes more than once in the header label, a, b, a.1"),  # as pandas calls the second
        ("label,labels,a,b\n0,0,1,0\n", "has both label and labels"),
        ("patient_id,label, patient_id,a,b\np,0,q,1,0\n", "the column patient_id comes more than once"),
        ("patient_id,label,a,b\np,0,1,0\n,1,1,0\n", "line 3: patient_id is empty"),
        ("image_id,label,a,b\n2.02E+19,0,1,0\n", r"line 2: a spreadsheet has rounded the image_id to 2.02E\+19"),
        ("label,a,b\n2,1,0\n", "line 2: '2' is no class"),
        ("label,a,b\nbird,1,0\n", "line 2: 'bird' is no class"),
        ("label,a,b\n,1,0\n", "expected one class"),
        ("label,a,b\n0 1,1,0\n", "expected one class"),
        ("image_id,label,a,b\nx,0,1,0\nx,1,1,0\n", "more than once, such as x"),
    ],
)
def test_bad_tables_are_named(tmp_path, text, message):
    with pytest.raises(MedfmcError, match=message):
        scored.of_csv(write(tmp_path / "a.csv", text))


def test_tables_of_another_subset_are_named(tmp_path):
    path = write(tmp_path / "a.csv", "label,a,b\n0,1,0\n")
    with pytest.raises(MedfmcError, match="no column of scores for negative, positive; expected negative, positive"):
        scored.of_csv(path, subset_of("colon"))
    path = write(tmp_path / "a.csv", "labels,negative,positive\n0,1,0\n")
    with pytest.raises(MedfmcError, match="colon is single-label and has label"):
        scored.of_csv(path, subset_of("colon"))
    with pytest.raises(MedfmcError, match="does not exist"):
        scored.of_csv(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"label,caf\xe9\n")
    with pytest.raises(MedfmcError, match="is not UTF-8 text; save it again as CSV UTF-8"):
        scored.of_csv(tmp_path / "b.csv")
    ragged = write(tmp_path / "endo_1-shot_submission.csv", "a.png,0.1,0.2,0.3,0.4\nb.png,0.1,0.2\n")
    with pytest.raises(MedfmcError, match="line 2: 2 scores; the lines before have 4"):
        scored.of_csv(ragged, labels={"a": (), "b": ()})


# --- which columns are scores ---


def rng_scores(n=30, classes=("no", "yes")):
    import pandas as pd

    rng = np.random.default_rng(0)
    label = np.arange(n) % 2
    yes = np.clip(0.5 + 0.3 * (label - 0.5) + 0.2 * rng.normal(size=n), 0, 1)
    return pd.DataFrame({"label": label, classes[0]: 1 - yes, classes[1]: yes})


def test_an_index_that_was_written_along_is_no_class(tmp_path, capsys):
    """As `df.to_csv(path)` leaves it: a first column without a name, which used to be class 0."""
    frame, path = rng_scores(), tmp_path / "p.csv"
    frame.to_csv(path, index=False)
    right = scored.of_csv(path)
    assert right.classes == ("no", "yes") and "the classes are no, yes" in capsys.readouterr().err
    frame.to_csv(path)
    with pytest.raises(MedfmcError, match=r"column \(no name\) has no name, as an index .*--classes"):
        scored.of_csv(path)
    item = scored.of_csv(path, classes=["no", "yes"])
    assert "left out, for they are no classes: (no name)" in capsys.readouterr().err
    np.testing.assert_array_equal(item.scores, right.scores)
    frame.reset_index().to_csv(path)  # twice
    assert np.array_equal(scored.of_csv(path, classes=["no", "yes"]).scores, right.scores)
    frame.to_csv(path, index_label="Unnamed: 0")
    with pytest.raises(MedfmcError, match="has no name"):
        scored.of_csv(path)


def test_of_a_known_subset_its_classes_alone_are_scores(tmp_path, capsys):
    frame, path = rng_scores(classes=("negative", "positive")), tmp_path / "p.csv"
    frame.assign(age=range(20, 50), site=0.5).to_csv(path)
    item = scored.of_csv(path, subset_of("colon"))
    assert item.classes == ("negative", "positive") and "(no name), age, site" in capsys.readouterr().err
    np.testing.assert_allclose(item.scores[:, 1], frame["positive"])
    frame[["label", "positive", "negative"]].to_csv(path, index=False)  # in another order: by name, not by place
    np.testing.assert_allclose(scored.of_csv(path, subset_of("colon")).scores[:, 1], frame["positive"])


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (np.arange(30) + 20.0, "outside 0 to 1"),
        (np.linspace(-1, 1, 30), "outside 0 to 1"),
        (np.arange(30), "outside 0 to 1"),
        (np.arange(20, 50) / 100, "may be no class"),  # an age as a fraction
        (np.arange(30) % 2, "may be no class"),  # a fold, a sex, or the label once more
        (np.zeros(30), "may be no class"),
    ],
)
def test_what_no_score_could_be_is_refused_where_classes_are_not_named(tmp_path, column, says):
    path = tmp_path / "p.csv"
    rng_scores().assign(other=column).to_csv(path, index=False)
    with pytest.raises(MedfmcError, match=rf"other.* {says}.*--classes"):
        scored.of_csv(path)
    assert scored.of_csv(path, classes=["no", "yes"]).classes == ("no", "yes")


def test_undeclared_columns_of_several_labels_are_classes_if_each_has_an_image(tmp_path):
    several = "labels,cat,dog,bird\n0,.9,.1,.4\n1 bird,.3,.2,.5\n,.1,.1,.1\n"
    assert scored.of_csv(write(tmp_path / "a.csv", several)).classes == ("cat", "dog", "bird")
    with pytest.raises(MedfmcError, match="one of the columns cat, dog, bird may be no class, for no image has the label bird"):
        scored.of_csv(write(tmp_path / "a.csv", several.replace("1 bird", "1")))


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ("label,cat,dog\n0,1,0\n0,1,0\n", True),
        ("label,cat,dog,bird\n0,0.33,0.33,0.33\n0,0.97,0.01,0.02\n", True),  # rounded; no bird is there, nor a dog
        ("label,cat,dog,fold\n0,0.33,0.66,0\n1,0.98,0.02,0\n", False),  # these add up to one without it as well
        ("label,cat,dog,dose\n0,0.33,0.66,0.01\n1,0.98,0.02,0.01\n", False),  # and here it may be rounding
        ("label,probability,age\n0,0.2,0.44\n1,0.7,0.51\n", False),  # two labels and two columns, but one is no class
        ("label,cat,dog\ncat,0.2,0.44\ndog,0.7,0.51\n", True),  # as the labels say
        ("label,cat,dog,age\ncat,0.2,0.44,0.5\ndog,0.7,0.51,0.6\n", False),
    ],
)
def test_undeclared_columns_of_one_label_are_classes_if_they_add_up_to_one_or_are_named(tmp_path, text, sure):
    path = write(tmp_path / "a.csv", text)
    if sure:
        assert scored.of_csv(path).classes == tuple(text.split("\n")[0].split(",")[1:])
    else:
        with pytest.raises(MedfmcError, match=r"may be no class, for the labels do not name them all.*--classes a,b,c"):
            scored.of_csv(path)


def test_what_parquet_calls_an_index_is_none_of_the_classes(tmp_path):
    frame, path = rng_scores(), tmp_path / "p.parquet"
    frame.sample(frac=1, random_state=0).to_parquet(path)
    with pytest.raises(MedfmcError, match=r"column __index_level_0__ has no name, as an index"):
        scored.of_csv(path)
    assert scored.of_csv(path, classes=["no", "yes"]).classes == ("no", "yes")


def test_classes_may_be_called_by_numbers(tmp_path):
    path = write(tmp_path / "a.csv", "label,1,0\n1,.9,.1\n0,.2,.8\n")
    assert scored.of_csv(path).targets.tolist() == [0, 1]  # by name, not by place
    assert scored.of_csv(path, classes=["0", "1"]).targets.tolist() == [1, 0]


def test_labels_as_spreadsheets_write_them(tmp_path):
    path = write(tmp_path / "a.csv", "label;cat;dog\n1,0;0,1;0,9\n0,0;0,75;0,25\n")
    item = scored.of_csv(path)
    assert item.targets.tolist() == [1, 0] and item.scores.tolist() == [[0.1, 0.9], [0.75, 0.25]]
    for label in ("0.5", "2.0", "-1", "nan", "inf"):
        with pytest.raises(MedfmcError, match=f"line 2: '{label}' is no class"):
            scored.of_csv(write(tmp_path / "b.csv", f"label,cat,dog\n{label},0.1,0.9\n"))


SCORES = st.floats(0, 1).map(lambda value: round(value, 6))


@pytest.mark.parametrize("form", FORMS)
@given(
    rows=st.lists(st.tuples(st.integers(0, 1), SCORES, SCORES, st.integers(18, 90)), min_size=2, max_size=5),
    order=st.permutations(["image_id", "patient_id", "label", "cat", "dog", "age", "site"]),
)
def test_every_form_of_a_table_is_scored_alike(tmp_path_factory, form, rows, order):
    """In any order of its columns, beside others."""
    names = [f"a,b;{number} ä.png" for number in range(len(rows))]
    whole = {
        "image_id": names,
        "patient_id": [f"p{number // 2}" for number in range(len(rows))],
        "label": [label for label, *_ in rows],
        "cat": [cat for _, cat, *_ in rows],
        "dog": [dog for *_, dog, _ in rows],
        "age": [age for *_, age in rows],
        "site": ["A"] * len(rows),
    }
    table = [list(order), *map(list, zip(*(whole[name] for name in order)))]
    item = scored.of_csv(save_table(tmp_path_factory.getbasetemp() / "scored", "table", table, form), classes=["dog", "cat"])
    assert item.classes == ("dog", "cat") and item.image_ids.tolist() == [name.removesuffix(".png") for name in names]
    assert item.patient_ids.tolist() == whole["patient_id"] and item.targets.tolist() == whole["label"]
    assert item.scores.tolist() == [[dog, cat] for _, cat, dog, _ in rows]


@pytest.mark.parametrize("form", FORMS)
def test_submissions_and_label_tables_in_every_form(tmp_path, form):
    endo = subset_of("endo")
    table = [["img_id", *endo.classes], ["a.png", 1, 0, 0, 1], ["b.png", 0, 0, 0, 0]]
    labels = scored.read_labels(save_table(tmp_path, "labels", table, form), endo)
    assert labels == {"a": (0, 3), "b": ()}
    if form == "parquet":  # has a header
        return
    path = save_table(tmp_path, "endo_5-shot_submission", [["b.png", 0.1, 0.2, 0.3, 0.4], ["a.png", 0.5, 0.6, 0.7, 0.8]], form)
    item = scored.of_csv(path, labels=labels)
    assert item.targets.tolist() == [[0, 0, 0, 0], [1, 0, 0, 1]] and item.scores.tolist() == [[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]]


def test_named_classes_must_be_there_and_give_the_order(tmp_path):
    frame, path = rng_scores(), tmp_path / "p.csv"
    frame.to_csv(path, index=False)
    with pytest.raises(MedfmcError, match="no column of scores for maybe; expected no, maybe, and it has no, yes"):
        scored.of_csv(path, classes=["no", "maybe"])
    assert scored.of_csv(path, classes=["yes", "no"]).classes == ("yes", "no")


def test_a_name_goes_before_a_place_however_it_is_written(tmp_path):
    plain = scored.of_csv(write(tmp_path / "a.csv", "label,1,2,3\n1,.6,.3,.1\n2,.1,.8,.1\n3,.1,.2,.7\n"))
    floats = scored.of_csv(write(tmp_path / "b.csv", "label,1,2,3\n1.0,.6,.3,.1\n2.0,.1,.8,.1\n3.0,.1,.2,.7\n"))
    assert plain.targets.tolist() == floats.targets.tolist() == [0, 1, 2]
    with pytest.raises(MedfmcError, match="with ; or a space between them"):
        scored.of_csv(write(tmp_path / "c.csv", 'labels,0,1\n"1,0",.6,.7\n"0",.6,.7\n'))
