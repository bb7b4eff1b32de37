"""Evaluation images, decoded once and cached on disk at final size for all configs, processes and runs.

Training images are in `medfmc_hf.images.views` and are exported here too, so that users of pixels import one module.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock, Timeout

from ..errors import MedfmcError
from ..progress import bar, notify
from ..subsets import Subset
from .decoding import channels, decode, decodes
from .processing import Processing, process
from .rows import ImageRows, in_order
from .store import PixelStore, check_disk, default_cache
from .views import IMAGE_BUDGET, ImageStore, TrainingPixels

if TYPE_CHECKING:
    import datasets

__all__ = [
    "IMAGE_BUDGET",
    "EvaluationPixels",
    "ImageStore",
    "TrainingPixels",
    "decode",
    "decodes",
    "default_cache",
    "evaluation_pixels",
]

_COMMIT_IMAGES, _COMMIT_SECONDS = 64, 2.0  # the most that is redone after a kill


class EvaluationPixels:
    """Processed images of a dataset's rows, on disk.

    `len(pixels)` is the number of rows; `pixels[indices]` is uint8 (B, C, height, width), a copy in memory. `indices` is a slice or row
    numbers in any order. C is 1 if all the images in the batch are grey, else 3. A damaged stored image is processed again.

    Attributes:
        identities: identity of each row's image, from `medfmc_hf.images.decoding.identity`.
    """

    def __init__(self, store: PixelStore, images: ImageRows, processing: Processing) -> None:
        self.identities = images.identities
        self._store, self._images, self._processing = store, images, processing
        self._reader = store.open()
        self._places = [store.where[identity] for identity in self.identities]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, indices: slice | Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        rows = range(len(self))[indices] if isinstance(indices, slice) else np.atleast_1d(np.asarray(indices, np.int64)).tolist()
        found = [self._image(row) for row in rows]
        batch = np.empty((len(found), max((len(image) for image in found), default=1), self._store.height, self._store.width), np.uint8)
        for place, image in zip(batch, found):
            place[:] = image
        return torch.from_numpy(batch)

    def forget_checks(self) -> None:
        """Compare the checksum of every image again, as a new process does."""
        self._reader.forget()

    def _image(self, row: int) -> np.ndarray:
        """uint8, (C, height, width)."""
        pixels = self._reader.read(self._places[row])
        if pixels is None:
            self._restore(row)
            pixels = self._reader.read(self._places[row])
            if pixels is None:
                raise MedfmcError(f"pixels in {self._store.folder} differ from what was written; check the disk, or use another cache.")
        return pixels.reshape(-1, self._store.height, self._store.width)

    def _restore(self, row: int) -> None:
        """Store a damaged image again."""
        identity, store = self.identities[row], self._store
        store.drop_damaged([identity])
        with FileLock(store.lock_path):
            store.prepare()
            if identity not in store.where:
                store.append([(identity, process(self._images.decode(row), self._processing).numpy())])
        self._reader, self._places = store.open(), [store.where.get(name, place) for name, place in zip(self.identities, self._places)]


def evaluation_pixels(
    rows: "datasets.Dataset",
    processing: Processing,
    *,
    subset: Subset,
    cache: str | os.PathLike | None = None,
    progress: str = "images",
    decoded: ImageStore | None = None,
) -> EvaluationPixels:
    """Process the images of rows for a backbone, up to normalisation, through the cache on disk.

    Images that any process has stored for this subset and geometry are not decoded again. The others are decoded now, on several threads,
    and stored. Ctrl-C or a kill loses at most the last two seconds of work. While another process writes to the store, this one waits.

    Args:
        rows: rows of a MedFMC config, linked or embedded.
        processing: processing of the backbone, from `processing_of`.
        subset: subset of the images.
        cache: folder of the stores; None for `default_cache()`.
        progress: label of the progress bar.
        decoded: images that are in memory for training and need not be decoded again.

    Raises:
        MedfmcError: an image cannot be decoded, or the pixels cannot be stored in the folder.
    """
    images = ImageRows(rows, processing.grey)
    root = Path(cache) if cache is not None else default_cache()
    try:
        store = PixelStore(root, subset.key, processing.geometry, processing.height, processing.width)
        if _missing(store, images):
            _fill(store, images, processing, progress, decoded.whole_images() if decoded else {})
        return EvaluationPixels(store, images, processing)
    except (OSError, NotImplementedError) as error:  # NotImplementedError comes from file systems without locks
        reason = getattr(error, "strerror", None) or error
        raise MedfmcError(f"pixels cannot be stored in {root} ({reason}); choose another folder as the pixel cache.") from None


def _missing(store: PixelStore, images: ImageRows) -> dict[bytes, int]:
    """The images that the store lacks, with a row of each."""
    return {identity: row for identity, row in images.distinct().items() if identity not in store.where}


def _fill(store: PixelStore, images: ImageRows, processing: Processing, progress: str, decoded: dict[bytes, torch.Tensor]) -> None:
    """Store the missing images, unless another process does so first."""
    store.lock_path.parent.mkdir(parents=True, exist_ok=True)
    lock, told = FileLock(store.lock_path), False
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            if not told:
                notify(f"waiting for another process that is storing pixels in {store.folder}")
                told = True
            store.refresh()
            if not _missing(store, images):
                return
    try:
        store.prepare()
        missing = _missing(store, images)
        if missing:
            _store(store, missing, images, processing, progress, decoded)
    finally:
        lock.release()


def _store(
    store: PixelStore,
    missing: dict[bytes, int],
    images: ImageRows,
    processing: Processing,
    progress: str,
    decoded: dict[bytes, torch.Tensor],
) -> None:
    depth = channels(images.source(next(iter(missing.values()))))
    check_disk(store.folder, len(missing) * depth * processing.height * processing.width)

    def work(row: int) -> np.ndarray:
        known = decoded.get(images.identities[row])
        image = images.decode(row) if known is None else known.cpu().permute(1, 2, 0)
        return process(image, processing).numpy()

    results, done, last = in_order(work, list(missing.values())), [], time.monotonic()
    try:
        for identity, pixels in zip(missing, bar(results, total=len(missing), desc=progress, unit="image")):
            done.append((identity, pixels))
            if len(done) >= _COMMIT_IMAGES or time.monotonic() - last > _COMMIT_SECONDS:
                store.append(done)
                done, last = [], time.monotonic()
    finally:
        results.close()
        store.append(done)
