"""What the runs of one process share: the data, its images, the checkpoints, and one loaded backbone that goes from run to run."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..adaptation import adapt
from ..data import loading
from ..errors import MedfmcError
from ..images import pixels
from ..images.grey_range import FULL, GreyRange, grey_range_of
from ..images.processing import Processing
from ..models import backbones
from ..models.checkpoint import Checkpoint, find_checkpoint
from ..models.image_processor import processing_of
from ..runs import MethodOptions, RunConfig, identity, provenance
from ..runs.launcher import check_launcher
from ..subsets import ConfigName, Subset, subset_of
from .cached_features import CachedRows, IdentifiedImages, Network, cache_rows
from .loop import make_accelerator
from .resolved import ResolvedRun, Split

if TYPE_CHECKING:
    import datasets

Made = TypeVar("Made")


@dataclass
class Shared:
    """What the runs of one process share. Whatever ran before, a run gets the same from it.

    Attributes:
        data: folder of a build, or a dataset repository on the Hub.
        cache: folder of the pixel cache; None for the user's.
        images: decoded training images, within a budget of memory.
        trains_on: the device where runs to come cut views of whole training images; what is decoded of these for another purpose is then
            held for them. None if no run does.
    """

    data: str | os.PathLike = "medfmc"
    cache: Path | None = None
    images: pixels.ImageStore = field(default_factory=pixels.ImageStore)
    trains_on: torch.device | None = None
    _known: dict[tuple, Any] = field(default_factory=dict)
    _backbone: tuple[tuple, PreTrainedModel] | None = None

    def cached(self, key: tuple, make: Callable[[], Made]) -> Made:
        """What `make` gave the first time something was asked for under `key`."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    @property
    def root(self) -> Path:
        """Folder of the stores of pixels, features and outputs of frozen blocks."""
        return Path(self.cache) if self.cache is not None else pixels.default_cache()

    def resolve(self, config: RunConfig) -> ResolvedRun:
        """Look up all that a run needs. No image is opened and no weights are loaded.

        Raises:
            MedfmcError: the data, the backbone or an option is not as it should be, or `accelerate launch` was told something else.
        """
        check_launcher(config)
        config, as_recipe = self._in_one_form(config), self._in_one_form(config.as_recipe())
        name = config.dataset_config
        data, checkpoint = self.data_record(name), self.checkpoint(config.model, config.revision)
        processing = replace(self.processing(config.model, config.revision, config.image_size), grey=_grey_of(data))
        fingerprint = checkpoint.commit or hashlib.sha256(f"{checkpoint.fingerprint} {processing.key()}".encode()).hexdigest()
        return ResolvedRun(
            config=config,
            changed=config.changes(as_recipe),
            id=identity(config, data["fingerprint"], fingerprint),
            fingerprint=fingerprint,
            subset=subset_of(config.subset),
            data=data,
            checkpoint=checkpoint,
            processing=processing,
            train=self.split(name, "train"),
            scored=self._scored_splits(config),
            device=make_accelerator().device,
        )

    def _in_one_form(self, config: RunConfig) -> RunConfig:
        """The config as any other that asks for the same run has it, so that a run has one id.

        Files are replaced by their content. Options of the method are as `adapt.in_one_form` has them. At their default are the image size
        where the backbone has it anyway and, where the method trains no network, what only the training loop reads.
        """
        options = adapt.in_one_form(config.method, config.method_options)
        own_size = config.image_size is not None and self._is_own_size(config.model, config.revision, config.image_size)
        config = replace(config, method_options=MethodOptions(options), image_size=None if own_size else config.image_size)
        return config if adapt.method_of(config.method).kind == "gradient" else config.without_training()

    def _is_own_size(self, model: str, revision: str | None, image_size: int) -> bool:
        """Whether a backbone sees images as it does without being told a size."""

        def make() -> bool:
            try:
                own = self.processing(model, revision, None)
            except MedfmcError:  # its images have to be told a size
                return False
            config = backbones.read_config(self.checkpoint(model, revision))
            return own == self.processing(model, revision, image_size) and backbones.image_size_of(config) == image_size

        return self.cached(("own size", model, revision, image_size), make)

    def _scored_splits(self, config: RunConfig) -> dict[str, Split]:
        name = config.dataset_config
        scored = {"test": self.split(name, "test")}
        if config.select == "best":
            if not self.splits(name).get("validation"):
                raise MedfmcError(f"select: best needs a validation split and {name} has none; use select: last.")
            scored["validation"] = self.split(name, "validation")
        if config.predict_challenge:
            challenge = ConfigName(config.subset, variant="challenge")
            scored |= {f"challenge-{split}": self.split(challenge, split) for split in self.splits(challenge)}
        return scored

    def splits(self, name: ConfigName) -> "datasets.DatasetDict":
        """A dataset config, loaded once."""
        return self.cached(("splits", name), lambda: loading.read_linked(self.data, name) or loading.load_splits(self.data, name))

    def split(self, name: ConfigName, split: str) -> Split:
        """One split of a dataset config, with its labels."""

        def make() -> Split:
            rows = self.splits(name)[split]
            return Split(name, split, rows, loading.targets_of(rows, subset_of(name.subset)))

        return self.cached(("split", name, split), make)

    def data_fingerprint(self, name: ConfigName) -> str:
        """Hash of the rows of a config, of their images and of how deep ones are read; of old builds, of the size they were shrunk to."""

        def make() -> str:
            splits = self.splits(name)
            rows, has_digests = loading.fingerprint(splits, subset_of(name.subset)), "image_sha256" in next(iter(splits.values())).features
            side = None if has_digests else loading.max_side_of(self.data)
            grey = _grey_of(self._facts(subset_of(name.subset)))
            apart = [] if side is None else [f"max_side {side}"]
            apart += [] if grey in (None, FULL) else [f"grey {grey}"]
            return hashlib.sha256(" ".join([rows, *apart]).encode()).hexdigest() if apart else rows

        return self.cached(("data", name), make)

    def _facts(self, subset: Subset) -> dict[str, Any]:
        return self.cached(("facts", subset.key), lambda: loading.build_facts(self.data, subset))

    def data_record(self, name: ConfigName) -> dict[str, Any]:
        """The `data` part of the record of a run on a dataset config."""
        subset = subset_of(name.subset)

        def make() -> dict[str, Any]:
            facts = self._facts(subset)
            splits = self.splits(name)
            return provenance.data(name, splits, self.data_fingerprint(name), loading.split_digest(splits["test"], subset), facts)

        return self.cached(("data record", name), make)

    def checkpoint(self, model: str, revision: str | None) -> Checkpoint:
        """The files of a backbone.

        The Hub is asked once: a branch that moves meanwhile moves no run of this process, and a grid does not wait for a Hub that does not
        answer once a run.
        """

        def make() -> Checkpoint | MedfmcError:
            try:
                return find_checkpoint(model, revision)
            except MedfmcError as error:
                return error

        found = self.cached(("checkpoint", model, revision), make)
        if isinstance(found, MedfmcError):
            raise found
        return found

    def processing(self, model: str, revision: str | None, image_size: int | None) -> Processing:
        """How a backbone wants its images."""
        return self.cached(
            ("processing", model, revision, image_size), lambda: processing_of(self.checkpoint(model, revision), image_size=image_size)
        )

    def evaluation_pixels(self, split: Split, processing: Processing) -> pixels.EvaluationPixels:
        """The images of a split as a backbone wants them."""

        def make() -> pixels.EvaluationPixels:
            if split.name == "train" and self.trains_on is not None:
                pixels.TrainingPixels(split.rows, processing, store=self.images, device=self.trains_on).precompute()
            return pixels.evaluation_pixels(
                split.rows,
                processing,
                cache=self.cache,
                subset=subset_of(split.config.subset),
                progress=f"{split.config} {split.name} images",
                decoded=self.images,
            )

        return self.cached(("pixels", split, processing.geometry), make)

    def training_pixels(self, run: ResolvedRun) -> pixels.TrainingPixels:
        """The views of the support set of a run."""
        return pixels.TrainingPixels(
            run.train.rows, run.processing, augmentation=run.config.augmentation, store=self.images, device=run.device
        )

    def cache_rows(self, what: str, network: Network, parts: Sequence[IdentifiedImages], run: ResolvedRun, pool: str) -> list[CachedRows]:
        """What a frozen part of a run's backbone makes of images, cached on disk; see `medfmc_hf.training.cached_features.cache_rows`.

        Args:
            what: names the part: `features`, or `frozen` and how many blocks.
            network: float32 (B, 3, height, width) on the run's device -> float (B, ...).
            parts: the images, such as one part a split.
            run: whose backbone it is.
            pool: of the backbone, see `medfmc_hf.models.backbones.Origin`.
        """
        process = run.processing
        key = (run.checkpoint.fingerprint, run.config.dtype, torch.__version__, *([] if pool == "stock" else [pool]))

        def measure() -> tuple[int, ...]:
            with torch.inference_mode():
                return tuple(network(torch.zeros(1, 3, process.height, process.width, device=run.device)).shape[1:])

        shape = self.cached(("shape", what, key, process.key()), measure)
        return cache_rows(network, shape, parts, process, root=self.root, subset=run.subset.key, key=key, what=what, device=run.device)

    @contextmanager
    def acquire(self, run: ResolvedRun) -> Iterator[nn.Module]:
        """Give a run its backbone on its device, with a fresh head for its subset and training seed.

        It is loaded now if the last run had another. `adapted` of `medfmc_hf.training.one_run` takes the adaptation off again, so that
        every weight is as it was, bit for bit; if the run fails, the backbone is released instead and the next run loads it again.
        """
        config = run.config
        key = config.model, config.revision, config.image_size
        if self._backbone is None or self._backbone[0] != key:
            self._backbone = None  # frees the old one first
            model = backbones.load_backbone(run.checkpoint, run.subset, image_size=config.image_size)
            backbones.check_images_fit(model, run.processing.height, run.processing.width)
            self._backbone = key, model
        model = self._backbone[1]
        try:
            backbones.fit_head(model, run.subset)
            adapt.reset_head(model, config.seed_of_training)
            yield nn.Module.to(model, run.device)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Forget the loaded backbone, and free its memory."""
        self._backbone = None


def _grey_of(facts: Mapping[str, Any]) -> GreyRange | None:
    """The range of grey values that a build records; builds that say nothing of it read 16 bits as 16 bits."""
    return grey_range_of(facts["grey_range"]) if "grey_range" in facts else FULL
