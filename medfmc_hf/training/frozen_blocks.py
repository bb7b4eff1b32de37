"""Splits a network in two: the frozen blocks at its front, which a method leaves as they are, and the rest, which it trains.

A method that adapts the last k of L blocks leaves L - k blocks frozen; one that trains the head alone, all of them. What
these make of an image is the same in every run, so it is computed once and cached (`cached_features.py`), and training on fixed views and
testing go through the rest alone.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft import PeftModel
from torch import nn

from ..images.pixels import TrainingPixels
from ..images.processing import Processing
from ..images.views import Rows
from ..models.backbones import origin
from ..models.structure import Structure, structure_of
from .cached_features import CachedRows, IdentifiedImages
from .loop import Images
from .resolved import ResolvedRun

if TYPE_CHECKING:
    from .shared import Shared


def split(model: nn.Module, process: Processing) -> nn.Module:
    """`model` as a `SplitNetwork`, or `model` itself where no block at its front is frozen.

    Args:
        model: what `medfmc_hf.adaptation.adapt.adapt` returned.
        process: gives the size of the images.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    structure = structure_of(base)
    length = frozen_length(base, structure)
    if length == 0:
        return model
    network = SplitNetwork(model, base, structure, length, (process.height, process.width))
    return network if network.is_exact() else model


def frozen_length(base: nn.Module, structure: Structure) -> int:
    """How many blocks at the front of a network are left as they are; one more than there are blocks if only the head is trained.

    Zero where they cannot be split off: the blocks do not hand one sequence of tokens on, or the embeddings are trained.
    """
    names = [name for name, _ in base.named_parameters()]
    changed = [name for name, p in base.named_parameters() if p.requires_grad]
    changed = [name for name in changed if not name.startswith(tuple(f"{head}." for head in structure.heads))]
    if not changed and len(structure.heads) == 1:
        return len(structure.blocks) + 1
    if structure.family != "tokens":
        return 0
    first = next(place for place, name in enumerate(names) if name.startswith(f"{structure.blocks[0]}."))
    if set(changed) & set(names[:first]):  # parameters are named in the order of the network
        return 0
    untouched = [not any(name.startswith(f"{block}.") for name in changed) for block in structure.blocks]
    return untouched.index(False) if False in untouched else len(untouched)


class _Reached(Exception):
    """Carries what was made so far out of a forward pass that need not go on."""


class SplitNetwork(nn.Module):
    """A network that takes images, or what its frozen blocks make of them.

    `forward(pixel_values)` gives the network's output for float32 (B, 3, H, W). For the result of `frozen` of these images, which has
    fewer dimensions, it gives the same logits.

    Attributes:
        network: the adapted model.
        length: how many blocks are frozen; one more than there are if all but the head is.
    """

    def __init__(self, network: nn.Module, base: nn.Module, structure: Structure, length: int, side: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.length = network, length
        self._head = base.get_submodule(structure.heads[0]) if length > len(structure.blocks) else None
        self._blocks = tuple(base.get_submodule(name) for name in structure.blocks[:length])  # in a tuple: not children of their own
        self._image = (1, 3, *side)
        self._in_tuple = False
        self.training = network.training

    @torch.no_grad()
    def frozen(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the frozen blocks make of images, without dropout: (B, tokens, dim), or (B, dim) where only the head is left."""

        def after_block(module: nn.Module, args: Any, output: Any) -> None:
            self._in_tuple = isinstance(output, tuple)
            raise _Reached(output[0] if self._in_tuple else output)

        def before_head(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            raise _Reached(args[0].flatten(1))

        if self._head is not None:
            hook = self._head.register_forward_pre_hook(before_head)
        else:
            hook = self._blocks[-1].register_forward_hook(after_block)
        training = self.network.training
        self.network.eval()
        try:
            self.network(pixel_values=pixel_values)
        except _Reached as reached:
            return reached.args[0]
        finally:
            hook.remove()
            self.network.train(training)
        raise RuntimeError("the network did not go through its frozen blocks")

    def forward(self, pixel_values: torch.Tensor) -> Any:
        if pixel_values.ndim == 4:
            return self.network(pixel_values=pixel_values)
        if self._head is not None:
            return SimpleNamespace(logits=self._head(pixel_values))
        with self._skipping(pixel_values):
            # What else the blocks are given (positions, masks) depends on the size of the images alone, so one blank image will do.
            return self.network(pixel_values=torch.zeros(self._image, device=pixel_values.device))

    @contextmanager
    def _skipping(self, hidden: torch.Tensor) -> Iterator[None]:
        """Let the last frozen block return `hidden`, and the others what they are given."""

        def last(*args: Any, **kwargs: Any) -> Any:
            return (hidden,) if self._in_tuple else hidden

        def earlier(*args: Any, **kwargs: Any) -> Any:
            given = args[0] if args else kwargs["hidden_states"]
            return (given,) if self._in_tuple else given

        for block in self._blocks:
            block.forward = last if block is self._blocks[-1] else earlier
        try:
            yield
        finally:
            for block in self._blocks:
                del block.forward

    @torch.no_grad()
    def is_exact(self) -> bool:
        """Whether the two parts make the whole, tried on a random image: the way through a network is its author's, not ours."""
        device = next(self.parameters()).device
        image = torch.rand(self._image, generator=torch.Generator().manual_seed(0)).to(device)
        training = self.training
        self.eval()
        try:
            whole, parts = self(image).logits, self(self.frozen(image)).logits
        except (TypeError, ValueError, RuntimeError, KeyError, AttributeError):
            return False
        finally:
            self.train(training)
        return whole.shape == parts.shape and torch.allclose(whole, parts, rtol=1e-4, atol=1e-5)


def cache_outputs(
    model: nn.Module, run: ResolvedRun, shared: "Shared", images: Mapping[str, IdentifiedImages], views: TrainingPixels
) -> tuple[nn.Module, dict[str, Images], "TrainingPixels | CachedViews"]:
    """Put the outputs of frozen blocks in the place of images, wherever they can be computed once.

    Args:
        model: the adapted model of the run.
        run: the run.
        shared: holds the cache.
        images: of every scored split.
        views: of the support set.

    Returns:
        The network that takes the outputs (the model itself where no block at its front is frozen), and what stands for `images` and for
        `views`: outputs of the frozen blocks; of the views only where these are fixed.
    """
    network = split(model, run.processing)
    if not isinstance(network, SplitNetwork):
        return model, dict(images), views
    parts: dict[str, IdentifiedImages] = dict(images)
    if run.config.augmentation == "fixed-views":
        parts["train"] = _FixedViews(views)
    elif run.config.augmentation == "none":
        parts["train"] = shared.evaluation_pixels(run.train, run.processing)
    rows = shared.cache_rows(f"frozen{network.length}", network.frozen, list(parts.values()), run, origin(model).pool)
    cached = dict(zip(parts, rows))
    return network, {name: cached[name] for name in images}, CachedViews(cached["train"], views.views) if "train" in cached else views


class _FixedViews:
    """The fixed views of some rows as images of their own: view v of row r is image r * views + v."""

    def __init__(self, views: TrainingPixels) -> None:
        self._views, self._count = views, views.views
        self.identities = [
            hashlib.sha256(name + f"view {number} of {self._count}".encode()).digest()[:16]
            for name in views.identities
            for number in range(self._count)
        ]

    def __len__(self) -> int:
        return len(self.identities)

    def __getitem__(self, rows: Sequence[int]) -> torch.Tensor:
        return torch.stack([self._views.view(*divmod(row, self._count)) for row in rows])


class CachedViews:
    """Stands for `TrainingPixels` with fixed views, and makes the same draws."""

    def __init__(self, cached: CachedRows, views: int) -> None:
        self._cached, self._views = cached, views

    def precompute(self) -> None:
        """Nothing is left to compute."""

    def batch(self, indices: Rows, seeds: Rows) -> torch.Tensor:
        """The outputs of the frozen blocks for one of the views of each row."""
        rows = np.asarray(indices, np.int64) * self._views
        if self._views > 1:
            generators = [torch.Generator().manual_seed(seed) for seed in np.asarray(seeds, np.int64).tolist()]
            rows = rows + np.array([int(torch.randint(self._views, (1,), generator=generator)) for generator in generators])
        return self._cached[rows]
