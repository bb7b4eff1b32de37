import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import transformers
from patience import PATIENCE

from medfmc_hf.errors import MedfmcError
from medfmc_hf.predict import load_adapted
from medfmc_hf.runs import RunConfig, RunRecord, load_predictions
from medfmc_hf.runs.flags import parse_options
from medfmc_hf.runs.folders import run_folder
from medfmc_hf.subsets import SUBSETS, ConfigName
from medfmc_hf.training import one_run
from medfmc_hf.training.one_run import train
from medfmc_hf.training.shared import Shared

RECIPE = Path(__file__).parents[2] / "recipes" / "peft_train.py"
SHORT = RunConfig(subset="endo", shots=1, method="lora", epochs=2, batch_size=8, learning_rate=5e-3)


@pytest.fixture(scope="module")
def shared(sample_build, tmp_path_factory):
    return one_run.Shared(sample_build, cache=tmp_path_factory.mktemp("pixels"))


@pytest.fixture(scope="module")
def config(tiny_backbone):
    return replace(SHORT, model=str(tiny_backbone))


# --- a whole run ---


def test_a_run_leaves_a_whole_folder_and_is_not_repeated(config, shared, tmp_path):
    folder, record = train(config, shared=shared, out=tmp_path)
    assert {path.name for path in folder.iterdir()} == {"run.json", "predictions.parquet", "adapter"}
    assert RunRecord.load(folder) == record and record.run_config == config and record.schema == 2
    assert (record.config["recipe"], record.changed) == ("lora", {"epochs": 2, "batch_size": 8, "learning_rate": 5e-3})
    assert len(record.data["images_sha256"]) == len(record.data["test_sha256"]) == 64 and record.backbone["pool"] == "stock"
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    card = (folder / "adapter" / "README.md").read_text()
    assert "**On images that are invented" in card and "model-index" not in card and record.data["invented"]
    rows = load_predictions(folder)
    assert rows.logits.shape == (record.data["rows"]["test"], 4)
    assert one_run.score(rows.targets, rows.logits, SUBSETS["endo"])["map"] == record.scores["test"]["map"]
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
    """Five shots of the invented images must beat chance; its classes are easy to tell apart."""
    one = RunConfig(subset, model=config.model, method=method, epochs=10, batch_size=8, learning_rate=5e-3, augmentation="none")
    _, record = train(one, shared=shared, out=tmp_path)
    assert record.scores["test"]["auc"] > 0.58


def test_validation_selection_is_recorded(config, shared, tmp_path):
    _, record = train(replace(config, select="best"), shared=shared, out=tmp_path)
    assert record.config["select"] == "best"
    assert {"map", "auc", "score"} <= set(record.history[0]["validation"])
    assert "validation" in record.scores


def test_challenge_images_are_predicted_on_request(config, shared, tmp_path):
    folder, _ = train(RunConfig("endo", shots=1, model=config.model, method="linear", predict_challenge=True), shared=shared, out=tmp_path)
    challenge = shared.splits(ConfigName("endo", variant="challenge"))["validation"]
    assert load_predictions(folder, "challenge-validation").image_ids.tolist() == challenge["image_id"][:]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "magic"}, "another method"),
        ({"method_options": {"rank": 3}}, "r, "),
        ({"loss": "hinge"}, "auto"),
        ({"dtype": "auto"}, "bfloat16"),
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
    return subprocess.run([sys.executable, *launch, str(RECIPE), *argv], capture_output=True, text=True, env=environment, timeout=PATIENCE)


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


# --- what must not be lost, or be other than recorded ---


@pytest.mark.parametrize("option", ["'[a-z.0-9]*q_proj'", "'.*(q|v)_proj'"])
def test_a_pattern_of_module_names_trains_and_is_in_the_card(config, shared, tmp_path, option):
    options = parse_options([f"target_modules={option}"])
    folder, record = train(replace(config, method_options=options), shared=shared, out=tmp_path)
    assert record.status == "finished" and RunRecord.load(folder).config["method_options"]["target_modules"] == option.strip("'")
    line = next(line for line in (folder / "adapter" / "README.md").read_text().splitlines() if line.startswith("accelerate launch"))
    words = shlex.split(line)
    given = [words[place + 1] for place, word in enumerate(words) if word == "--option"]
    assert parse_options(given)["target_modules"] == options["target_modules"], "the command of the card repeats the run"


def test_a_card_that_fails_costs_the_card_alone(config, shared, tmp_path, monkeypatch, capsys):
    def broken(*args):
        raise KeyError("on purpose")

    monkeypatch.setattr(one_run.model_card, "write_card", broken)
    folder, record = train(config, shared=shared, out=tmp_path)
    assert record.status == "finished" and "medfmc" not in (folder / "adapter" / "README.md").read_text()  # that of PEFT
    assert "its model card could not be written (KeyError" in capsys.readouterr().err
    assert train(config, shared=shared, out=tmp_path)[0] == folder


def test_the_best_epoch_is_put_back_with_the_statistics_of_batch_normalisation(sample_build, tmp_path):
    """The saved model gives the predictions that were recorded."""
    torch.manual_seed(0)
    backbone = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=4)
    transformers.ResNetForImageClassification(backbone).save_pretrained(tmp_path / "resnet")
    values = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "resnet" / "preprocessor_config.json").write_text(json.dumps(values))
    config = RunConfig(subset="endo", shots=1, method="full", select="best", epochs=6, learning_rate=0.05, model=str(tmp_path / "resnet"))
    shared = Shared(sample_build, cache=tmp_path / "cache")
    folder, record = train(config, shared=shared, out=tmp_path / "runs")
    best = max(epoch["validation"]["score"] for epoch in record.history)
    assert record.history[-1]["validation"]["score"] < best == pytest.approx(record.scores["validation"]["score"], abs=1e-9)
    adapted = load_adapted(folder)
    rows = shared.splits(config.dataset_config)
    for split in ("validation", "test"):
        found = adapted.probabilities([row["image"]["path"] for row in rows[split].cast_column("image", datasets.Image(decode=False))])
        np.testing.assert_allclose(found, load_predictions(folder, split).probabilities, atol=1e-5)


def test_two_processes_weigh_classes_as_one_does(config, sample_build, tmp_path):
    flags = ["--subset", "retino", "--shots", "1", "--model", config.model, "--epochs", "2", "--batch-size", "7", "--augmentation", "none"]
    flags += ["--data", str(sample_build), "--method", "lora", "--option", "lora_dropout=0.0", "--loss", "weighted", "--quiet"]
    flags += ["--sampling", "balanced"]  # so that the halves of a batch weigh differently
    logits, losses = [], []
    for processes in (1, 2):
        done = recipe(*flags, "--out", str(tmp_path / str(processes)), processes=processes)
        assert done.returncode == 0, done.stderr
        (found,) = (tmp_path / str(processes)).rglob("run.json")
        logits.append(load_predictions(found.parent).logits)
        losses.append([epoch["loss"] for epoch in json.loads(found.read_text())["history"]])
    np.testing.assert_allclose(logits[0], logits[1], atol=2e-4)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_adalora_moves_its_ranks_as_it_trains(config, shared, tmp_path):
    """It reads the gradients of each step, and writes the ranks it came to into its own config."""
    options = {"init_r": 4, "target_r": 1, "tinit": 1, "tfinal": 1, "deltaT": 1}
    run = RunConfig("endo", shots=1, model=config.model, method="adalora", method_options=options, epochs=3)
    folder, _ = train(run, shared=shared, out=tmp_path)
    ranks = json.loads((folder / "adapter" / "adapter_config.json").read_text())["rank_pattern"]
    left = [sum(pattern) for pattern in ranks.values()]
    assert left and sum(left) < 4 * len(left)


def test_leftovers_of_a_kill_are_removed(config, shared, tmp_path):
    run = shared.resolve(replace(config, method_options={"r": 3}))
    folder = run_folder(tmp_path, run.config, run.id)
    (folder / "adapter").mkdir(parents=True)
    for name in ("adapter/half.safetensors", ".predictions.parquet.x1.part", "predictions.parquet"):
        (folder / name).write_text("half")
    train(run.config, shared=shared, out=tmp_path)
    assert {path.name for path in folder.iterdir()} == {"run.json", "predictions.parquet", "adapter"}
    assert not (folder / "adapter" / "half.safetensors").exists()


def test_a_processor_whose_images_the_model_does_not_take_is_named_with_the_way_out(sample_build, tmp_path):
    import json

    from medfmc_hf.quickstart import make_backbone

    backbone = make_backbone(tmp_path / "backbone")
    path = backbone / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": {"height": 48, "width": 48}}))
    config = RunConfig("retino", shots=1, method="linear", model=str(backbone))
    with pytest.raises(MedfmcError, match=r"makes images of 48 x 48 pixels, and the model takes 64 x 64 .*--image-size 64"):
        train(config, data=sample_build, out=tmp_path / "runs")
    train(replace(config, image_size=64), data=sample_build, out=tmp_path / "runs")


def test_a_file_that_was_replaced_after_the_build_is_not_trained_on(tiny_backbone, tmp_path):
    from medfmc_hf.data.build import build
    from medfmc_hf.data.sample import make_sample

    make_sample(tmp_path / "download")
    build([tmp_path / "download"], tmp_path / "medfmc", subsets=["retino"])
    config = RunConfig("retino", shots=1, method="linear", model=str(tiny_backbone))
    _, before = train(config, data=tmp_path / "medfmc", out=tmp_path / "runs")
    one, other = sorted((tmp_path / "download" / "Retino").rglob("*.png"))[:2]
    one.write_bytes(other.read_bytes())
    with pytest.raises(MedfmcError, match=r"not the one that the data set was built from.*medfmc build"):
        train(config, shared=one_run.Shared(tmp_path / "medfmc", cache=tmp_path / "cache"), out=tmp_path / "other runs")
    build([tmp_path / "download"], tmp_path / "medfmc", subsets=["retino"])
    _, after = train(config, data=tmp_path / "medfmc", out=tmp_path / "runs")
    assert after.id != before.id and after.data["images_sha256"] != before.data["images_sha256"]
