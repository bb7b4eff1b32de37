"""The images of a dataset's rows, undecoded: their identities and sources."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import MedfmcError
from .decoding import decode, identity
from .grey_range import GreyRange

if TYPE_CHECKING:
    import datasets

_SLICE = 64  # embedded images that are in memory at once, and images that a thread identifies at a time
Item = TypeVar("Item")
Result = TypeVar("Result")


def image_sources(dataset: "datasets.Dataset") -> list[dict]:
    """Undecoded sources of the images, in row order: `{"bytes": None, "path": "/..."}` or, embedded, `{"bytes": b"...", "path": "name"}`.

    The bytes of embedded images are loaded into memory: pass a large dataset a slice at a time.
    """
    return dataset.select_columns(["image"]).with_format("arrow")[:]["image"].to_pylist()


def image_digests(dataset: "datasets.Dataset") -> list[str] | None:
    """SHA-256 (hex) of each image's file from when the data set was built, in row order; None where the data set holds none."""
    if "image_sha256" not in dataset.features:
        return None
    return dataset.select_columns(["image_sha256"]).with_format("arrow")[:]["image_sha256"].to_pylist()


def as_built(source: dict, sha256: str) -> dict:
    """A source with its bytes, which decoding reads anyway, and which are those of this digest.

    Raises:
        MedfmcError: they are others.
    """
    path, content = source["path"], source["bytes"]
    if content is None:
        if not Path(path).is_file():
            return source  # decoding says why
        try:
            content = Path(path).read_bytes()
        except OSError:
            return source
    if hashlib.sha256(content).hexdigest() != sha256:
        raise MedfmcError(
            f"the image {path} is not the one that the data set was built from: its SHA-256 is another. Build the data set again "
            "(medfmc build), so that runs on it are told from earlier ones."
        )
    return {"bytes": content, "path": path}


class ImageRows:
    """The images of rows of a MedFMC config.

    Args:
        rows: the rows.
        grey: the range of grey values of more than 8 bits, see `medfmc_hf.images.decoding.decode`.

    Attributes:
        identities: identity of each row's image, from `medfmc_hf.images.decoding.identity`; rows that repeat an image share it.
    """

    def __init__(self, rows: "datasets.Dataset", grey: GreyRange | None = None) -> None:
        self.identities: list[bytes] = []
        self.grey = grey
        self._rows = rows
        self._sources: list[dict | None] = []  # None: embedded, read again when needed
        self._sha256 = image_digests(rows)
        with ThreadPoolExecutor(threads()) as pool:  # network file systems are slow, and hashing releases the GIL
            length = _SLICE
            while len(self.identities) < len(rows):
                start = len(self.identities)
                sources = image_sources(rows.select(range(start, min(start + length, len(rows)))))
                parts = [sources[part : part + _SLICE] for part in range(0, len(sources), _SLICE)]
                if self._sha256 is not None:
                    self.identities += [identity(source, grey, self._sha256[row]) for row, source in enumerate(sources, start)]
                    parts = []
                for part in pool.map(lambda part: [identity(source, grey) for source in part], parts):
                    self.identities += part
                self._sources += [source if source["bytes"] is None else None for source in sources]
                length = _SLICE if None in self._sources else 100 * _SLICE

    def __len__(self) -> int:
        return len(self.identities)

    def source(self, row: int) -> dict:
        """`{"bytes": ..., "path": ...}` of a row."""
        return self._sources[row] or image_sources(self._rows.select([row]))[0]

    def decode(self, row: int) -> np.ndarray:
        """The pixels of a row's image, as `medfmc_hf.images.decoding.decode` gives them.

        Raises:
            MedfmcError: as `decode` does; or the image is not the one that the data set was built from.
        """
        source = self.source(row)
        return decode(source if self._sha256 is None else as_built(source, self._sha256[row]), self.grey)

    def distinct(self) -> dict[bytes, int]:
        """The distinct images, each with its first row, in row order."""
        first: dict[bytes, int] = {}
        for row, name in enumerate(self.identities):
            first.setdefault(name, row)
        return first


def threads() -> int:
    """Number of decoding threads, 2 to 16; Pillow releases the GIL, so threads are as good as processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return max(2, min(cores, 16))


def in_order(work: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
    """`map(work, items)` on several threads, with few results in memory; items not started are dropped when the reader stops."""
    pool = ThreadPoolExecutor(threads())
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 2 * threads():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
