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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from ..errors import MedfmcError
from ..files import write_json

SCHEMA = 1
_KIND = "medfmc_hf pixels"
_INDEX, _PIXELS, _STORE = "index.bin", "pixels.bin", "store.json"
_FILES = (_INDEX, _PIXELS, _STORE)  # in the order in which they are removed
_RECORD = np.dtype([("identity", "V16"), ("offset", "<u8"), ("channels", "<u4"), ("check", "<u4")])


def default_cache() -> Path:
    """`medfmc/pixels` in the Hugging Face home (`HF_HOME`, by default `~/.cache/huggingface`)."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "medfmc" / "pixels"


class PixelStore:
    """One store.

    Attributes:
        folder: where its files are.
        height: rows of its pictures, in pixels.
        width: columns of its pictures, in pixels.
        where: identity of a stored picture to (first byte in `pixels.bin`, channels), as of the last `refresh`.
    """

    def __init__(self, root: Path, subset: str, geometry: str, height: int, width: int) -> None:
        self.folder = root / f"{subset}-{geometry}"
        self.height, self.width = height, width
        self.where: dict[bytes, tuple[int, int]] = {}
        self._description = {"kind": _KIND, "schema": SCHEMA, "subset": subset, "geometry": geometry, "height": height, "width": width}
        self._records = 0  # of the index that were read
        self._end = 0  # bytes of pixels.bin that they name
        self.refresh()

    @property
    def lock_path(self) -> Path:
        """Who holds this lock may write. It lies outside the folder, so that it outlives a cleared store."""
        return _lock_path(self.folder)

    def refresh(self) -> None:
        """Learn of the pictures that other processes have stored since."""
        try:
            with (self.folder / _INDEX).open("rb") as file:
                file.seek(self._records * _RECORD.itemsize)
                data = file.read()
            size = (self.folder / _PIXELS).stat().st_size
        except FileNotFoundError:
            return
        records = np.frombuffer(data, _RECORD, count=len(data) // _RECORD.itemsize)
        area = self.height * self.width
        whole = (_check(records) == records["check"]) & (records["offset"] + records["channels"] * np.uint64(area) <= size)
        records = records[: len(records) if whole.all() else int(whole.argmin())]  # what a crash tore will be written again
        offsets, depths = records["offset"].tolist(), records["channels"].tolist()
        self.where.update(zip((bytes(name) for name in records["identity"]), zip(offsets, depths)))
        self._records += len(records)
        if offsets:
            self._end = offsets[-1] + depths[-1] * area

    def open(self) -> np.ndarray:
        """All stored pixels, uint8, flat, mapped and not read."""
        return np.memmap(self.folder / _PIXELS, np.uint8, "r") if self.where else np.empty(0, np.uint8)

    def prepare(self) -> None:
        """Make the folder, and read the index anew. The caller holds the lock.

        Raises:
            MedfmcError: the folder is of another version.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _STORE
        if not path.exists():
            write_json(path, self._description)
        elif _read_description(path) != self._description:
            raise MedfmcError(f"{self.folder} was not written by this version of medfmc_hf; move it away or use another pixel cache.")
        self.where, self._records, self._end = {}, 0, 0
        self.refresh()

    def append(self, pictures: Sequence[tuple[bytes, np.ndarray]]) -> None:
        """Store pictures, durably. The caller holds the lock and has called `prepare`.

        Args:
            pictures: (identity, uint8 (C, height, width)).
        """
        if not pictures:
            return
        records = np.zeros(len(pictures), _RECORD)
        sizes = [pixels.size for _, pixels in pictures]
        records["identity"] = np.frombuffer(b"".join(name for name, _ in pictures), "V16")
        records["channels"] = [pixels.shape[0] for _, pixels in pictures]
        records["offset"] = self._end + np.cumsum([0, *sizes[:-1]])
        records["check"] = _check(records)
        _write_at(self.folder / _PIXELS, self._end, (np.ascontiguousarray(pixels).data for _, pixels in pictures))
        _write_at(self.folder / _INDEX, self._records * _RECORD.itemsize, [records.tobytes()])
        self.refresh()


def _write_at(path: Path, position: int, chunks: Iterable[bytes | memoryview]) -> None:
    """Overwrite a file from a position on, cut it off behind, and wait until it is on disk."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b") as file:
        file.seek(position)
        for chunk in chunks:
            file.write(chunk)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _check(records: np.ndarray) -> np.ndarray:
    """A checksum of each record, uint32; not 0 for a record of zeros, which a crash may leave."""
    words = np.ascontiguousarray(records).view("<u4").reshape(len(records), 8)[:, :7]
    factors = np.array([2654435761, 2246822519, 3266489917, 668265263, 374761393, 2869860233, 3624381081], np.uint32)
    return (words * factors).sum(axis=1, dtype=np.uint32) + np.uint32(0x9E3779B9)


def _lock_path(folder: Path) -> Path:
    return folder.parent / ".locks" / f"{folder.name}.lock"


def _read_description(path: Path) -> dict | None:
    """What `store.json` says, if it is one of ours."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return description if isinstance(description, dict) and description.get("kind") == _KIND else None


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
    for path in sorted(root.glob(f"*/{_STORE}")):
        description = _read_description(path)
        if description is None:
            continue
        sizes = {name: (path.parent / name).stat().st_size for name in _FILES if (path.parent / name).exists()}
        found.append(
            StoreInfo(
                folder=path.parent,
                subset=str(description.get("subset")),
                geometry=str(description.get("geometry")),
                pictures=sizes.get(_INDEX, 0) // _RECORD.itemsize,
                bytes=sum(sizes.values()),
            )
        )
    return found


def clear_store(store: StoreInfo) -> None:
    """Remove a store's own files, and its folder if nothing else is in it.

    Raises:
        MedfmcError: another process is writing to it, or a file cannot be removed.
    """
    lock = _lock_path(store.folder)
    try:
        lock.parent.mkdir(exist_ok=True)
        with FileLock(lock, timeout=0):
            for name in _FILES:
                (store.folder / name).unlink(missing_ok=True)
            if not any(store.folder.iterdir()):
                store.folder.rmdir()
    except Timeout:
        raise MedfmcError(f"another process is writing to {store.folder}; wait for it or stop it, then clear again.") from None
    except OSError as error:
        raise MedfmcError(f"{store.folder} cannot be cleared ({error.strerror or error}).") from None


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
