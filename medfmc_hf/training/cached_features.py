"""What a frozen network computes of an image, computed once for each image and cached on disk: features, and outputs of frozen blocks."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock

from ..errors import MedfmcError
from ..images.processing import Processing, normalise
from ..images.store import PixelStore, check_disk
from ..progress import bar

Network = Callable[[torch.Tensor], torch.Tensor]


class IdentifiedImages(Protocol):
    """Rows of uint8 pixels, (B, C, height, width), and what image each is."""

    @property
    def identities(self) -> Sequence[bytes]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Any) -> torch.Tensor: ...


def batch_size(device: torch.device) -> int:
    """Images a batch; the last one is padded.

    What is cached of an image must not depend on which others were computed with it. A matrix product of another size may round otherwise,
    so batches are of one size; and on a CPU the place of a row in it matters too, so there each image goes alone, which costs a tenth.
    """
    return 64 if device.type == "cuda" else 1


class CachedRows:
    """Rows of numbers on disk: `cached[rows]` is float32 (B, *shape), a copy in memory; `len(cached)` is the number of rows."""

    def __init__(self, store: PixelStore, identities: Sequence[bytes], shape: tuple[int, ...]) -> None:
        self._store, self._reader, self._shape = store, store.open(), shape
        self._places = [store.where[identity] for identity in identities]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: Any) -> torch.Tensor:
        chosen = range(len(self))[rows] if isinstance(rows, slice) else np.atleast_1d(np.asarray(rows)).tolist()
        batch = np.empty((len(chosen), 4 * int(np.prod(self._shape))), np.uint8)
        for place, row in zip(batch, chosen):
            stored = self._reader.read(self._places[row])
            if stored is None:  # they were whole when the run began, see `cache_rows`
                raise MedfmcError(f"what is cached in {self._store.folder} has changed while it was read; check the disk, and run again.")
            place[:] = stored
        return torch.from_numpy(batch.view(np.float32).reshape(len(chosen), *self._shape))


def cache_rows(
    network: Network,
    shape: tuple[int, ...],
    parts: Sequence[IdentifiedImages],
    process: Processing,
    *,
    root: Path,
    subset: str,
    key: Sequence[str],
    what: str,
    device: torch.device,
) -> list[CachedRows]:
    """Compute what is missing and give what is cached of every row of every part.

    Only one process computes for a store at a time; the others wait and find its results. A kill loses 32 images at most (a GPU's: 64).

    Args:
        network: float32 (B, 3, height, width) on the device -> float (B, *shape). It must treat every image of a batch alone.
        shape: of one result.
        parts: the images, such as one part a split.
        process: how pixels are normalised for the network.
        root: folder of the stores.
        subset: subset key, for the name of the store.
        key: all else that determines the results: fingerprint of the backbone, depth, precision, library version.
        what: one word for the results.
        device: where the network is.
    """
    digest = hashlib.sha256(repr((process.key(), device.type, *key)).encode()).hexdigest()[:16]
    # One result is stored as the bytes of its numbers, in the store that also holds pixels: found, listed, cleared and repaired alike.
    store = PixelStore(root, subset, f"{what}-{digest}", 1, 4 * int(np.prod(shape)))
    store.drop_damaged([identity for part in parts for identity in part.identities])
    if _missing(store, parts):
        store.lock_path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(store.lock_path):
            store.prepare()
            _fill(store, network, parts, process, what, device)
    return [CachedRows(store, part.identities, shape) for part in parts]


def _missing(store: PixelStore, parts: Sequence[IdentifiedImages]) -> dict[bytes, tuple[int, int]]:
    """Identity to (part, row), of the distinct images that the store lacks."""
    missing: dict[bytes, tuple[int, int]] = {}
    for number, part in enumerate(parts):
        for row, identity in enumerate(part.identities):
            if identity not in store.where:
                missing.setdefault(identity, (number, row))
    return missing


@torch.inference_mode()
def _fill(
    store: PixelStore, network: Network, parts: Sequence[IdentifiedImages], process: Processing, what: str, device: torch.device
) -> None:
    missing, size = _missing(store, parts), batch_size(device)
    commit = max(size, 32)  # images that a kill can cost
    check_disk(store.folder, len(missing) * store.width)
    names = list(missing)
    done: list[tuple[bytes, np.ndarray]] = []
    try:
        for start in bar(range(0, len(names), size), desc=f"{what} of {len(names)} images", unit="batch"):
            batch = names[start : start + size]
            images = [normalise(parts[part][[row]], process, device=device) for part, row in (missing[name] for name in batch)]
            padded = torch.cat([*images, *[images[0]] * (size - len(images))])
            results = network(padded)[: len(batch)].float().cpu().numpy()
            done += [(name, np.ascontiguousarray(row).view(np.uint8).reshape(1, 1, -1)) for name, row in zip(batch, results)]
            if len(done) >= commit:
                store.append(done)
                done = []
    finally:
        store.append(done)
