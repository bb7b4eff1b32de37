"""Training images: decoded once, kept in memory at full size within a budget, and cut into views for each batch."""

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

IMAGE_BUDGET = 4 << 30  # bytes of decoded training images kept in memory unless the caller says otherwise
VIEWS = 4  # fixed views of an image
GPU_SHARE = 4  # on a GPU, a fourth of its memory: decoding again costs it far more than a processor


class ImageStore:
    """Decoded images in memory, shared by all runs of a process; beyond the budget the least recently used are dropped.

    Args:
        budget_bytes: how much may be kept, on all devices together; None for `IMAGE_BUDGET`, or a fourth of a GPU's memory if that is
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
        """What is kept under `key`, or else what `make` gives, which is then kept."""
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
                    notify(f"the decoded training images exceed {budget}; some are decoded again when they are needed.")
        return tensor


def default_budget() -> int:
    """Bytes of decoded images that a process keeps."""
    if not torch.cuda.is_available():
        return IMAGE_BUDGET
    return max(IMAGE_BUDGET, torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory // GPU_SHARE)


class TrainingPixels:
    """Views of a dataset's rows for training.

    Args:
        rows: the training rows of a config; rows that repeat an image share its decoding.
        processing: as `processing_of` gives it.
        augmentation: `crop-flip`, a fresh random resized crop and flip each time; `fixed-views`, one of `views` such views that an image
            has for good, whatever the run, so that outputs of frozen blocks can be cached; `none`, what evaluation sees.
        views: views of an image, for `fixed-views`.
        budget_bytes: of a store of its own; what does not fit is decoded again when it is needed.
        store: decoded images to share with other runs, instead of a store of its own.
        device: where views are cut and returned. A GPU keeps the images in its own memory.
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
            raise MedfmcError(f"augmentation is one of crop-flip, fixed-views, none; got {augmentation!r}.")
        if isinstance(views, bool) or not isinstance(views, int) or views < 1:
            raise MedfmcError(f"views is a whole number of at least 1; got {views!r}.")
        self.processing, self.augmentation = processing, augmentation
        self.views = views if augmentation == "fixed-views" else 1
        self.device = torch.device(device or "cpu")
        self.store = store if store is not None else ImageStore(budget_bytes)
        self._images = ImageRows(rows, processing.grey)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def identities(self) -> list[bytes]:
        """What image each row is, as `medfmc_hf.images.decoding.identity` gives it."""
        return self._images.identities

    def precompute(self, progress: str = "training images") -> None:
        """Decode now, on several threads, what the store has room for, so that the first epoch does not wait."""
        make = self._image if self.augmentation == "crop-flip" else self._fixed
        rows = [row for row in self._images.distinct().values() if self._key(row) not in self.store]
        for _ in bar(in_order(lambda row: self.store.is_full or make(row), rows), total=len(rows), desc=progress, unit="image"):
            pass

    def batch(self, indices: Rows, seeds: Rows) -> torch.Tensor:
        """Views of some rows.

        Args:
            indices: row numbers; a row may come more than once.
            seeds: of the draws of each view, 0 to 2^63 - 1: a view depends on its image and its seed, whatever else is in the batch, so
                that several processes may share one.

        Returns:
            uint8, (B, C, height, width) on the device; C is 1 where all images are grey, else 3.
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
            MedfmcError: the views are drawn anew each time.
        """
        if self.augmentation == "crop-flip":
            raise MedfmcError("crop-flip draws its views anew each time; use the augmentation fixed-views or none to have fixed ones.")
        return self._fixed(row)[number]

    def _view(self, row: int, generator: torch.Generator) -> torch.Tensor:
        if self.augmentation == "crop-flip":
            return crop_flip(self._image(row), self.processing, generator)
        number = int(torch.randint(self.views, (1,), generator=generator)) if self.augmentation == "fixed-views" else 0
        return self._fixed(row)[number]

    def _image(self, row: int) -> torch.Tensor:
        """The whole image: uint8, (C, H, W), rows of pixels one after the other in memory."""

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
        """Under which the store keeps what views of a row are made from."""
        whole = (self._images.identities[row], self.device)
        return whole if self.augmentation == "crop-flip" else (*whole, self.processing.geometry, self.augmentation, self.views)
