"""Training images: decoded once, held in memory at full size within a budget, and cropped into views for each batch."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ..errors import MedfmcError
from ..progress import bar, notify
from .augmentation import crop_flip
from .processing import Processing, process
from .resize import channels_first
from .rows import ImageRows, in_order

if TYPE_CHECKING:
    import datasets

Rows = Sequence[int] | np.ndarray | torch.Tensor  # of whole numbers

IMAGE_BUDGET = 4 << 30  # default bytes of decoded training images in memory
VIEWS = 4  # fixed views per image
GPU_SHARE = 4  # on a GPU, a quarter of its memory: waiting for a decode costs a GPU far more than a CPU


class ImageStore:
    """Decoded images in memory, shared by all runs of a process; beyond the budget the least recently used are dropped.

    Args:
        budget_bytes: size limit, in bytes on all devices together; None for `IMAGE_BUDGET`, or a quarter of a GPU's memory if that is
            more.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = default_budget() if budget_bytes is None else budget_bytes
        self.bytes = 0
        self._kept: OrderedDict[tuple, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self._told = False

    @property
    def is_full(self) -> bool:
        """Whether one more image would push another out."""
        with self._lock:
            return bool(self._kept) and self.bytes + self.bytes // len(self._kept) > self.budget_bytes

    def __contains__(self, key: tuple) -> bool:
        with self._lock:
            return key in self._kept

    def whole_images(self) -> dict[bytes, torch.Tensor]:
        """The decoded images by identity: uint8, (C, H, W)."""
        with self._lock:
            return {key[0]: tensor for key, tensor in self._kept.items() if len(key) == 2}

    def get(self, key: tuple, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The tensor stored under `key`; if there is none, the result of `make`, which is then stored."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        tensor = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = tensor
                self.bytes += tensor.nbytes
            while self.bytes > self.budget_bytes:
                _, dropped = self._kept.popitem(last=False)
                self.bytes -= dropped.nbytes
                if not self._told:
                    self._told = True
                    budget = f"{self.budget_bytes / 2**30:.1f} GiB"
                    notify(f"the decoded training images exceed {budget}; those dropped are decoded again when needed.")
        return tensor


def default_budget() -> int:
    """Default bytes of decoded images in a process."""
    if not torch.cuda.is_available():
        return IMAGE_BUDGET
    return max(IMAGE_BUDGET, torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory // GPU_SHARE)


class TrainingPixels:
    """Views of a dataset's rows for training.

    Args:
        rows: training rows of a config; rows that repeat an image share its decoding.
        processing: processing of the backbone, from `processing_of`.
        augmentation: `crop-flip`, a new random resized crop and flip each time; `fixed-views`, one of `views` such views that are the same
            for an image in every run, so that outputs of frozen blocks can be cached; `none`, the image as in evaluation.
        views: number of views per image, for `fixed-views`.
        budget_bytes: budget of a private store; images that do not fit are decoded again when needed.
        store: store of decoded images to share with other runs, instead of a private one.
        device: device on which views are made and returned; the decoded images are stored there too.
    """

    def __init__(
        self,
        rows: "datasets.Dataset",
        processing: Processing,
        *,
        augmentation: Literal["crop-flip", "fixed-views", "none"] = "crop-flip",
        views: int = VIEWS,
        budget_bytes: int | None = None,
        store: ImageStore | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if augmentation not in ("crop-flip", "fixed-views", "none"):
            raise MedfmcError(f"augmentation must be one of crop-flip, fixed-views, none; got {augmentation!r}.")
        if isinstance(views, bool) or not isinstance(views, int) or views < 1:
            raise MedfmcError(f"views must be a whole number of at least 1; got {views!r}.")
        self.processing, self.augmentation = processing, augmentation
        self.views = views if augmentation == "fixed-views" else 1
        self.device = torch.device(device or "cpu")
        self.store = store if store is not None else ImageStore(budget_bytes)
        self._images = ImageRows(rows, processing.grey)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def identities(self) -> list[bytes]:
        """Identity of each row's image, from `medfmc_hf.images.decoding.identity`."""
        return self._images.identities

    def precompute(self, progress: str = "training images") -> None:
        """Decode as many images as the store has room for, on several threads, so that the first epoch does not wait."""
        make = self._image if self.augmentation == "crop-flip" else self._fixed
        rows = [row for row in self._images.distinct().values() if self._key(row) not in self.store]
        for _ in bar(in_order(lambda row: self.store.is_full or make(row), rows), total=len(rows), desc=progress, unit="image"):
            pass

    def batch(self, indices: Rows, seeds: Rows) -> torch.Tensor:
        """Make views of rows.

        Args:
            indices: row numbers, possibly repeated.
            seeds: random seed of each view, 0 to 2^63 - 1. A view depends only on its image and its seed, not on the rest of the batch, so
                that several processes may share a batch.

        Returns:
            uint8, (B, C, height, width) on the device; C is 1 if all images are grey, else 3.
        """
        rows, seeds = np.asarray(indices, np.int64).tolist(), np.asarray(seeds, np.int64).tolist()
        views = [self._view(row, torch.Generator().manual_seed(seed)) for row, seed in zip(rows, seeds, strict=True)]
        channels = max((view.shape[0] for view in views), default=1)
        if not views:
            return torch.empty(0, channels, self.processing.height, self.processing.width, dtype=torch.uint8, device=self.device)
        return torch.stack([view.expand(channels, -1, -1) for view in views])

    def view(self, row: int, number: int) -> torch.Tensor:
        """Fixed view `number` (0 to `views - 1`) of a row: uint8, (C, height, width) on the device.

        Raises:
            MedfmcError: the augmentation is `crop-flip`, which has no fixed views.
        """
        if self.augmentation == "crop-flip":
            raise MedfmcError("crop-flip makes new views each time; use the augmentation fixed-views or none for fixed ones.")
        return self._fixed(row)[number]

    def _view(self, row: int, generator: torch.Generator) -> torch.Tensor:
        if self.augmentation == "crop-flip":
            return crop_flip(self._image(row), self.processing, generator)
        number = int(torch.randint(self.views, (1,), generator=generator)) if self.augmentation == "fixed-views" else 0
        return self._fixed(row)[number]

    def _image(self, row: int) -> torch.Tensor:
        """The whole image: uint8, (C, H, W), with pixels row by row in memory."""

        def make() -> torch.Tensor:
            return channels_first(self._images.decode(row)).to(self.device)

        return self.store.get(self._key(row)[:2], make)

    def _fixed(self, row: int) -> torch.Tensor:
        """All the fixed views of a row: uint8, (views, C, height, width)."""

        def make() -> torch.Tensor:
            if self.augmentation == "none":
                return process(self._images.decode(row), self.processing)[None].to(self.device)
            generator = torch.Generator().manual_seed(int.from_bytes(self._images.identities[row][:7], "big"))
            image = self._image(row)
            return torch.stack([crop_flip(image, self.processing, generator) for _ in range(self.views)])

        return self.store.get(self._key(row), make)

    def _key(self, row: int) -> tuple:
        """The key under which the store holds what views of a row are made from."""
        whole = (self._images.identities[row], self.device)
        return whole if self.augmentation == "crop-flip" else (*whole, self.processing.geometry, self.augmentation, self.views)
