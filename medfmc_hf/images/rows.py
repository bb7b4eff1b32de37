"""The images of a dataset's rows, undecoded: which are the same, and where each one is."""

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .decoding import decode, identity
from .grey_range import GreyRange

if TYPE_CHECKING:
    import datasets

_SLICE = 64  # embedded images that are in memory at once, and images that a thread asks for in one go
Item = TypeVar("Item")
Result = TypeVar("Result")


def image_sources(dataset: "datasets.Dataset") -> list[dict]:
    """Where each image is, in row order, undecoded: `{"bytes": None, "path": "/..."}` or, embedded, `{"bytes": b"...", "path": "name"}`.

    The bytes of embedded images come into memory: of a large dataset ask a slice at a time.
    """
    return dataset.select_columns(["image"]).with_format("arrow")[:]["image"].to_pylist()


class ImageRows:
    """Rows of a MedFMC config, seen as images.

    Args:
        rows: the rows.
        grey: the range of grey values of more than 8 bits, see `medfmc_hf.images.decoding.decode`.

    Attributes:
        identities: of each row, as `medfmc_hf.images.decoding.identity` gives it; rows that repeat an image have the same.
    """

    def __init__(self, rows: "datasets.Dataset", grey: GreyRange | None = None) -> None:
        self.identities: list[bytes] = []
        self.grey = grey
        self._rows = rows
        self._sources: list[dict | None] = []  # None: embedded, to be fetched again
        with ThreadPoolExecutor(threads()) as pool:  # network file systems answer slowly, and hashing frees the interpreter
            length = _SLICE
            while len(self.identities) < len(rows):
                start = len(self.identities)
                sources = image_sources(rows.select(range(start, min(start + length, len(rows)))))
                parts = [sources[part : part + _SLICE] for part in range(0, len(sources), _SLICE)]
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
        """The pixels of a row's image, as `medfmc_hf.images.decoding.decode` gives them."""
        return decode(self.source(row), self.grey)

    def distinct(self) -> dict[bytes, int]:
        """Each different image and a row that has it, in row order."""
        first: dict[bytes, int] = {}
        for row, name in enumerate(self.identities):
            first.setdefault(name, row)
        return first


def threads() -> int:
    """Threads to decode on: Pillow frees the interpreter, so threads are as good as processes. At least 2, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return max(2, min(cores, 16))


def in_order(work: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
    """`map(work, items)` on several threads, with few results in memory; what was not begun is dropped when the reader stops."""
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
