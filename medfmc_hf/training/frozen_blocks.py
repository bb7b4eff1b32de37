"""Cuts a network in two: the trunk, which a method leaves as it is, and the rest, which it trains.

A method that adapts the last k of L blocks has a trunk of L - k blocks; one that trains the head alone has all but the head. What the
trunk makes of a picture is the same in every run, so it is computed once and kept (`kept.py`), and training on fixed views and
testing go through the rest alone.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch
from peft import PeftModel
from torch import nn

from ..images.pixels import EvaluationPixels, TrainingPixels
from ..images.processing import Processing
from ..models.structure import Anatomy, anatomy_of
from ..runs import RunConfig
from .cached_features import Kept

if TYPE_CHECKING:
    from .shared import Shared


def cut(model: nn.Module, process: Processing) -> nn.Module:
    """`model` as a `CutNetwork`, or `model` itself where it has no trunk.

    Args:
        model: what `medfmc_hf.adaptation.adapt.adapt` returned.
        process: gives the size of the pictures.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    anatomy = anatomy_of(base)
    length = trunk_length(base, anatomy)
    if length == 0:
        return model
    network = CutNetwork(model, base, anatomy, length, (process.height, process.width))
    return network if network.is_exact() else model


def trunk_length(base: nn.Module, anatomy: Anatomy) -> int:
    """How many blocks at the front of a network are left as they are; one more than there are blocks if only the head is trained.

    Zero where no trunk can be cut off: the blocks do not hand one sequence of tokens on, or the embeddings are trained.
    """
    names = [name for name, _ in base.named_parameters()]
    changed = [name for name, p in base.named_parameters() if p.requires_grad]
    changed = [name for name in changed if not name.startswith(tuple(f"{head}." for head in anatomy.heads))]
    if not changed and len(anatomy.heads) == 1:
        return len(anatomy.blocks) + 1
    if anatomy.family != "tokens":
        return 0
    first = next(place for place, name in enumerate(names) if name.startswith(f"{anatomy.blocks[0]}."))
    if set(changed) & set(names[:first]):  # parameters are named in the order of the network
        return 0
    untouched = [not any(name.startswith(f"{block}.") for name in changed) for block in anatomy.blocks]
    return untouched.index(False) if False in untouched else len(untouched)


class _Reached(Exception):
    """Carries what was made so far out of a forward pass that need not go on."""


class CutNetwork(nn.Module):
    """A network that takes pictures, or what its trunk makes of them.

    `forward(pixel_values)` gives the network's output for float32 (B, 3, H, W). For the result of `trunk` of these pictures, which has
    fewer dimensions, it gives the same logits.

    Attributes:
        network: the adapted model.
        length: blocks of the trunk; one more than there are blocks if the trunk is all but the head.
    """

    def __init__(self, network: nn.Module, base: nn.Module, anatomy: Anatomy, length: int, side: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.length = network, length
        self._head = base.get_submodule(anatomy.heads[0]) if length > len(anatomy.blocks) else None
        self.__dict__["_blocks"] = [base.get_submodule(name) for name in anatomy.blocks[:length]]  # not children of their own
        self._picture = (1, 3, *side)
        self._in_tuple = False
        self.training = network.training

    @torch.no_grad()
    def trunk(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the trunk makes of pictures, without dropout: (B, tokens, dim), or (B, dim) where only the head is left."""

        def after_block(module, args, output):
            self._in_tuple = isinstance(output, tuple)
            raise _Reached(output[0] if self._in_tuple else output)

        def before_head(module, args):
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
        raise RuntimeError("the network did not go through its trunk")

    def forward(self, pixel_values: torch.Tensor):
        if pixel_values.ndim == 4:
            return self.network(pixel_values=pixel_values)
        if self._head is not None:
            return SimpleNamespace(logits=self._head(pixel_values))
        with self._skipping(pixel_values):
            # What else the blocks are given (positions, masks) depends on the size of the pictures alone, so one blank picture will do.
            return self.network(pixel_values=torch.zeros(self._picture, device=pixel_values.device))

    @contextmanager
    def _skipping(self, hidden: torch.Tensor) -> Iterator[None]:
        """Let the last block of the trunk return `hidden`, and the others what they are given."""

        def last(*args, **kwargs):
            return (hidden,) if self._in_tuple else hidden

        def earlier(*args, **kwargs):
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
        """Whether the two parts make the whole, tried on a random picture: the way through a network is its author's, not ours."""
        device = next(self.parameters()).device
        picture = torch.rand(self._picture, generator=torch.Generator().manual_seed(0)).to(device)
        training = self.training
        self.eval()
        try:
            whole, parts = self(picture).logits, self(self.trunk(picture)).logits
        except (TypeError, ValueError, RuntimeError, KeyError, AttributeError):
            return False
        finally:
            self.train(training)
        return whole.shape == parts.shape and torch.allclose(whole, parts, rtol=1e-4, atol=1e-5)


def keep_outputs(
    network: CutNetwork,
    shared: "Shared",
    config: RunConfig,
    device: torch.device,
    store: dict[str, EvaluationPixels],
    views: TrainingPixels,
    support: EvaluationPixels | None,
) -> tuple[dict[str, Kept], "TrainingPixels | KeptViews"]:
    """The trunk's outputs in place of pixels: of every scored split, and of the training views where they are fixed.

    Args:
        network: the cut network.
        shared: what holds the store.
        config: of the run.
        device: where it is.
        store: the scored splits.
        views: of the training pictures.
        support: the training pictures as evaluation sees them, where training sees them so too.
    """
    parts = dict(store)
    if views.augmentation == "fixed-views":
        parts["train"] = _FixedViews(views)
    elif support is not None:
        parts["train"] = support
    kept = dict(zip(parts, shared.keep(f"trunk{network.length}", network.trunk, list(parts.values()), config, device)))
    return kept, KeptViews(kept.pop("train"), views.views) if "train" in parts else views


class _FixedViews:
    """The fixed views of some rows as pictures of their own: view v of row r is picture r * views + v."""

    def __init__(self, views: TrainingPixels) -> None:
        self._views, self._count = views, views.views
        self.identities = [
            hashlib.sha256(name + f"view {number} of {self._count}".encode()).digest()[:16]
            for name in views.identities
            for number in range(self._count)
        ]

    def __getitem__(self, rows: Sequence[int]) -> torch.Tensor:
        return torch.stack([self._views.view(*divmod(row, self._count)) for row in rows])


class KeptViews:
    """Stands for `TrainingPixels` with fixed views, and makes the same draws."""

    def __init__(self, kept: Kept, views: int) -> None:
        self._kept, self._views = kept, views

    def batch(self, indices: Sequence[int], seeds: Sequence[int]) -> torch.Tensor:
        """The trunk's outputs for one of the views of each row."""
        rows = np.asarray(indices, np.int64) * self._views
        if self._views > 1:
            generators = [torch.Generator().manual_seed(seed) for seed in np.asarray(seeds, np.int64).tolist()]
            rows = rows + [int(torch.randint(self._views, (1,), generator=generator)) for generator in generators]
        return self._kept[rows]
