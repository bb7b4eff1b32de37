import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.processing import Processing
from medfmc_hf.runs import RunConfig
from medfmc_hf.subsets import SUBSETS
from medfmc_hf.training.loop import Loop, Stopwatch, epoch_order, lr_factor, make_accelerator, score
from medfmc_hf.training.resolved import ResolvedRun, Split

SHORT = RunConfig(subset="endo", shots=1, method="lora", epochs=2, batch_size=8, learning_rate=5e-3)


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
    sampled = np.concatenate([targets[epoch_order(targets, "balanced", 0, epoch)[0]] for epoch in range(20)])
    assert len(sampled) == 2000 and 0.4 < sampled.mean() < 0.6


# --- the loop ---


class Images:
    """Stands for stored images: uint8 of shape (n, 3, 4, 4)."""

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


def make_loop(config: RunConfig, targets=(), validation_targets=()) -> Loop:
    accelerator, name = make_accelerator(), config.dataset_config
    train, validation = (
        Split(name, split, None, np.asarray(rows)) for split, rows in (("train", targets), ("validation", validation_targets))
    )
    run = ResolvedRun(
        config=config,
        changed={},
        id="",
        fingerprint="",
        subset=SUBSETS[config.subset],
        data={},
        checkpoint=None,
        processing=PROCESS,
        train=train,
        scored={"validation": validation},
        device=accelerator.device,
    )
    return Loop(run, accelerator, Stopwatch())


@pytest.mark.parametrize("subset", ["endo", "retino"])
def test_fit_equals_a_plain_loop(subset):
    config = replace(SHORT, subset=subset, epochs=3, batch_size=4, weight_decay=0.1, gradient_clip=0.5, augmentation="none")
    classes, n = len(SUBSETS[subset].classes), 10
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (n, classes)) if subset == "endo" else rng.integers(0, classes, n)
    images = Images(n)
    torch.manual_seed(0)
    ours, plain = Linear(classes), Linear(classes)
    plain.load_state_dict(ours.state_dict())

    history = make_loop(config, targets).fit(ours, images).history

    x = (images.pixels.float() / 255 - 0.5) / 0.25
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
    model, loop, validation = Linear(5), make_loop(config, targets, validation_targets), Images(15)
    history = loop.fit(model, Images(10), validation).history
    scores = [epoch["validation"]["score"] for epoch in history]
    kept = score(validation_targets, loop.predict(model, validation), SUBSETS["retino"])
    assert kept["score"] == max(scores)
    assert scores[-1] < max(scores), "the case must be one where the last epoch is not the best"


def test_predictions_come_in_row_order():
    loop, images = make_loop(SHORT), Images(150)  # more than two evaluation batches
    model = Linear(4)
    x = (images.pixels.float() / 255 - 0.5) / 0.25
    np.testing.assert_allclose(loop.predict(model, images), model(x).logits.detach().numpy(), atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run():
    config = replace(SHORT, subset="retino", learning_rate=1e6, gradient_clip=0, warmup_epochs=0, optimizer="sgd", epochs=20)
    with pytest.raises(MedfmcError, match="lower the learning rate"):
        make_loop(config, np.arange(10) % 5).fit(Linear(5), Images(10))
