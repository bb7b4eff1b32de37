"""The files that hold evaluation images at final size: found by any process, grown by any, safe to kill, checked when read.

A store is a folder `<subset>-<geometry>-v<SCHEMA>/` of three files:

- `store.json`, which says what it is;
- `pixels.bin`, images one after another, each uint8 (C, height, width);
- `index.bin`, 40 bytes an image: its identity, where it starts, its channels, a checksum of its pixels, and a checksum of these.

Both files are only ever appended to. Pixels are written and synced before the index names them; of two entries of one image the later
counts, which is how a damaged image is replaced. A process that dies leaves at most some bytes that no index names. A lock keeps two
processes from doing the same work; where it excludes nobody, images are stored twice and nothing else happens. Readers take no lock.
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
_FILES = (_INDEX, _PIXELS, _STORE)  # in the order in which they are removed
_RECORD = np.dtype([("identity", "V16"), ("offset", "<u8"), ("channels", "<u4"), ("sum", "<u8"), ("check", "<u4")])


class Place(NamedTuple):
    """Where a stored image is.

    Attributes:
        start: first byte in `pixels.bin`.
        channels: 1 or 3.
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
        folder: where its files are.
        height: rows of its images, in pixels.
        width: columns of its images, in pixels.
        where: identity of a stored image to its `Place`, as of the last `refresh`.
    """

    def __init__(self, root: Path, subset: str, geometry: str, height: int, width: int) -> None:
        self.folder = root / f"{subset}-{geometry}-v{SCHEMA}"
        self.height, self.width = height, width
        self.where: dict[bytes, Place] = {}
        self._description = {"kind": _KIND, "schema": SCHEMA, "subset": subset, "geometry": geometry, "height": height, "width": width}
        self._read = 0  # bytes of the index
        self._damaged: set[Place] = set()
        self.refresh()

    @property
    def lock_path(self) -> Path:
        """Who holds this lock may work for the store. It lies outside the folder, so that it outlives a cleared store."""
        return _lock_path(self.folder)

    def refresh(self) -> None:
        """Learn of the images that other processes have stored since. A store of another description has none."""
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
        # What a crash tore, or a disk spoilt, is passed over: its images will be stored again.
        records = records[(_check(records) == records["check"]) & (records["offset"] + records["channels"] * np.uint64(area) <= size)]
        places = map(Place, records["offset"].tolist(), records["channels"].tolist(), records["sum"].tolist())
        named = zip((bytes(name) for name in records["identity"]), places)
        self.where.update((name, place) for name, place in named if place not in self._damaged)

    def open(self) -> "Reader":
        """What reads stored images."""
        return Reader(self.folder / _PIXELS, self.height * self.width)

    def drop_damaged(self, identities: Sequence[bytes]) -> int:
        """Forget those of some images whose bytes are not what was stored, so that they are stored again. Returns how many that are.

        A process reads each through once.
        """
        reader, damaged = self.open(), 0
        for identity in dict.fromkeys(identities):
            if identity in self.where and not reader.is_sound(self.where[identity]):
                self._damaged.add(self.where.pop(identity))
                damaged += 1
        if damaged:
            notify(f"{damaged} of the stored images in {self.folder} are damaged, perhaps by the disk; they are made again.")
        return damaged

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
        self.where, self._read = {}, 0
        self.refresh()

    def append(self, images: Sequence[tuple[bytes, np.ndarray]]) -> None:
        """Store images, durably. The caller holds the lock and has called `prepare`.

        Args:
            images: (identity, uint8 (C, height, width)).
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
    """Reads images out of `pixels.bin`, from any thread, and compares the bytes of each with what was stored, once in a process.

    It reads and does not map: what another process does to the file is then an answer, and not the end of this process.
    """

    _sound: ClassVar[dict[tuple, set[Place]]] = {}  # by file: places that this process has compared

    def __init__(self, path: Path, area: int) -> None:
        self._area, self._lock = area, threading.Lock()
        self._file = path.open("rb", buffering=0) if path.exists() else None  # nothing is stored yet
        if self._file is None:
            return
        status = os.fstat(self._file.fileno())
        self._compared = self._sound.setdefault((str(path.absolute()), status.st_dev, status.st_ino), set())

    def is_sound(self, place: Place) -> bool:
        """Whether the bytes of an image are what was stored."""
        return self._file is not None and (place in self._compared or self.read(place) is not None)

    def read(self, place: Place) -> np.ndarray | None:
        """The bytes of an image: uint8, (channels * height * width,), not to be written to. None if they are not what was stored."""
        size = place.channels * self._area
        content = b"" if self._file is None else self._at(self._file, place.start, size)
        if len(content) != size or (place not in self._compared and checksum(content) != place.sum):
            return None
        self._compared.add(place)
        return np.frombuffer(content, np.uint8)

    def forget(self) -> None:
        """Forget which images of this file were compared."""
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
    """A 64-bit checksum, some ten times faster than a disk."""
    return xxhash.xxh3_64_intdigest(content)


def _append(path: Path, content: bytes, align: int = 1) -> int:
    """Add bytes at the end of a file, wait until they are on disk, and return where they begin.

    Args:
        path: the file; made if it is not there.
        content: what to add.
        align: the bytes begin at a multiple of this; what a crash left of a shorter piece is filled up with zeros.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666), "r+b", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        if end % align:
            file.write(bytes(align - end % align))
        view = memoryview(content)
        while view:  # one call, but for the sizes that a system limits
            written = file.write(view)
            view = view[written:]
        end = file.tell()  # where the system put it: another process may have added to the file meanwhile
    sync(path)
    return end - len(content)


def _check(records: np.ndarray) -> np.ndarray:
    """A checksum of each record, uint32; not 0 for a record of zeros, which a crash may leave."""
    words = np.ascontiguousarray(records).view("<u4").reshape(len(records), -1)[:, :-1]
    factors = [2654435761, 2246822519, 3266489917, 668265263, 374761393, 2869860233, 3624381081, 2146121005, 3042594569]
    return (words * np.array(factors, np.uint32)).sum(axis=1, dtype=np.uint32) + np.uint32(0x9E3779B9)


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
        images: stored images.
        bytes: of its files.
    """

    folder: Path
    subset: str
    geometry: str
    images: int
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
