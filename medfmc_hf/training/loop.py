"""The Accelerate loop of one run: `Loop.fit` trains a model on views of a support set, `Loop.predict` gives logits of stored images."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from .. import scoring
from ..adaptation import adapt
from ..adaptation.merging import merged
from ..errors import MedfmcError
from ..images import processing
from ..progress import bar
from ..runs import RunConfig, probabilities_of
from ..runs.launcher import check_launcher
from ..subsets import Subset
from . import losses


class Stopwatch:
    """Wall seconds by stage of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begin, self._before = time.perf_counter(), 0.0

    def add(self, stage: str, seconds: float) -> None:
        """Count what was done before the watch was started."""
        self._count(stage, seconds)
        self._before += seconds

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._count(stage, time.perf_counter() - begin)

    def _count(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def total(self) -> dict[str, float]:
        return {k: round(v, 3) for k, v in (self.seconds | {"total": self._before + time.perf_counter() - self._begin}).items()}


@dataclass(frozen=True)
class Fitted:
    """What training leaves besides a trained model.

    Attributes:
        history: one dict per epoch: `epoch`, `loss`, `learning_rate`, and `validation` where it was scored.
        validation_logits: of the validation images at the epoch that was put back; None where the config does not select by them.
    """

    history: list[dict]
    validation_logits: np.ndarray | None = None


@dataclass
class Loop:
    """The Accelerate loop of one run: `fit` trains, `predict` scores."""

    config: RunConfig
    subset: Subset
    process: processing.Processing
    accelerator: Accelerator
    watch: Stopwatch

    def autocast(self) -> torch.autocast:
        """The precision of the network; the loss is float32."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def ready(self, batch: torch.Tensor) -> torch.Tensor:
        """A batch as the network takes it: pixels normalised, outputs of frozen blocks as they are."""
        if batch.dtype == torch.uint8:
            return processing.normalise(batch, self.process, device=self.accelerator.device)
        return batch.to(self.accelerator.device, non_blocking=True)

    def fit(self, model, views, targets, validation=None, validation_targets=None) -> "Fitted":
        """Train `model` in place, and put back its best epoch where the config selects by validation.

        Args:
            model: with `.logits` in its output; only parameters that require a gradient are trained.
            views: `TrainingPixels` of the support set, n images.
            targets: integers, (n,) or (n, classes).
            validation: `EvaluationPixels`, or None for fixed epochs.
            validation_targets: their labels.

        Returns:
            The history, and the logits of the validation images.
        """
        config, accelerator = self.config, make_accelerator(self.config)  # of its own: it holds on to all that it ever prepared
        loss_of = losses.LOSSES[config.loss](self.subset.task, targets)
        labels = torch.as_tensor(targets)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = make_optimizer(config, trained)
        wrapped, optimizer = accelerator.prepare(model, optimizer)
        steps = steps_per_epoch(config, len(targets))
        rank, world = accelerator.process_index, accelerator.num_processes
        history, best = [], None
        moving = [*trained, *model.buffers()]  # batch normalisation learns statistics, which are no parameters

        for epoch in bar(range(config.epochs), desc="training", unit="epoch", hidden=not accelerator.is_main_process):
            wrapped.train()
            order, seeds = epoch_order(targets, config.sampling, config.seed_of_training, epoch)
            total = torch.zeros((), device=accelerator.device)
            with self.watch("train"):
                for step, (rows, draws) in enumerate(zip(order.split(config.batch_size), seeds.split(config.batch_size))):
                    rate = config.learning_rate * lr_factor(config, epoch * steps + step, steps)
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    mine = labels[rows[rank::world]]  # so weighted, the mean over processes is the mean over the batch
                    share = loss_of.mass(mine) * world / loss_of.mass(labels[rows]) if world > 1 else 1
                    part = slice(rank, None, world) if len(mine) else slice(1)
                    batch = self.ready(views.batch(rows[part], draws[part]))
                    with self.autocast():
                        logits = wrapped(pixel_values=batch).logits
                    loss = loss_of(logits.float(), labels[rows[part]].to(accelerator.device)) * share
                    accelerator.backward(loss)
                    if config.gradient_clip:
                        accelerator.clip_grad_norm_(trained, config.gradient_clip)
                    optimizer.step()
                    adapt.after_step(getattr(model, "network", model), epoch * steps + step + 1)
                    optimizer.zero_grad()
                    total += loss.detach() * len(rows)
            mean_loss = accelerator.reduce(total, "mean").item() / len(targets)
            if not math.isfinite(mean_loss):
                raise MedfmcError(f"the loss became {mean_loss} in epoch {epoch + 1}; lower the learning rate, {config.learning_rate}.")
            history.append({"epoch": epoch + 1, "loss": mean_loss, "learning_rate": rate})
            if validation is not None:
                with self.watch("validation"):
                    logits = self.predict(wrapped, validation)
                    result = score(validation_targets, logits, self.subset)
                history[-1]["validation"] = {k: result[k] for k in (self.subset.metric, "auc", "score")}
                if best is None or result["score"] > best[0] or math.isnan(best[0]):
                    best = result["score"], [value.detach().clone() for value in moving], logits
        if best is not None:
            with torch.no_grad():
                for place, value in zip(moving, best[1], strict=True):
                    place.copy_(value)
        return Fitted(history, None if best is None else best[2])

    @torch.no_grad()
    def predict(self, model, images, progress: str | None = None) -> np.ndarray:
        """Logits of n stored images: float32, (n, classes), the same in every process."""
        accelerator = self.accelerator
        model.eval().to(accelerator.device)
        rank, world = accelerator.process_index, accelerator.num_processes
        n = len(images)
        mine = torch.arange(math.ceil(n / world)) * world + rank
        mine = mine.clamp(max=n - 1)  # every process predicts equally many; the repeats are cut off below
        parts = []
        with merged(accelerator.unwrap_model(model)), self.autocast():
            batches = mine.split(evaluation_batch(accelerator.device))
            for rows in bar(batches, desc=progress, hidden=not (progress and accelerator.is_main_process)):
                parts.append(model(pixel_values=self.ready(images[rows])).logits.float())
        gathered = accelerator.gather(torch.cat(parts)).reshape(world, len(mine), -1)
        return gathered.transpose(0, 1).reshape(world * len(mine), -1)[:n].cpu().numpy()


def evaluation_batch(device: torch.device) -> int:
    """Images at a time in `Loop.predict`; it changes speed and memory, not results.

    What a larger batch makes on a CPU is too large for its caches and for the allocator to keep: a seventh slower.
    """
    return 8 if device.type == "cpu" else 64


def steps_per_epoch(config: RunConfig, rows: int) -> int:
    """Optimiser steps of an epoch over so many training rows; the last may be on a smaller batch."""
    return math.ceil(rows / config.batch_size)


def lr_factor(config: RunConfig, step: int, steps_per_epoch: int) -> float:
    """Learning rate at an optimiser step, as a fraction of the peak.

    The schedule runs over the whole run and the warm-up ramp multiplies it, as mmcv does; so a warm-up as long as the run, which
    the official Swin recipe has, never reaches the peak.
    """
    done = step / max(config.epochs * steps_per_epoch, 1)
    curve = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[config.schedule]
    if config.schedule != "constant":
        curve = config.final_lr_fraction + (1 - config.final_lr_fraction) * curve
    warmup_steps = config.warmup_epochs * steps_per_epoch
    return curve * (min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0)


def epoch_order(targets: np.ndarray, sampling: str, seed: int, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of one epoch in the order they are seen, and a seed for the view of each: int64, (n,) both.

    `balanced` draws n rows with replacement.
    """
    n, generator = len(targets), torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    if sampling == "balanced":
        order = torch.multinomial(torch.as_tensor(losses.balanced_weights(targets)), n, replacement=True, generator=generator)
    else:
        order = torch.randperm(n, generator=generator)
    return order, torch.randint(2**63 - 1, (n,), generator=generator)


def make_optimizer(config: RunConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum 0.9; on a GPU one kernel for all parameters, for at a batch of 4 it waits for the next launch."""
    options = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": parameters[0].is_cuda}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options)
    return torch.optim.SGD(parameters, **options, momentum=0.9)


def make_accelerator(config: RunConfig) -> Accelerator:
    """An Accelerator for any config: the loop casts and compiles by itself, because one process may run configs of several kinds.

    Raises:
        MedfmcError: `accelerate launch` was told something else than the config.
    """
    check_launcher(config)
    return Accelerator(mixed_precision="no", dynamo_backend="no")


def score(targets: np.ndarray, logits: np.ndarray, subset: Subset) -> dict:
    """`medfm_score` of one split's probabilities, as the record keeps it."""
    return scoring.score(targets, probabilities_of(logits, multilabel=subset.multilabel), task=subset.task, classes=subset.classes)
