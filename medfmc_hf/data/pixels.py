"""Every picture decoded once: evaluation pictures mapped from disk at final size, training pictures kept in memory at full size."""

import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ..errors import MedfmcError
from ..progress import bar, say
from ..subsets import Subset
from .augmentation import crop_flip
from .loading import picture_sources
from .pictures import channels, decode, decodes, identity
from .pixel_store import PixelStore, check_disk, default_cache
from .processing import Processing, process

if TYPE_CHECKING:
    import datasets

__all__ = ["PICTURE_BUDGET", "EvaluationPixels", "PictureStore", "TrainingPixels", "decode", "decodes", "evaluation_pixels"]

PICTURE_BUDGET = 4 << 30  # bytes of decoded training pictures kept in memory unless the caller says otherwise
_COMMIT_PICTURES, _COMMIT_SECONDS = 64, 2.0  # what a kill can cost


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return max(2, min(cores, 16))


def _in_order(work: Callable, items: Sequence, pool: ThreadPoolExecutor, ahead: int) -> Iterator:
    """`map(work, items)` on the pool's threads, at most `ahead` results in memory."""
    waiting = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class _Rows:
    """The pictures of a dataset's rows: their identities, and each one's source when it is needed."""

    def __init__(self, rows: "datasets.Dataset") -> None:
        self.rows = rows
        self.identities: list[bytes] = []
        with ThreadPoolExecutor(_threads()) as pool:  # a file system over a network answers slowly, and hashing releases the interpreter
            for start in range(0, len(rows), 256):
                sources = picture_sources(rows.select(range(start, min(start + 256, len(rows)))))
                self.identities += pool.map(identity, sources)

    def __len__(self) -> int:
        return len(self.identities)

    def source(self, row: int) -> dict:
        return picture_sources(self.rows.select([row]))[0]


class EvaluationPixels:
    """Processed pictures of a dataset's rows, mapped from disk.

    `len(pixels)` is the number of rows; `pixels[indices]` is uint8 (B, C, height, width), a copy in memory. `indices` is a slice or any
    sequence of row numbers. C is 1 where all pictures asked for are grey, else 3.
    """

    def __init__(self, store: PixelStore, identities: Sequence[bytes], height: int, width: int) -> None:
        self._pixels = store.open()
        self._places = [store.where[identity] for identity in identities]
        self._shape = (height, width)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, indices) -> torch.Tensor:
        rows = range(len(self))[indices] if isinstance(indices, slice) else np.atleast_1d(np.asarray(indices, np.int64)).tolist()
        places = [self._places[row] for row in rows]
        most, area = max((depth for _, depth in places), default=1), self._shape[0] * self._shape[1]
        batch = np.empty((len(places), most, *self._shape), np.uint8)
        for picture, (start, depth) in zip(batch, places):
            picture[:] = self._pixels[start : start + depth * area].reshape(depth, *self._shape)
        return torch.from_numpy(batch)


def evaluation_pixels(
    rows: "datasets.Dataset", processing: Processing, *, subset: Subset, cache: str | os.PathLike | None = None, progress: str = "pictures"
) -> EvaluationPixels:
    """The rows' pictures as the backbone's processor would give them, before normalising.

    Pictures that any process ever stored for this subset and geometry are not decoded again; the others are decoded now, on several
    threads, and stored. Interrupting or killing this loses at most the last two seconds of work.

    Args:
        rows: rows of a MedFMC config, linked or embedded.
        processing: as `processing_of` gives it.
        subset: whose pictures they are.
        cache: folder of the stores; None for `default_cache()`.
        progress: what the progress bar says.

    Raises:
        MedfmcError: a picture cannot be decoded, or the disk cannot hold the pixels.
    """
    pictures = _Rows(rows)
    root = Path(cache) if cache is not None else default_cache()
    store = PixelStore(root, subset.key, processing.geometry, processing.height, processing.width)
    if _missing(store, pictures):
        try:
            _fill(store, pictures, processing, progress)
        except OSError as error:
            raise MedfmcError(
                f"pixels cannot be stored in {store.folder} ({error.strerror or error}); name another folder as the pixel cache."
            ) from None
    return EvaluationPixels(store, pictures.identities, processing.height, processing.width)


def _missing(store: PixelStore, pictures: _Rows) -> dict[bytes, int]:
    """Identity to row, of the distinct pictures that the store lacks."""
    return {identity: row for row, identity in enumerate(pictures.identities) if identity not in store.where}


def _fill(store: PixelStore, pictures: _Rows, processing: Processing, progress: str) -> None:
    from filelock import FileLock, Timeout

    store.lock_path.parent.mkdir(parents=True, exist_ok=True)
    lock, told = FileLock(store.lock_path), False
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            if not told:
                say(f"waiting for another process that stores pixels in {store.folder}")
                told = True
            store.refresh()
            if not _missing(store, pictures):
                return
    with lock:
        lock.release()  # `with` holds it a second time
        store.prepare()
        missing = _missing(store, pictures)
        if missing:
            _store(store, missing, pictures, processing, progress)


def _store(store: PixelStore, missing: dict[bytes, int], pictures: _Rows, processing: Processing, progress: str) -> None:
    first = channels(pictures.source(next(iter(missing.values()))))
    check_disk(store.folder, len(missing) * first * processing.height * processing.width)
    finished, last = [], time.monotonic()
    pool = ThreadPoolExecutor(_threads())
    try:
        work = lambda row: process(decode(pictures.source(row)), processing).numpy()  # noqa: E731
        results = _in_order(work, list(missing.values()), pool, 2 * _threads())
        for name, pixels in zip(missing, bar(results, total=len(missing), desc=progress, unit="picture")):
            finished.append((name, pixels))
            if len(finished) >= _COMMIT_PICTURES or time.monotonic() - last > _COMMIT_SECONDS:
                store.append(finished)
                finished, last = [], time.monotonic()
    finally:
        pool.shutdown(cancel_futures=True)
        if finished:
            store.append(finished)


class PictureStore:
    """Decoded pictures in memory, shared by all runs of a process, the least recently used dropped beyond the budget.

    Args:
        budget_bytes: how much may be kept.
    """

    def __init__(self, budget_bytes: int = PICTURE_BUDGET) -> None:
        self.budget_bytes = budget_bytes
        self.bytes = 0
        self._kept: OrderedDict[tuple, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self._told = False

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
            while self.bytes > self.budget_bytes and self._kept:
                _, dropped = self._kept.popitem(last=False)
                self.bytes -= dropped.nbytes
                if not self._told:
                    self._told = True
                    kept = f"{self.budget_bytes / 2**30:.1f} GiB"
                    say(f"training pictures exceed the {kept} kept in memory; some are decoded again when needed.")
        return tensor


class TrainingPixels:
    """Views of a dataset's rows for training, from pictures that are decoded once.

    Args:
        rows: the training rows of a config; repeated pictures share one decode.
        processing: as `processing_of` gives it.
        augmentation: `crop-flip`, a fresh random resized crop and flip each time; `fixed-views`, one of `views` such views that each
            picture has for good, whatever the run (so that a frozen trunk's outputs can be kept); `none`, the evaluation processing.
        views: views a picture, for `fixed-views`.
        budget_bytes: of a store of its own; what does not fit is decoded again when needed.
        store: decoded pictures to share with other runs, instead of a store of its own.
        device: where views are cut and returned; a GPU keeps the pictures in its own memory.
    """

    def __init__(
        self,
        rows: "datasets.Dataset",
        processing: Processing,
        *,
        augmentation: Literal["crop-flip", "fixed-views", "none"] = "crop-flip",
        views: int = 4,
        budget_bytes: int = PICTURE_BUDGET,
        store: PictureStore | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if augmentation not in ("crop-flip", "fixed-views", "none"):
            raise MedfmcError(f"augmentation is one of crop-flip, fixed-views, none; got {augmentation!r}.")
        if views < 1:
            raise MedfmcError(f"views is at least 1; got {views}.")
        self.processing, self.augmentation, self.views = processing, augmentation, views
        self.device = torch.device(device or "cpu")
        self.store = store if store is not None else PictureStore(budget_bytes)
        self._pictures = _Rows(rows)

    def __len__(self) -> int:
        return len(self._pictures)

    def warm(self, progress: str = "training pictures") -> None:
        """Decode every picture now, on several threads, so that the first epoch does not wait."""
        rows = list({identity: row for row, identity in enumerate(self._pictures.identities)}.values())
        keep = self._picture if self.augmentation == "crop-flip" else self._fixed
        with ThreadPoolExecutor(_threads()) as pool:
            for _ in bar(_in_order(keep, rows, pool, 2 * _threads()), total=len(rows), desc=progress, unit="picture"):
                pass

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """Views of some rows.

        Args:
            indices: row numbers; a row may come more than once.
            generator: CPU generator that all draws come from, in the order of `indices`.

        Returns:
            uint8, (B, C, height, width), C = 1 where all pictures are grey, else 3; on the device.
        """
        views = [self._view(row, generator) for row in np.asarray(indices, np.int64).tolist()]
        most = max(view.shape[0] for view in views)
        return torch.stack([view.expand(most, -1, -1) for view in views])

    def view(self, row: int, number: int) -> torch.Tensor:
        """A fixed view of a row, uint8 (C, height, width); `number` counts from 0 to `views - 1`."""
        return self._fixed(row)[number]

    def _view(self, row: int, generator: torch.Generator) -> torch.Tensor:
        if self.augmentation == "crop-flip":
            return crop_flip(self._picture(row), self.processing, generator)
        number = torch.randint(0, self.views, (1,), generator=generator).item() if self.augmentation == "fixed-views" else 0
        return self._fixed(row)[number]

    def _picture(self, row: int) -> torch.Tensor:
        """The whole picture, uint8 (C, H, W)."""

        def make() -> torch.Tensor:
            pixels = torch.from_numpy(np.array(decode(self._pictures.source(row))))
            return (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)).to(self.device)

        return self.store.get((self._pictures.identities[row], str(self.device)), make)

    def _fixed(self, row: int) -> torch.Tensor:
        """All the fixed views of a row, uint8 (views, C, height, width); for `none` the one view that evaluation sees."""
        name = self._pictures.identities[row]

        def make() -> torch.Tensor:
            if self.augmentation == "none":
                return process(decode(self._pictures.source(row)), self.processing)[None].to(self.device)
            picture, generator = self._picture(row), torch.Generator().manual_seed(int.from_bytes(name[:7], "big"))
            return torch.stack([crop_flip(picture, self.processing, generator) for _ in range(self.views)])

        kept = self.views if self.augmentation == "fixed-views" else 0
        return self.store.get((name, str(self.device), self.processing.geometry, kept), make)
