"""The files that hold evaluation pictures at final size: found by any process, grown by one at a time, safe to kill.

A store is a folder `<subset>-<geometry>/` of three files:

- `store.json`, which says what it is;
- `pixels.bin`, pictures one after another, each uint8 (C, height, width);
- `index.bin`, 32 bytes a picture: its identity, where it starts, its channels, and a checksum of these.

Pixels are written and synced before the index names them, so that whatever the index names is whole. A process that dies leaves at
most some bytes that no index names; the next one writes over them. Readers take no lock.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import MedfmcError
from ..files import write_json

SCHEMA = 1
_KIND = "medfmc_hf pixels"
_FILES = ("index.bin", "pixels.bin", "store.json")
_RECORD = np.dtype([("identity", "V16"), ("offset", "<u8"), ("channels", "<u4"), ("check", "<u4")])


def default_cache() -> Path:
    """`medfmc/pixels` in the Hugging Face home (`HF_HOME`, by default `~/.cache/huggingface`)."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "medfmc" / "pixels"


class PixelStore:
    """One store.

    Attributes:
        folder: where its files are.
        where: identity of a stored picture to (first byte in `pixels.bin`, channels), as of the last `refresh`.
    """

    def __init__(self, root: Path, subset: str, geometry: str, height: int, width: int) -> None:
        self.folder = root / f"{subset}-{geometry}"
        self.description = {"kind": _KIND, "schema": SCHEMA, "subset": subset, "geometry": geometry, "height": height, "width": width}
        self.where: dict[bytes, tuple[int, int]] = {}
        self._area = height * width
        self._read = 0  # records
        self._end = 0  # bytes of pixels.bin that the index names
        self.refresh()

    @property
    def lock_path(self) -> Path:
        """Beside the folder, so that the lock outlives a cleared store."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    def refresh(self) -> None:
        """Learn of the pictures that other processes stored since."""
        try:
            with (self.folder / "index.bin").open("rb") as file:
                file.seek(self._read * _RECORD.itemsize)
                data = file.read()
        except FileNotFoundError:
            self.where, self._read, self._end = {}, 0, 0
            return
        records = np.frombuffer(data, _RECORD, count=len(data) // _RECORD.itemsize)
        for record in records:
            if _check(record) != record["check"]:
                break  # torn by a crash: what follows will be written again
            offset, channels = int(record["offset"]), int(record["channels"])
            self.where[record["identity"].tobytes()] = (offset, channels)
            self._end = max(self._end, offset + channels * self._area)
            self._read += 1

    def open(self) -> np.ndarray:
        """All stored pixels, uint8, flat, mapped from the file and not read."""
        path = self.folder / "pixels.bin"
        return np.memmap(path, np.uint8, "r") if self.where else np.empty(0, np.uint8)

    def prepare(self) -> None:
        """Make the folder. The caller holds the lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "store.json"
        if not path.exists():
            write_json(path, self.description)
        elif json.loads(path.read_text(encoding="utf-8")) != self.description:
            raise MedfmcError(f"{self.folder} was written by another version of medfmc_hf; remove it with `medfmc cache clear`.")
        self.refresh()

    def append(self, pictures: Iterable[tuple[bytes, np.ndarray]]) -> None:
        """Store pictures, durably. The caller holds the lock and has called `prepare`.

        Args:
            pictures: (identity, uint8 (C, height, width)).
        """
        records, end = [], self._end
        with (self.folder / "pixels.bin").open("r+b" if (self.folder / "pixels.bin").exists() else "w+b") as file:
            file.seek(end)
            for identity, pixels in pictures:
                file.write(np.ascontiguousarray(pixels).data)
                record = np.zeros((), _RECORD)
                record["identity"], record["offset"], record["channels"] = np.void(identity), end, pixels.shape[0]
                record["check"] = _check(record)
                records.append(record)
                end += pixels.size
            file.flush()
            os.fsync(file.fileno())
        with (self.folder / "index.bin").open("r+b" if (self.folder / "index.bin").exists() else "w+b") as file:
            file.seek(self._read * _RECORD.itemsize)
            file.write(np.array(records, _RECORD).tobytes())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self.refresh()


def _check(record: np.ndarray) -> int:
    return zlib.crc32(record.tobytes()[:28])


@dataclass(frozen=True)
class StoreInfo:
    """What `medfmc cache` tells of a store.

    Attributes:
        folder: where it is.
        subset: subset key.
        geometry: size and interpolation, as `Processing.geometry` writes them.
        pictures: stored pictures.
        bytes: of its files.
    """

    folder: Path
    subset: str
    geometry: str
    pictures: int
    bytes: int


def list_stores(root: Path) -> list[StoreInfo]:
    """The stores below `root`, by name; whatever else is there is passed over."""
    found = []
    for path in sorted(root.glob("*/store.json")):
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(description, dict) or description.get("kind") != _KIND:
            continue
        files = {name: path.with_name(name) for name in _FILES}
        size = {name: file.stat().st_size for name, file in files.items() if file.exists()}
        pictures = size.get("index.bin", 0) // _RECORD.itemsize
        found.append(StoreInfo(path.parent, str(description.get("subset")), str(description.get("geometry")), pictures, sum(size.values())))
    return found


def clear_store(store: StoreInfo) -> None:
    """Remove a store's own files, and its folder if nothing else is in it.

    Raises:
        MedfmcError: a process is writing to it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(f"{store.folder}.lock", timeout=0):
            for name in _FILES:
                (store.folder / name).unlink(missing_ok=True)
            if not any(store.folder.iterdir()):
                store.folder.rmdir()
    except Timeout:
        raise MedfmcError(f"another process is writing to {store.folder}; wait for it or stop it, then clear again.") from None


def check_disk(folder: Path, needed: int) -> None:
    """Raise before a disk is filled.

    Args:
        folder: where, whether it exists yet or not.
        needed: bytes that are about to be written.
    """
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed + (64 << 20):
        raise MedfmcError(
            f"the pixels to store take about {needed / 1e9:.1f} GB and {existing} has {free / 1e9:.1f} GB free; "
            "free some space (`medfmc cache` lists what is stored), or name another folder as the pixel cache."
        )
