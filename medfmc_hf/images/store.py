"""The pixel cache: files of evaluation images at final size, which any process can read and extend, crash-safe and checksummed.

A store is a folder `<subset>-<geometry>-v<SCHEMA>/` of three files:

- `store.json`, a description of the store;
- `pixels.bin`, images one after another, each uint8 (C, height, width);
- `index.bin`, 40 bytes per image: identity, offset, channels, checksum of the pixels, and checksum of the preceding fields.

Both binary files are append-only. Pixels are written and synced before their index entry; the later of two entries of one image counts,
which is how a damaged image is replaced. A process that dies leaves at most bytes that no index entry points to. A lock keeps two
processes from doing the same work; if it does not work, images are stored twice and nothing worse happens. Readers take no lock.
"""

import json
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import xxhash
from filelock import FileLock, Timeout

from ..errors import MedfmcError
from ..files import sync, write_json
from ..progress import notify

SCHEMA = 2
_KIND = "medfmc_hf pixels"
_INDEX, _PIXELS, _STORE = "index.bin", "pixels.bin", "store.json"
_FILES = (_INDEX, _PIXELS, _STORE)  # in the order of removal
_RECORD = np.dtype([("identity", "V16"), ("offset", "<u8"), ("channels", "<u4"), ("sum", "<u8"), ("check", "<u4")])


class Place(NamedTuple):
    """Where a stored image is.

    Attributes:
        start: offset in `pixels.bin`, in bytes.
        channels: number of channels, 1 or 3.
        sum: checksum of its bytes.
    """

    start: int
    channels: int
    sum: int


def default_cache() -> Path:
    """`medfmc/pixels` in the Hugging Face home (`HF_HOME`, by default `~/.cache/huggingface`)."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "medfmc" / "pixels"


class PixelStore:
    """One store.

    Attributes:
        folder: folder of its files.
        height: height of its images, in pixels.
        width: width of its images, in pixels.
        where: identity of each stored image -> its `Place`, as of the last `refresh`.
    """

    def __init__(self, root: Path, subset: str, geometry: str, height: int, width: int) -> None:
        self.folder = root / f"{subset}-{geometry}-v{SCHEMA}"
        self.height, self.width = height, width
        self.where: dict[bytes, Place] = {}
        self._description = {"kind": _KIND, "schema": SCHEMA, "subset": subset, "geometry": geometry, "height": height, "width": width}
        self._read = 0  # bytes of the index read so far
        self._damaged: set[Place] = set()
        self.refresh()

    @property
    def lock_path(self) -> Path:
        """The lock of writers. It is outside the folder, so that it outlives a cleared store."""
        return _lock_path(self.folder)

    def refresh(self) -> None:
        """Read the index entries that were added since the last refresh. A store with another description counts as empty."""
        try:
            if not self._read and _read_description(self.folder / _STORE) != self._description:
                return
            with (self.folder / _INDEX).open("rb") as file:
                file.seek(self._read)
                data = file.read()
            size = (self.folder / _PIXELS).stat().st_size
        except FileNotFoundError:
            return
        records = np.frombuffer(data, _RECORD, count=len(data) // _RECORD.itemsize)
        self._read += len(records) * _RECORD.itemsize
        area = self.height * self.width
        # Entries damaged by a crash or the disk are skipped: their images will be stored again.
        records = records[(_check(records) == records["check"]) & (records["offset"] + records["channels"] * np.uint64(area) <= size)]
        places = map(Place, records["offset"].tolist(), records["channels"].tolist(), records["sum"].tolist())
        named = zip((bytes(name) for name in records["identity"]), places)
        self.where.update((name, place) for name, place in named if place not in self._damaged)

    def open(self) -> "Reader":
        """Open a reader of the stored images."""
        return Reader(self.folder / _PIXELS, self.height * self.width)

    def drop_damaged(self, identities: Sequence[bytes]) -> int:
        """Drop the given images that are damaged, so that they are stored again. Returns how many were.

        A process checks each image once.
        """
        reader, damaged = self.open(), 0
        for identity in dict.fromkeys(identities):
            if identity in self.where and not reader.is_sound(self.where[identity]):
                self._damaged.add(self.where.pop(identity))
                damaged += 1
        if damaged:
            notify(f"{damaged} of the stored images in {self.folder} are damaged, perhaps by the disk; they are processed again.")
        return damaged

    def prepare(self) -> None:
        """Create the folder, and read the index again from its start. The caller holds the lock.

        Raises:
            MedfmcError: the folder is of another version.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _STORE
        if not path.exists():
            write_json(path, self._description)
        elif _read_description(path) != self._description:
            raise MedfmcError(f"{self.folder} was not written by this version of medfmc_hf; move it away or use another pixel cache.")
        self.where, self._read = {}, 0
        self.refresh()

    def append(self, images: Sequence[tuple[bytes, np.ndarray]]) -> None:
        """Store images, durably. The caller holds the lock and has called `prepare`.

        Args:
            images: pairs of identity and pixels, uint8 (C, height, width).
        """
        if not images:
            return
        contents = [np.ascontiguousarray(pixels).data.cast("B") for _, pixels in images]
        start = _append(self.folder / _PIXELS, b"".join(contents))
        records = np.zeros(len(images), _RECORD)
        records["identity"] = np.frombuffer(b"".join(name for name, _ in images), "V16")
        records["channels"] = [pixels.shape[0] for _, pixels in images]
        records["offset"] = start + np.cumsum([0, *(len(content) for content in contents[:-1])])
        records["sum"] = [checksum(content) for content in contents]
        records["check"] = _check(records)
        _append(self.folder / _INDEX, records.tobytes(), align=_RECORD.itemsize)
        self.refresh()


class Reader:
    """Reads images from `pixels.bin`, from any thread, and verifies the checksum of each once per process.

    It does not map the file into memory, so that this process survives if another one truncates it.
    """

    _sound: ClassVar[dict[tuple, set[Place]]] = {}  # by file: places that this process has verified

    def __init__(self, path: Path, area: int) -> None:
        self._area, self._lock = area, threading.Lock()
        self._file = path.open("rb", buffering=0) if path.exists() else None  # nothing is stored yet
        if self._file is None:
            return
        status = os.fstat(self._file.fileno())
        self._compared = self._sound.setdefault((str(path.absolute()), status.st_dev, status.st_ino), set())

    def is_sound(self, place: Place) -> bool:
        """Whether the bytes of an image are those that were stored."""
        return self._file is not None and (place in self._compared or self.read(place) is not None)

    def read(self, place: Place) -> np.ndarray | None:
        """Read an image: uint8, (channels * height * width,), read-only. None if its bytes are not those that were stored."""
        size = place.channels * self._area
        content = b"" if self._file is None else self._at(self._file, place.start, size)
        if len(content) != size or (place not in self._compared and checksum(content) != place.sum):
            return None
        self._compared.add(place)
        return np.frombuffer(content, np.uint8)

    def forget(self) -> None:
        """Forget which images of this file were verified."""
        if self._file is not None:
            self._compared.clear()

    def _at(self, file: FileIO, start: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            content = os.pread(file.fileno(), size, start)
            while 0 < len(content) < size and (more := os.pread(file.fileno(), size - len(content), start + len(content))):
                content += more
            return content
        with self._lock:
            file.seek(start)
            return file.read(size)

    def __del__(self) -> None:
        if (file := getattr(self, "_file", None)) is not None:
            file.close()


def checksum(content: bytes | memoryview) -> int:
    """A 64-bit checksum, about ten times faster than a disk."""
    return xxhash.xxh3_64_intdigest(content)


def _append(path: Path, content: bytes, align: int = 1) -> int:
    """Append bytes to a file, sync them to disk, and return their offset.

    Args:
        path: file, created if it does not exist.
        content: bytes to append.
        align: alignment of the offset; a partial record left by a crash is padded with zeros.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666), "r+b", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        if end % align:
            file.write(bytes(align - end % align))
        view = memoryview(content)
        while view:  # one call, unless the system limits its size
            written = file.write(view)
            view = view[written:]
        end = file.tell()  # the actual end: another process may have appended in the meantime
    sync(path)
    return end - len(content)


def _check(records: np.ndarray) -> np.ndarray:
    """A checksum of each record, uint32; nonzero for a record of zeros, which a crash may leave."""
    words = np.ascontiguousarray(records).view("<u4").reshape(len(records), -1)[:, :-1]
    factors = [2654435761, 2246822519, 3266489917, 668265263, 374761393, 2869860233, 3624381081, 2146121005, 3042594569]
    return (words * np.array(factors, np.uint32)).sum(axis=1, dtype=np.uint32) + np.uint32(0x9E3779B9)


def _lock_path(folder: Path) -> Path:
    return folder.parent / ".locks" / f"{folder.name}.lock"


def _read_description(path: Path) -> dict | None:
    """The content of `store.json`, or None if it is not one of ours."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return description if isinstance(description, dict) and description.get("kind") == _KIND else None


@dataclass(frozen=True)
class StoreInfo:
    """What `medfmc cache` prints about a store.

    Attributes:
        folder: folder of the store.
        subset: subset key.
        geometry: size and interpolation, see `Processing.geometry`.
        images: number of stored images.
        bytes: size of its files, in bytes.
    """

    folder: Path
    subset: str
    geometry: str
    images: int
    bytes: int


def list_stores(root: Path) -> list[StoreInfo]:
    """The stores below `root`, by name; anything else there is ignored."""
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
                images=sizes.get(_INDEX, 0) // (_RECORD.itemsize if description.get("schema") == SCHEMA else 32),
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
    """Raise if a disk lacks space.

    Args:
        folder: folder to write to, which need not exist yet.
        needed: number of bytes to be written.

    Raises:
        MedfmcError: less than that and 64 MiB is free.
    """
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed + (64 << 20):
        raise MedfmcError(
            f"the pixels to store take about {needed / 1e9:.1f} GB and {existing} has {free / 1e9:.1f} GB free; "
            "free some space (`medfmc cache` lists what is stored), or choose another folder as the pixel cache."
        )
