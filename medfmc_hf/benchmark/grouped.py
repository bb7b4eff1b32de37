"""Trains several runs of one method and backbone in one pass through the network, each with its own data, loss and optimiser.

The runs share the frozen weights, so for these the batches of K runs are one batch, K times as long; the trained weights are stacked, and
`torch.vmap` turns products with them into batched ones. This works for any method. It keeps a GPU busy, which a single few-shot run at a
batch size of 4 does not; on a CPU there is no gain, because one run keeps it busy.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import cast

import torch
from accelerate import Accelerator
from torch import nn
from torch.func import functional_call, vmap
from transformers import PretrainedConfig

from ..adaptation import adapt
from ..runs import RunConfig
from ..training import one_run
from ..training.loop import Loop, Stopwatch, Training, make_accelerator
from ..training.one_run import Trained
from ..training.resolved import ResolvedRun
from ..training.shared import Shared


def can_group(config: RunConfig) -> bool:
    """Whether runs like this one can be grouped: trained by gradient for a fixed number of epochs, without cached frozen blocks.

    `train_group` also checks the network itself.
    """
    gradient = adapt.method_of(config.method).kind == "gradient"
    return gradient and config.select == "last" and not has_frozen_blocks(config)


def has_frozen_blocks(config: RunConfig) -> bool:
    """Whether runs like this one train only the last blocks or the head, and share the frozen blocks before them."""
    return config.method in ("partial", "linear-sgd") or bool(config.method_options.get("blocks"))


def group_key(config: RunConfig) -> tuple:
    """A key of a run; runs with the same key differ only in their rows and seeds."""
    values = config.to_dict()
    return tuple(sorted((name, repr(value)) for name, value in values.items() if name not in ("shots", "seed", "training_seed", "recipe")))


def train_group(runs: Sequence[ResolvedRun], shared: Shared, accelerator: Accelerator) -> list[Trained] | None:
    """Train runs with the same `group_key` together.

    Every run sees the same batches as alone, in the same order, with the same learning rates. Sums are computed in another order, so the
    results are those of a single run up to rounding.

    Args:
        runs: runs that are not trained yet.
        shared: data, images and backbone.
        accelerator: accelerator of a single process.

    Returns:
        The trained state of each run; None if the network is random (dropout), which a group cannot reproduce, or if the method does more
        after a step than update its weights (AdaLoRA).
    """
    watch, members = Stopwatch(), []
    with ExitStack() as stack:
        with watch("start"):
            backbone = stack.enter_context(shared.acquire(runs[0]))
        for run in runs:
            adapt.reset_head(backbone, run.config.seed_of_training)
            with one_run.adapted(backbone, run) as model:
                if _is_random(model) or adapt.acts_after_steps(model):
                    return None
                members.append(_Member(run, model, shared))
        with watch("data"):
            for member in members:
                member.views.precompute()
        with watch("train"), one_run.adapted(backbone, runs[0]) as model:  # a template that runs with the values of each member
            _fit(model, members, Loop(runs[0], accelerator, Stopwatch()))
    cost, seconds = {"grouped": len(runs)}, {stage: seconds / len(runs) for stage, seconds in watch.seconds.items()}
    return [Trained({name: value.detach() for name, value in own.values.items()}, own.training.history, seconds, cost) for own in members]


_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def _is_random(model: nn.Module) -> bool:
    drops = any(isinstance(part, _DROPOUT) and part.p > 0 for part in model.modules())
    paths = any(getattr(part, "drop_prob", 0) for part in model.modules())
    rates = [
        value for name, value in cast(PretrainedConfig, model.config).to_dict().items() if "dropout" in name and "classifier" not in name
    ]
    return drops or paths or any(isinstance(rate, float) and rate > 0 for rate in rates)


class _Member:
    """One run of a group: its own values, batches and optimiser."""

    def __init__(self, run: ResolvedRun, model: nn.Module, shared: Shared) -> None:
        self.run = run
        self.values = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters() if p.requires_grad}
        self.training = Training(run, list(self.values.values()), make_accelerator())
        self.views = shared.training_pixels(run)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The rows and views of every step of the run; request the next one only after the values were updated."""
        for epoch in range(self.run.config.epochs):
            for rows, seeds in self.training.batches(epoch):
                yield rows, self.views.batch(rows, seeds)
            self.training.end_epoch()


def _fit(model: nn.Module, members: Sequence[_Member], loop: Loop) -> None:
    """Take one step of every run at a time, until the longest run ends."""

    def network(values: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        return functional_call(model, values, (), {"pixel_values": images}).logits

    model.train()
    size = loop.run.config.batch_size
    to_come = [(member, member.batches()) for member in members]
    while step := [(member, *batch) for member, batches in to_come if (batch := next(batches, None))]:
        # The last batch of an epoch may be short: it is padded with blank images, which do not enter the loss.
        images = loop.ready(torch.cat([_padded(views, size) for _, _, views in step])).unflatten(0, (len(step), size))
        stacked = {name: torch.stack([member.values[name] for member, _, _ in step]) for name in step[0][0].values}
        with loop.run.autocast():
            logits = vmap(network)(stacked, images)
        losses = [member.training.loss(part[: len(rows)], rows) for (member, rows, _), part in zip(step, logits)]
        torch.stack(losses).sum().backward()
        for (member, rows, _), loss in zip(step, losses):
            member.training.update(loss, len(rows))


def _padded(images: torch.Tensor, size: int) -> torch.Tensor:
    """Pad uint8 (b, C, h, w) to (size, 3, h, w) with blank images."""
    colour = images.expand(-1, 3, -1, -1)
    return torch.cat([colour, colour.new_zeros(size - len(colour), *colour.shape[1:])])
