"""What score and compare share: sources of scored images, and tables in plain text."""

import argparse

import pytest
from invented_runs import invent_run, invent_runs

from medfmc_hf.commands._scored import add_source_arguments, labels_of, load, table
from medfmc_hf.errors import MedfmcError
from medfmc_hf.subsets import subset_of


def arguments(*words):
    parser = argparse.ArgumentParser()
    add_source_arguments(parser)
    return parser.parse_args(map(str, words))


def test_numbers_stand_to_the_right_and_words_to_the_left():
    rows = [{"": "lora", "AUC": "9.50", "note": "a"}, {"": "linear probe", "AUC": "+61.20", "note": ""}]
    assert table(rows).splitlines() == ["                 AUC  note", "lora            9.50  a", "linear probe  +61.20"]


def test_a_folder_gives_its_finished_runs(tmp_path, capsys):
    invent_runs(tmp_path, methods=("lora",), subsets=("endo",), shots=(5,), seeds=(0, 1), rows=20)
    invent_run(tmp_path, subset="endo", seed=2, status="failed")
    assert [str(item.config) for item in load(str(tmp_path), arguments())] == ["endo-5shot-seed0", "endo-5shot-seed1"]
    assert load(str(tmp_path), arguments())[0].run.no_jackknife is None
    without = invent_run(tmp_path, subset="endo", seed=3, rows=20, predictions=False)
    assert [str(item.config) for item in load(str(tmp_path), arguments())] == ["endo-5shot-seed0", "endo-5shot-seed1"]
    assert "left out: " in capsys.readouterr().err
    with pytest.raises(MedfmcError, match=r"has no predictions\.parquet"):
        load(str(without), arguments())
    invent_run(tmp_path / "failed", subset="endo", status="failed")
    with pytest.raises(MedfmcError, match="holds no finished run"):
        load(str(tmp_path / "failed"), arguments())


def test_classes_are_of_other_data(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("label,cat,dog,age\n0,0.9,0.1,20\n1,0.2,0.8,30\n")
    (item,) = load(str(path), arguments("--classes", "dog, cat"))
    assert item.classes == ("dog", "cat") and item.scores.tolist() == [[0.1, 0.9], [0.8, 0.2]]
    with pytest.raises(MedfmcError, match="is of colon, whose classes are known"):
        load(str(path), arguments("--classes", "cat,dog", "--subset", "colon"))


def test_labels_come_from_the_tables_that_have_some(tmp_path):
    endo = subset_of("endo")
    (tmp_path / "good.txt").write_text("a.png 0,0,0,1\nb.png 1,0,0,0\n")
    (tmp_path / "bad.csv").write_text("name,label\na,1\n")
    assert labels_of(arguments(), endo) is None
    assert labels_of(arguments("--labels", tmp_path / "bad.csv", tmp_path / "good.txt"), endo) == {"a": (3,), "b": (0,)}
    with pytest.raises(MedfmcError, match="none of the files given with --labels has labels of endo"):
        labels_of(arguments("--labels", tmp_path / "bad.csv"), endo)
