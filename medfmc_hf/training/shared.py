"""What the runs of one process share: the data, its images, fingerprints, and one loaded backbone that is handed from run to run."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..adaptation import adapt
from ..data import loading
from ..errors import MedfmcError
from ..images import pixels
from ..images.processing import Processing
from ..models import backbones, class_token
from ..models.checkpoint import Checkpoint, find_checkpoint
from ..models.image_processor import processing_of
from ..models.structure import head_names
from ..runs import RunConfig, identity
from ..subsets import ConfigName, Subset, subset_of
from .cached_features import CachedRows, Images, Network, cache_rows

if TYPE_CHECKING:
    import datasets


@dataclass
class AcquiredBackbone:
    """A backbone that a run has for itself: it sets `adapted` to what it made of it, and gets it back off at the end.

    Attributes:
        backbone: with a fresh head for the run's subset and seed.
        adapted: what `adapt` returned, if it was called.
    """

    backbone: nn.Module
    adapted: nn.Module | None = None


@dataclass
class Shared:
    """What the runs of one process share. Whatever ran before, a run gets the same from it.

    Attributes:
        data: folder of a build, or a dataset repository on the Hub.
        cache: folder of the pixel cache; None for the user's.
        images: decoded training images, within a budget of memory.
        trains_on: the device where runs to come cut views of whole training images; what is decoded of these for another purpose is then
            kept for them. None if no run does.
    """

    data: str | os.PathLike = "medfmc"
    cache: Path | None = None
    images: pixels.ImageStore = field(default_factory=pixels.ImageStore)
    trains_on: torch.device | None = None
    _known: dict = field(default_factory=dict)
    _backbone: tuple | None = None

    def cached(self, key: tuple, make: Callable):
        """What `make` gave the first time something was asked for under `key`."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    @property
    def root(self) -> Path:
        """Folder of the stores of pixels, features and outputs of frozen blocks."""
        return Path(self.cache) if self.cache is not None else pixels.default_cache()

    def splits(self, name: ConfigName):
        """The `DatasetDict` of a config, loaded once."""
        return self.cached(("splits", name), lambda: read_linked(self.data, name) or loading.load_splits(self.data, name))

    def data_fingerprint(self, name: ConfigName) -> str:
        """Hash of the rows of a config and of their images; of builds without digests of these, of the size that they were shrunk to."""

        def make():
            splits = self.splits(name)
            rows, has_digests = loading.fingerprint(splits, subset_of(name.subset)), "image_sha256" in next(iter(splits.values())).features
            side = None if has_digests else loading.max_side_of(self.data)
            return rows if side is None else hashlib.sha256(f"{rows} max_side {side}".encode()).hexdigest()

        return self.cached(("data", name), make)

    def checkpoint(self, config: RunConfig) -> Checkpoint:
        """The files of the backbone of a run.

        The Hub is asked once: a branch that moves meanwhile moves no run of this process, and a grid does not wait for a Hub that does not
        answer once a run.
        """

        def make() -> Checkpoint | MedfmcError:
            try:
                return find_checkpoint(config.model, config.revision)
            except MedfmcError as error:
                return error

        found = self.cached(("checkpoint", config.model, config.revision), make)
        if isinstance(found, MedfmcError):
            raise found
        return found

    def backbone_fingerprint(self, config: RunConfig) -> str:
        """Commit or content hash of the backbone of a run. Its files are read once."""
        return self.checkpoint(config).fingerprint

    def identity(self, config: RunConfig) -> str:
        """What makes a run the same as another, see `medfmc_hf.runs.identity`."""
        return identity(config, self.data_fingerprint(config.dataset_config), self.backbone_fingerprint(config))

    def processing(self, config: RunConfig) -> Processing:
        """How the backbone of a run wants its images."""
        key = config.model, config.revision, config.image_size
        return self.cached(("processing", *key), lambda: processing_of(self.checkpoint(config), image_size=config.image_size))

    def evaluation_pixels(self, name: ConfigName, split: str, config: RunConfig) -> pixels.EvaluationPixels:
        """The images of a split at the size of the run's backbone."""
        process = self.processing(config)

        def make():
            rows = self.splits(name)[split]
            if split == "train" and self.trains_on is not None:
                pixels.TrainingPixels(rows, process, store=self.images, device=self.trains_on).precompute()
            return pixels.evaluation_pixels(
                rows,
                process,
                cache=self.cache,
                subset=subset_of(name.subset),
                progress=f"{name} {split} images",
                decoded=self.images,
            )

        return self.cached(("pixels", name, split, process.geometry), make)

    def cache_rows(self, what: str, network: Network, parts: Sequence[Images], config: RunConfig, device: torch.device) -> list[CachedRows]:
        """What a frozen part of a run's backbone makes of images, cached on disk; see `medfmc_hf.training.cached_features.cache_rows`.

        Args:
            what: names the part: `features`, or `frozen` and how many blocks.
            network: float32 (B, 3, height, width) -> float (B, ...).
            parts: the images, such as one part a split.
            config: of the run.
            device: where the network is.
        """
        process = self.processing(config)
        key = (self.backbone_fingerprint(config), config.dtype, torch.__version__)
        if self._backbone is not None and (pool := self._backbone[1].origin.pool) != "stock":
            key += (pool,)

        def measure() -> tuple[int, ...]:
            with torch.inference_mode():
                return tuple(network(torch.zeros(1, 3, process.height, process.width, device=device)).shape[1:])

        shape = self.cached(("shape", what, key, process.key()), measure)
        return cache_rows(network, shape, parts, process, root=self.root, subset=config.subset, key=key, what=what, device=device)

    @contextmanager
    def acquire(self, config: RunConfig) -> Iterator[AcquiredBackbone]:
        """Give the backbone of a run, loaded now if the last run had another one.

        Its head is drawn anew from the run's seed. Afterwards the adaptation is taken off, so that every weight is as it was, bit for bit;
        if the run failed, the backbone is released instead and the next run loads it again.
        """
        key = config.model, config.revision, config.image_size
        subset = subset_of(config.subset)
        if self._backbone is None or self._backbone[0] != key:
            self._backbone = None  # frees the old one first
            model = backbones.load_backbone(self.checkpoint(config), subset, image_size=config.image_size)
            class_token.spare_last_block(model)
            self._backbone = key, model
        model = self._backbone[1]
        try:
            _fit_head(model, subset)
            adapt.reset_head(model, config.seed_of_training)
            acquired = AcquiredBackbone(model)
            yield acquired
            if acquired.adapted is not None:
                adapt.unload(acquired.adapted)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Forget the loaded backbone, and free its memory."""
        self._backbone = None


def read_linked(data: str | os.PathLike, name: ConfigName) -> "datasets.DatasetDict | None":
    """What `load_splits` gives, straight from the Parquet files of a linked build: these are small, and a grid has dozens of configs.

    Returns:
        None for anything else than a linked build that has the config and all its images; `load_splits` says what is wrong with it.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not (Path(data) / loading.MANIFEST).is_file():
        return None
    manifest = loading.read_manifest(data)
    entry = manifest["configs"].get(str(name))
    if manifest.get("form") != "linked" or entry is None:
        return None
    try:
        tables = {split: pa.concat_tables(pq.read_table(Path(data) / file) for file in part["files"]) for split, part in entry.items()}
    except (OSError, pa.ArrowInvalid):
        return None
    if loading.missing_images(path for table in tables.values() for path in loading.linked_paths(table["image"])):
        return None
    splits = datasets.DatasetDict({split: datasets.Dataset(table) for split, table in tables.items()})
    loading.check_columns(splits, name, data)
    return splits


def _fit_head(model: nn.Module, subset: Subset) -> None:
    """Give the classifier as many outputs as the subset has classes; `load_backbone` makes the same of the config."""
    if model.origin.subset == subset.key:
        return
    for name in head_names(model):
        for inner, layer in list(model.get_submodule(name).named_modules()):
            if isinstance(layer, nn.Linear) and layer.out_features == model.config.num_labels:
                new = nn.Linear(layer.in_features, len(subset.classes), layer.bias is not None, layer.weight.device, layer.weight.dtype)
                model.set_submodule(f"{name}.{inner}".rstrip("."), new.train(layer.training))
    model.num_labels = model.config.num_labels = len(subset.classes)
    model.config.id2label = dict(enumerate(subset.classes))
    model.config.label2id = {name: index for index, name in enumerate(subset.classes)}
    model.config.problem_type = "multi_label_classification" if subset.multilabel else "single_label_classification"
    model.origin = replace(model.origin, subset=subset.key)
