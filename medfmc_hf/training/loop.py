"""The Accelerate loop of one run: `Loop.fit` trains a model on views of a support set, `Loop.predict` gives logits of stored images."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from .. import scoring
from ..adaptation import adapt
from ..adaptation.merging import merged
from ..errors import MedfmcError
from ..images.processing import normalise
from ..images.views import Rows
from ..progress import bar
from ..runs import RunConfig, probabilities_of
from ..subsets import Subset
from . import losses
from .resolved import ResolvedRun


class Views(Protocol):
    """Views of a support set, such as `TrainingPixels`; `precompute` does now what the first epoch would otherwise wait for."""

    def precompute(self) -> None: ...

    def batch(self, indices: Rows, seeds: Rows) -> torch.Tensor: ...


class Images(Protocol):
    """Images in row order, such as `EvaluationPixels`."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Any) -> torch.Tensor: ...


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

    history: list[dict[str, Any]]
    validation_logits: np.ndarray | None = None


class Training:
    """The optimisation of one run: the order of its images, its loss, its learning rate and its history.

    Args:
        run: the run.
        parameters: what is trained.
        accelerator: of its own, for it holds on to all that it ever prepared.
        after_step: called after each step, while the gradients are there, with its number from 1.
    """

    def __init__(
        self,
        run: ResolvedRun,
        parameters: Sequence[torch.Tensor],
        accelerator: Accelerator,
        after_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        config, targets = run.config, run.train.targets
        self.config, self.targets, self.parameters, self.accelerator = config, targets, list(parameters), accelerator
        self.labels = torch.as_tensor(targets)
        self.loss_of = losses.LOSSES[config.loss](run.subset.task, targets)
        optimizer = make_optimizer(config, self.parameters)
        self.schedule = LambdaLR(optimizer, lambda step: lr_factor(config, step, run.steps_per_epoch))
        self.optimizer = accelerator.prepare(optimizer)
        self.after_step, self.steps_done = after_step, 0
        self.history: list[dict[str, Any]] = []
        self._total = torch.zeros((), device=accelerator.device)
        self._rate = 0.0

    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """For each step of an epoch, counted from 0, the rows of its batch and the seeds of their views: int64, (B,) both."""
        order, seeds = epoch_order(self.targets, self.config.sampling, self.config.seed_of_training, epoch)
        return zip(order.split(self.config.batch_size), seeds.split(self.config.batch_size))

    def loss(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The loss of the logits, (B, classes), of some rows."""
        return self.loss_of(logits.float(), self.labels[rows].to(logits.device))

    def update(self, loss: torch.Tensor, rows: int) -> None:
        """One optimiser step by the gradients that are there, which are those of the loss of a batch of so many rows."""
        if self.config.gradient_clip:
            self.accelerator.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        self.optimizer.step()
        self.steps_done += 1
        self.after_step(self.steps_done)
        self.optimizer.zero_grad()
        self._rate = float(self.schedule.get_last_lr()[0])
        self.schedule.step()
        self._total += loss.detach() * rows

    def end_epoch(self) -> None:
        """Write the history of an epoch.

        Raises:
            MedfmcError: the loss is not finite.
        """
        loss = self.accelerator.reduce(self._total, "mean").item() / len(self.targets)
        self._total.zero_()
        if not math.isfinite(loss):
            raise MedfmcError(
                f"the loss became {loss} in epoch {len(self.history) + 1}; lower the learning rate, {self.config.learning_rate}."
            )
        self.history.append({"epoch": len(self.history) + 1, "loss": loss, "learning_rate": self._rate})


@dataclass
class Loop:
    """The Accelerate loop of one run: `fit` trains, `predict` scores."""

    run: ResolvedRun
    accelerator: Accelerator
    watch: Stopwatch

    def ready(self, batch: torch.Tensor) -> torch.Tensor:
        """A batch as the network takes it: pixels normalised, outputs of frozen blocks as they are."""
        if batch.dtype == torch.uint8:
            return normalise(batch, self.run.processing, device=self.accelerator.device)
        return batch.to(self.accelerator.device, non_blocking=True)

    def fit(self, model: nn.Module, views: Views, validation: Images | None = None) -> Fitted:
        """Train `model` in place, and put back its best epoch where the config selects by validation.

        Args:
            model: with `.logits` in its output; only parameters that require a gradient are trained.
            views: of the n images of the support set.
            validation: images of the validation split, or None for fixed epochs.
        """
        run, config, accelerator = self.run, self.run.config, make_accelerator()
        trained = [p for p in model.parameters() if p.requires_grad]
        after_step = partial(adapt.after_step, getattr(model, "network", model))
        training = Training(run, trained, accelerator, after_step)
        wrapped = accelerator.prepare(model)
        rank, world = accelerator.process_index, accelerator.num_processes
        best = None
        moving = [*trained, *model.buffers()]  # batch normalisation learns statistics, which are no parameters

        for epoch in bar(range(config.epochs), desc="training", unit="epoch", hidden=not accelerator.is_main_process):
            wrapped.train()
            with self.watch("train"):
                for rows, seeds in training.batches(epoch):
                    part = slice(rank, None, world) if len(rows) > rank else slice(1)  # every process goes through the network
                    batch = self.ready(views.batch(rows[part], seeds[part]))
                    with run.autocast():
                        logits = wrapped(pixel_values=batch).logits
                    loss = training.loss(logits, rows[part])
                    if world > 1:  # so weighted, the mean over processes is the mean over the batch
                        mass = training.loss_of.mass
                        loss = loss * (mass(training.labels[rows[rank::world]]) * world / mass(training.labels[rows]))
                    accelerator.backward(loss)
                    training.update(loss, len(rows))
            training.end_epoch()
            if validation is not None:
                with self.watch("validation"):
                    logits = self.predict(wrapped, validation)
                    result = score(run.scored["validation"].targets, logits, run.subset)
                training.history[-1]["validation"] = {k: result[k] for k in (run.subset.metric, "auc", "score")}
                if best is None or result["score"] > best[0] or math.isnan(best[0]):
                    best = result["score"], [value.detach().clone() for value in moving], logits
        if best is None:
            return Fitted(training.history)
        with torch.no_grad():
            for place, value in zip(moving, best[1], strict=True):
                place.copy_(value)
        return Fitted(training.history, best[2])

    @torch.no_grad()
    def predict(self, model: nn.Module, images: Images, progress: str | None = None) -> np.ndarray:
        """Logits of n stored images: float32, (n, classes), the same in every process."""
        accelerator = self.accelerator
        model.eval().to(accelerator.device)
        rank, world = accelerator.process_index, accelerator.num_processes
        n = len(images)
        mine = torch.arange(math.ceil(n / world)) * world + rank
        mine = mine.clamp(max=n - 1)  # every process predicts equally many; the repeats are cut off below
        parts = []
        with merged(accelerator.unwrap_model(model)), self.run.autocast():
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


def make_optimizer(config: RunConfig, parameters: Sequence[torch.Tensor]) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum 0.9; on a GPU one kernel for all parameters, for at a batch of 4 it waits for the next launch."""
    rate, decay, fused = config.learning_rate, config.weight_decay, parameters[0].is_cuda
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=fused)
    return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, fused=fused, momentum=0.9)


def make_accelerator() -> Accelerator:
    """An Accelerator for any config: the loop casts and compiles by itself, because one process may run configs of several kinds."""
    return Accelerator(mixed_precision="no", dynamo_backend="no")


def score(targets: np.ndarray, logits: np.ndarray, subset: Subset) -> dict[str, Any]:
    """`medfm_score` of one split's probabilities, as the record keeps it."""
    return scoring.score(targets, probabilities_of(logits, multilabel=subset.multilabel), task=subset.task, classes=subset.classes)
