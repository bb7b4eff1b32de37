import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medfmc_hf import training
from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig, RunRecord, load_predictions
from medfmc_hf.subsets import SUBSETS
from medfmc_hf.training import train

RECIPE = Path(__file__).parent.parent / "recipes" / "peft_train.py"
SHORT = RunConfig(subset="endo", shots=1, method="lora", epochs=2, batch_size=8, learning_rate=5e-3)


@pytest.fixture(scope="module")
def shared(sample_build, tmp_path_factory):
    return training.Shared(sample_build, cache=tmp_path_factory.mktemp("pixels"))


@pytest.fixture(scope="module")
def config(tiny_backbone):
    return replace(SHORT, model=str(tiny_backbone))


# --- a whole run ---


def test_a_run_leaves_a_whole_folder_and_is_not_repeated(config, shared, tmp_path):
    folder, record = train(config, shared=shared, out=tmp_path)
    assert {path.name for path in folder.iterdir()} == {"run.json", "predictions.parquet", "adapter"}
    assert RunRecord.load(folder) == record or json.loads((folder / "run.json").read_text())["id"] == record.id
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    card = (folder / "adapter" / "README.md").read_text()
    assert "**On images that are invented" in card and "model-index" not in card and record.data["invented"]
    rows = load_predictions(folder)
    assert rows.logits.shape == (record.data["rows"]["test"], 4)
    assert training.score(rows.targets, rows.logits, SUBSETS["endo"])["map"] == record.scores["test"]["map"]
    assert len(record.history) == 2 and "validation" not in record.history[0]

    before = (folder / "run.json").stat().st_mtime_ns
    again, _ = train(config, shared=shared, out=tmp_path)
    assert again == folder and (folder / "run.json").stat().st_mtime_ns == before


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(config, shared, tmp_path):
    first, _ = train(config, shared=shared, out=tmp_path / "a")
    second, _ = train(config, shared=shared, out=tmp_path / "b")
    third, _ = train(replace(config, learning_rate=4e-3), shared=shared, out=tmp_path / "a")
    content = [(folder / "predictions.parquet").read_bytes() for folder in (first, second, third)]
    assert content[0] == content[1] != content[2]


@pytest.mark.parametrize("subset", list(SUBSETS))
@pytest.mark.parametrize("method", ["linear", "lora"])
def test_every_subset_learns_with_lora_and_linear(subset, method, config, shared, tmp_path):
    """Five shots of the invented pictures must beat chance; its classes are easy to tell apart."""
    one = replace(config, subset=subset, shots=5, method=method, epochs=10, learning_rate=5e-3, augmentation="none")
    _, record = train(one, shared=shared, out=tmp_path)
    assert record.scores["test"]["auc"] > 0.58


def test_validation_selection_is_recorded(config, shared, tmp_path):
    _, record = train(replace(config, select="best"), shared=shared, out=tmp_path)
    assert record.config["select"] == "best"
    assert {"map", "auc", "score"} <= set(record.history[0]["validation"])
    assert "validation" in record.scores


def test_challenge_pictures_are_predicted_on_request(config, shared, tmp_path):
    folder, _ = train(replace(config, method="linear", predict_challenge=True), shared=shared, out=tmp_path)
    challenge = shared.splits(training.ConfigName("endo", variant="challenge"))["validation"]
    assert load_predictions(folder, "challenge-validation").image_ids.tolist() == challenge["image_id"][:]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "magic"}, "lora"),
        ({"method_options": {"rank": 3}}, "r, "),
        ({"loss": "hinge"}, "auto"),
        ({"model": "/nowhere/backbone"}, "/nowhere/backbone"),
        ({"shots": None, "select": "best"}, "validation split"),
    ],
)
def test_mistakes_are_explained_and_leave_nothing(config, shared, tmp_path, changes, says):
    with pytest.raises(MedfmcError) as error:
        train(replace(config, **changes), shared=shared, out=tmp_path / "runs")
    assert says in str(error.value)
    assert not (tmp_path / "runs").exists()


def recipe(*argv: str, processes: int = 1) -> subprocess.CompletedProcess:
    """Run the recipe as `accelerate launch` does: one process by itself, several by torch's launcher."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--local_addr=127.0.0.1", f"--nproc_per_node={processes}"]
    launch = launch if processes > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run([sys.executable, *launch, str(RECIPE), *argv], capture_output=True, text=True, env=environment, timeout=300)


def test_two_processes_train_as_one(config, sample_build, tmp_path):
    """Without random views and dropout, the mean gradient of two halves of a batch is the gradient of the batch."""
    flags = ["--subset", "endo", "--shots", "1", "--model", config.model, "--epochs", "2", "--batch-size", "7", "--augmentation", "none"]
    flags += ["--data", str(sample_build), "--method", "lora", "--option", "lora_dropout=0.0", "--quiet"]
    logits = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        done = recipe(*flags, "--out", str(out), processes=processes)
        assert done.returncode == 0, done.stderr
        (found,) = out.rglob("run.json")
        assert json.loads(found.read_text())["cost"]["processes"] == processes
        logits.append(load_predictions(found.parent).logits)
    np.testing.assert_allclose(logits[0], logits[1], atol=2e-4)


def test_a_mistake_in_the_recipe_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, str(RECIPE), "--subset", "endo", "--data", str(tmp_path / "none")], capture_output=True, text=True
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert str(tmp_path / "none") in done.stderr


# --- the libraries ---


@pytest.mark.parametrize("state", ["enable", "disable"])
def test_libraries_are_set_aside_and_the_collector_is_as_it_was(state):
    code = f"import gc; gc.{state}(); import medfmc_hf.training; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    came = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert came == [str(state == "enable"), "True"]
