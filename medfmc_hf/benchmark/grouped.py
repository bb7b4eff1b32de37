"""Trains several runs of one method and backbone in one pass through the network, each with its own data, loss and optimiser.

The frozen weights are the same for all of them, so a batch of K runs is one batch K times as long for these; what is trained is stacked,
and `torch.vmap` turns a product with it into a batched one. That holds for any method. It fills a GPU, which one few-shot run at a batch
of 4 leaves idle; on a CPU it does not pay, because one run fills that.
"""

import math
import time
from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap

from ..adaptation import adapt
from ..data import loading
from ..errors import MedfmcError
from ..images.pixels import TrainingPixels
from ..runs import RunConfig
from ..subsets import subset_of
from ..training import losses, one_run
from ..training.loop import Loop, Stopwatch, epoch_order, lr_factor, make_optimizer, steps_per_epoch
from ..training.shared import Shared


def can_group(config: RunConfig) -> bool:
    """Whether runs like this one come out the same in a group: trained by gradient for a fixed number of epochs, on one device.

    AdaLoRA changes its ranks on the way, and frozen blocks are shared in another way; dropout is looked for in the network itself.
    """
    gradient = adapt.method_of(config.method).kind == "gradient"
    return gradient and config.select == "last" and config.method != "adalora" and not has_frozen_blocks(config)


def has_frozen_blocks(config: RunConfig) -> bool:
    """Whether runs like this one train the end of the backbone alone, and share what goes before."""
    return config.method in ("partial", "linear-sgd") or bool(config.method_options.get("blocks"))


def group_key(config: RunConfig) -> tuple:
    """Runs with the same key differ in their rows and their seed alone."""
    values = config.to_dict()
    return tuple(sorted((name, repr(value)) for name, value in values.items() if name not in ("shots", "seed", "training_seed", "recipe")))


def train_group(configs: Sequence[RunConfig], shared: Shared, accelerator) -> list[one_run.Trained] | None:
    """Train runs with the same `group_key` together.

    Every run sees the same batches as alone, in the same order, with the same learning rates. Sums are made in another order, so that
    the numbers are those of the run alone up to rounding.

    Args:
        configs: of the runs.
        shared: data, images and backbone.
        accelerator: of one process.

    Returns:
        For each run what `Loop.fit` leaves; None if the network draws random
        numbers of its own (dropout), which a group cannot repeat.
    """
    begin = time.perf_counter()
    with shared.acquire(configs[0]) as acquired:
        runs, model = [], None
        for config in configs:
            rows = shared.splits(config.dataset_config)["train"]
            targets = loading.targets_of(rows, subset_of(config.subset))
            if model is not None:
                adapt.unload(model)
                acquired.adapted = None
            adapt.reset_head(acquired.backbone, config.seed_of_training)
            model = one_run.adapted(acquired, config, len(rows)).to(accelerator.device)
            runs.append(_Run(config, shared, accelerator, model, targets))
        if _is_random(model):
            return None
        for run in runs:
            run.views.precompute()
        _fit(model, runs)
    cost, seconds = {"grouped": len(runs)}, (time.perf_counter() - begin) / len(runs)
    return [one_run.Trained({name: value.detach() for name, value in run.values.items()}, run.history, seconds, cost) for run in runs]


_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def _is_random(model: nn.Module) -> bool:
    drops = any(isinstance(part, _DROPOUT) and part.p > 0 for part in model.modules())
    paths = any(getattr(part, "drop_prob", 0) for part in model.modules())
    rates = [value for name, value in model.config.to_dict().items() if "dropout" in name and "classifier" not in name]
    return drops or paths or any(isinstance(rate, float) and rate > 0 for rate in rates)


class _Run:
    """One run of a group: what `Loop.fit` keeps in its variables."""

    def __init__(self, config: RunConfig, shared: Shared, accelerator, model: nn.Module, targets) -> None:
        self.config, self.targets = config, targets
        self.loop = Loop(config, subset_of(config.subset), shared.processing(config), accelerator, Stopwatch())
        self.values = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = make_optimizer(config, list(self.values.values()))
        self.loss_of = losses.LOSSES[config.loss](self.loop.subset.task, targets)
        self.labels = torch.as_tensor(targets).to(accelerator.device)
        self.views = TrainingPixels(
            shared.splits(config.dataset_config)["train"],
            self.loop.process,
            augmentation=config.augmentation,
            store=shared.images,
            device=accelerator.device,
        )
        self.steps = steps_per_epoch(config, len(targets))
        self.history: list[dict] = []
        self._total = torch.zeros((), device=accelerator.device)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The rows and uint8 images of a step of the whole run; None when the run is over."""
        epoch, place = divmod(step, self.steps)
        if epoch >= self.config.epochs:
            return None
        if place == 0:
            drawn = epoch_order(self.targets, self.config.sampling, self.config.seed_of_training, epoch)
            self._batches = list(zip(*(part.split(self.config.batch_size) for part in drawn)))
            self._total.zero_()
        self.rate = self.config.learning_rate * lr_factor(self.config, step, self.steps)
        rows, seeds = self._batches[place]
        return rows, self.views.batch(rows, seeds)

    def step(self, step: int, rows: torch.Tensor, loss: torch.Tensor) -> None:
        """Move this run's own values, after its gradients were made."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        if self.config.gradient_clip:
            nn.utils.clip_grad_norm_(self.values.values(), self.config.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._total += loss.detach() * len(rows)
        epoch, place = divmod(step, self.steps)
        if place == self.steps - 1:
            mean = self._total.item() / len(self.targets)
            if not math.isfinite(mean):
                rate = self.config.learning_rate
                raise MedfmcError(f"the loss became {mean} in epoch {epoch + 1}; lower the learning rate, {rate}.")
            self.history.append({"epoch": epoch + 1, "loss": mean, "learning_rate": self.rate})


def _fit(model: nn.Module, runs: list[_Run]) -> None:
    model.train()
    size, loop = runs[0].config.batch_size, runs[0].loop

    def network(values: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        return functional_call(model, values, (), {"pixel_values": images}).logits

    step = 0
    while True:
        drawn = [(run, batch) for run in runs if (batch := run.batch(step)) is not None]
        if not drawn:
            break
        # A last batch of an epoch may be short: it is filled with blanks, whose logits no loss reads.
        images = loop.ready(torch.cat([_filled(x, size) for _, (_, x) in drawn])).unflatten(0, (len(drawn), size))
        stacked = {name: torch.stack([run.values[name] for run, _ in drawn]) for name in drawn[0][0].values}
        with loop.autocast():
            logits = vmap(network)(stacked, images)
        own = [run.loss_of(part[: len(rows)].float(), run.labels[rows]) for (run, (rows, _)), part in zip(drawn, logits)]
        torch.stack(own).sum().backward()
        for (run, (rows, _)), loss in zip(drawn, own):
            run.step(step, rows, loss)
        step += 1


def _filled(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (b, C, h, w) as (size, 3, h, w), with blanks at the end."""
    colour = images.expand(-1, 3, -1, -1)
    return torch.cat([colour, colour.new_zeros(size - len(colour), *colour.shape[1:])])
