"""A run of which nothing is left to be looked up: what its config, the data, the backbone and the machine decide, in one frozen object."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..adaptation import adapt
from ..images.processing import Processing
from ..models.checkpoint import Checkpoint
from ..runs import RunConfig
from ..subsets import ConfigName, Subset

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Split:
    """One split of a dataset config; splits of one name are equal.

    Attributes:
        config: the dataset config.
        name: such as `train`.
        rows: n rows.
        targets: their labels, see `medfmc_hf.data.loading.targets_of`.
    """

    config: ConfigName
    name: str
    rows: "datasets.Dataset" = field(compare=False, repr=False)
    targets: np.ndarray = field(compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def is_labelled(self) -> bool:
        """Whether the labels of all rows are public."""
        return bool((self.targets >= 0).all())


@dataclass(frozen=True, eq=False)
class ResolvedRun:
    """A run, resolved: see `Shared.resolve` of `medfmc_hf.training.shared`.

    Attributes:
        config: its options in the one form that they have: files replaced by their content, and at its default what is left as it is or
            has no say.
        changed: the options that are not as its recipe has them, with their values.
        id: see `medfmc_hf.runs.identity`.
        fingerprint: of the backbone: its commit on the Hub, or a hash of a local one's files and of how it wants its images.
        subset: whose images these are.
        data: the `data` part of its record.
        checkpoint: the files of the backbone.
        processing: how the backbone wants its images.
        train: the support set.
        scored: the splits that it predicts: `test`; `validation` where it selects by it; `challenge-...` where asked.
        device: where it runs.
    """

    config: RunConfig
    changed: dict[str, Any]
    id: str
    fingerprint: str
    subset: Subset
    data: dict[str, Any]
    checkpoint: Checkpoint
    processing: Processing
    train: Split
    scored: dict[str, Split]
    device: torch.device

    @property
    def by_gradient(self) -> bool:
        """Whether it is trained by the loop; else a head is fitted to features of the frozen backbone."""
        return adapt.method_of(self.config.method).kind == "gradient"

    @property
    def splits(self) -> tuple[Split, ...]:
        """The support set, and the scored splits in their order."""
        return self.train, *self.scored.values()

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last may be on a smaller batch."""
        return -(-len(self.train) // self.config.batch_size)

    def autocast(self) -> torch.autocast:
        """The precision of the network; the loss is float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16")
