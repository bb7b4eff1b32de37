import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medfmc_hf import training
from medfmc_hf.data.processing import Processing
from medfmc_hf.errors import MedfmcError
from medfmc_hf.loop import Loop, Stopwatch, epoch_order, lr_factor, make_accelerator
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


# --- schedule and order ---


@pytest.mark.parametrize(("schedule", "halfway"), [("constant", 1.0), ("linear", 0.55), ("cosine", 0.55)])
def test_schedules_go_from_the_peak_to_the_final_fraction(schedule, halfway):
    config = replace(SHORT, schedule=schedule, epochs=10, warmup_epochs=0, final_lr_fraction=0.1)
    assert lr_factor(config, 0, 4) == 1
    assert lr_factor(config, 20, 4) == pytest.approx(halfway)
    assert lr_factor(config, 40, 4) == pytest.approx(1.0 if schedule == "constant" else 0.1)


def test_warmup_multiplies_the_schedule():
    config = replace(SHORT, schedule="cosine", epochs=20, warmup_epochs=20, final_lr_fraction=0.01)
    factors = [lr_factor(config, step, 5) for step in range(100)]
    # The official Swin recipe warms up over its whole run: written out from mmcv's two formulas, it never reaches the peak.
    expected = [(0.01 + 0.99 * (1 + math.cos(math.pi * t / 100)) / 2) * (t + 1) / 100 for t in range(100)]
    np.testing.assert_allclose(factors, expected)
    assert max(factors) < 0.3


def test_an_epoch_sees_every_row_once_in_an_order_that_seed_and_epoch_decide():
    targets = np.zeros(50, int)
    orders = {(seed, epoch): epoch_order(targets, "uniform", seed, epoch)[0].tolist() for seed in (0, 1) for epoch in (0, 1)}
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4
    assert epoch_order(targets, "uniform", 1, 1)[0].tolist() == orders[1, 1]


def test_balanced_sampling_shows_the_rare_class_more_often():
    targets = np.array([0] * 90 + [1] * 10)
    drawn = np.concatenate([targets[epoch_order(targets, "balanced", 0, epoch)[0]] for epoch in range(20)])
    assert len(drawn) == 2000 and 0.4 < drawn.mean() < 0.6


# --- the loop ---


class Pictures:
    """Stands for stored pictures: uint8 of shape (n, 3, 4, 4)."""

    def __init__(self, n: int) -> None:
        self.pixels = torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows):
        return self.pixels[rows]

    def batch(self, rows, generator):
        return self.pixels[rows]


class Linear(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.frozen = nn.Linear(48, 8).requires_grad_(False)
        self.head = nn.Linear(8, classes)

    def forward(self, pixel_values):
        return type("Output", (), {"logits": self.head(self.frozen(pixel_values.flatten(1)))})


PROCESS = Processing(height=4, width=4, resize=(4, 4), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def make_loop(config: RunConfig) -> Loop:
    return Loop(config, SUBSETS[config.subset], PROCESS, make_accelerator(config), Stopwatch())


@pytest.mark.parametrize("subset", ["endo", "retino"])
def test_fit_equals_a_plain_loop(subset):
    config = replace(SHORT, subset=subset, epochs=3, batch_size=4, weight_decay=0.1, gradient_clip=0.5, augmentation="none")
    classes, n = len(SUBSETS[subset].classes), 10
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (n, classes)) if subset == "endo" else rng.integers(0, classes, n)
    pictures = Pictures(n)
    torch.manual_seed(0)
    ours, plain = Linear(classes), Linear(classes)
    plain.load_state_dict(ours.state_dict())

    history = make_loop(config).fit(ours, pictures, targets)

    x = (pictures.pixels.float() / 255 - 0.5) / 0.25
    y = torch.as_tensor(targets)
    optimizer = torch.optim.AdamW(plain.head.parameters(), lr=1.0, weight_decay=0.1)
    losses, step = [], 0
    for epoch in range(3):
        total = 0.0
        for rows in epoch_order(targets, "uniform", config.seed, epoch)[0].split(4):
            optimizer.param_groups[0]["lr"] = config.learning_rate * lr_factor(config, step, 3)
            logits = plain(x[rows]).logits
            if subset == "endo":
                loss = nn.functional.binary_cross_entropy_with_logits(logits, y[rows].float())
            else:
                loss = nn.functional.cross_entropy(logits, y[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(plain.head.parameters(), 0.5)
            optimizer.step()
            total += loss.item() * len(rows)
            step += 1
        losses.append(total / n)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    assert [epoch["loss"] for epoch in history] == pytest.approx(losses, rel=1e-5)


def test_the_best_epoch_is_put_back():
    config = replace(SHORT, subset="retino", select="best", epochs=6, learning_rate=0.3, warmup_epochs=0, augmentation="none")
    targets, validation_targets = np.arange(10) % 5, np.arange(15) % 5
    torch.manual_seed(0)
    model, loop, validation = Linear(5), make_loop(config), Pictures(15)
    history = loop.fit(model, Pictures(10), targets, validation, validation_targets)
    scores = [epoch["validation"]["score"] for epoch in history]
    kept = training.score(validation_targets, loop.predict(model, validation), SUBSETS["retino"])
    assert kept["score"] == max(scores)
    assert scores[-1] < max(scores), "the case must be one where the last epoch is not the best"


def test_predictions_come_in_row_order():
    loop, pictures = make_loop(SHORT), Pictures(150)  # more than two evaluation batches
    model = Linear(4)
    x = (pictures.pixels.float() / 255 - 0.5) / 0.25
    np.testing.assert_allclose(loop.predict(model, pictures), model(x).logits.detach().numpy(), atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run():
    config = replace(SHORT, subset="retino", learning_rate=1e30, gradient_clip=0, warmup_epochs=0, optimizer="sgd", epochs=5)
    with pytest.raises(MedfmcError, match="lower the learning rate"):
        make_loop(config).fit(Linear(5), Pictures(10), np.arange(10) % 5)


# --- a whole run ---


def test_a_run_leaves_a_whole_folder_and_is_not_repeated(config, shared, tmp_path):
    folder, record = train(config, shared=shared, out=tmp_path)
    assert {path.name for path in folder.iterdir()} == {"run.json", "predictions.parquet", "adapter"}
    assert RunRecord.load(folder) == record or json.loads((folder / "run.json").read_text())["id"] == record.id
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert "model-index" in (folder / "adapter" / "README.md").read_text()
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
