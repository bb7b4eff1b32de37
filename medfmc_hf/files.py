"""Atomic writing of files: a reader sees the old content or the new, never half of it."""

import hashlib
import json
import math
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write to, and rename it to `path` when the block succeeds.

    If the block raises (including Ctrl-C), the sibling is removed and `path` is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8 with LF line endings."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write `value` to `path` atomically, as indented JSON. NaN and infinity become null."""
    write_text(path, json.dumps(_json_value(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _json_value(value: Any) -> Any:
    """The value with null for NaN and infinity, and Python numbers for numpy's."""
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def names_for_paths(text: str) -> str:
    """Replace absolute paths in a text by their last components, for text that is published."""
    return re.sub(r"(?<![\w.:/])(?:/|[A-Za-z]:\\)[^\s,;:'\"()]+", lambda found: re.split(r"[\\/]", found[0].rstrip("/\\"))[-1], text)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Sync a file's content to disk; otherwise a power cut could leave an empty file with the new name."""
    with path.open("rb") as file:
        _fsync(file.fileno())


def sync_folder(folder: Path, *, files: bool = True) -> None:
    """Sync a folder's entries to disk, and with `files` everything below it."""
    if files:
        for path in folder.rglob("*"):
            if path.is_dir():
                sync_folder(path, files=False)
            else:
                sync(path)
    if os.name == "nt":  # Windows cannot sync folders
        return
    handle = os.open(folder, os.O_RDONLY)
    _fsync(handle)
    os.close(handle)


def _fsync(handle: int) -> None:
    with suppress(OSError):  # file systems without fsync
        os.fsync(handle)


def private_sibling(path: Path, use: str) -> Path:
    """A hidden sibling of `path` that no other process uses, with a name that contains the host and the process id.

    Args:
        path: path that will be replaced.
        use: purpose of the sibling, in one word.
    """
    return path.with_name(f".{path.name}.{use}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")


def private_siblings(path: Path, use: str) -> list[Path]:
    """The private siblings of `path` left by processes of this machine that no longer run."""
    start = f".{path.name}.{use}-{socket.gethostname()}-"
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.name.startswith(start)]
    except OSError:
        return []
    numbers = {name: name[len(start) :].split("-")[0] for name in sorted(names)}
    return [path.with_name(name) for name, process in numbers.items() if process.isdigit() and not is_running(int(process))]


def is_running(process: int) -> bool:
    """Whether a process of this machine is running."""
    if os.name == "nt":  # there, os.kill would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process of another user
        return True
    return True
