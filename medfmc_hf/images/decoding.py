"""The image of a dataset row: its identity and its decoded pixels. Every decode in the package happens and is counted here."""

import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..errors import MedfmcError
from .grey_range import FULL, GreyRange, deep_values, is_deep, refuse_deep_colours
from .unreadable import UNREADABLE, reason

# Part of every identity. Increase it when `decode` gives other pixels for the same file, so that no cache is stale.
DECODING = b"1"


class Counter:
    """Counts decoded images, from any thread. Tests use it to check that a sweep decodes each image once."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            self.count += 1

    def reset(self) -> None:
        with self._lock:
            self.count = 0


decodes = Counter()


def identity(source: Mapping, grey: GreyRange | None = None, sha256: str | None = None) -> bytes:
    """What makes two decoded images the same, without decoding: 16 bytes.

    A linked image is identified by its absolute path, size in bytes and modification time (ns), so that a file that is replaced or edited
    is another image, at the cost of one `stat`. An embedded image is identified by a digest of its bytes, wherever it is stored.

    Args:
        source: `{"bytes": ..., "path": ...}` as an undecoded `datasets` image column has it.
        grey: the range of the data set, see `decode`.
        sha256: digest of the file from when the data set was built, which then identifies the image, wherever and in whatever form it is.

    Raises:
        MedfmcError: the file is missing.
    """
    data = source["bytes"]
    decoding = DECODING if grey in (None, FULL) else DECODING + repr(grey).encode()
    if sha256 is not None:
        return hashlib.sha256(decoding + b"sha256" + sha256.encode()).digest()[:16]
    if data is not None:
        digest = hashlib.sha256(decoding + b"bytes")
        digest.update(data)
        return digest.digest()[:16]
    path = _path(source)
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib takes three times as long, and a sweep calls this hundreds of thousands of times
    except FileNotFoundError:
        raise MedfmcError(f"the image {path} is not there; if the download was moved, build the dataset again (medfmc build).") from None
    except OSError as error:
        raise MedfmcError(f"the image {reason(path, None, error)}.") from None
    text = f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}"  # noqa: PTH100
    return hashlib.sha256(decoding + b"path" + text.encode("utf-8", "surrogateescape")).digest()[:16]


def decode(source: Mapping, grey: GreyRange | None = None) -> np.ndarray:
    """The pixels of an image, upright.

    As the `Image` feature of `datasets` does, an image with an EXIF orientation is turned upright. Unlike it, the result is always 8 bits
    and has one or three channels: black-and-white and grey images stay (H, W); grey of more than 8 bits is scaled from the data set's
    range to 0..255, rounded (`convert("L")` of Pillow would clip or truncate it); an alpha channel is dropped; palettes, CMYK,
    YCbCr and HSV become RGB by Pillow's conversion.

    Args:
        source: `{"bytes": ..., "path": ...}`.
        grey: the range of grey values of more than 8 bits; None where the data set has none, or does not say.

    Returns:
        uint8, (H, W) or (H, W, 3), read-only.

    Raises:
        MedfmcError: the file is missing, truncated, no image, of a kind with no obvious 8-bit form, or of values outside `grey`.
    """
    data = source["bytes"]
    name = source.get("path") or "an embedded image"
    try:
        with Image.open(io.BytesIO(data) if data is not None else _regular(_path(source))) as image:
            pixels = eight_bits(image, name, grey)
    except MedfmcError:
        raise
    except UNREADABLE as error:
        raise MedfmcError(f"the image {reason(name, data, error)}.") from None
    decodes.add()
    return pixels


def eight_bits(image: Image.Image, name: str, grey: GreyRange | None) -> np.ndarray:
    """The pixels of an open image, as `decode` gives them.

    Args:
        image: not yet loaded where it is a file, since only then it shows colours of 16 bits.
        name: of it, for errors.
        grey: see `decode`.

    Raises:
        MedfmcError: its pixels have no obvious 8-bit form, or are outside `grey`.
    """
    with _of_image(name):
        refuse_deep_colours(image)
    _load(image)
    if image.getexif().get(ExifTags.Base.Orientation) is not None:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("L", "RGB"):
        return np.asarray(image)
    if is_deep(image):
        if grey is None:
            raise MedfmcError(
                f"{name} has grey values of more than 8 bits, and its data set does not say which of them is white, for its own images "
                "have 8 bits or it could not be read; convert it to 8 bits."
            )
        with _of_image(name):
            values = deep_values(image)
        return grey.eight_bits(values, name)
    if image.mode in ("1", "LA", "La"):
        return np.asarray(image.convert("L"))
    if image.mode in ("P", "PA", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"):
        return np.asarray((image.convert("RGBA") if image.mode in ("PA", "RGBa") else image).convert("RGB"))
    raise MedfmcError(f"{name} has pixels of mode {image.mode!r}, which have no 8-bit form; convert it to PNG.")


@contextmanager
def _of_image(name: str) -> Iterator[None]:
    """Put an image's name before what is wrong with it."""
    try:
        yield
    except MedfmcError as error:
        raise MedfmcError(f"{name} {error}.") from None


def _load(image: Image.Image) -> None:
    """Read the pixels. Of a TIFF that is mapped into memory Pillow drops the orientation without heeding it, and it maps by file name."""
    if image.format != "TIFF":
        image.load()
        return
    tiff: Any = image
    name, tiff.filename = tiff.filename, ""
    try:
        tiff.load()
    finally:
        tiff.filename = name


def channels(source: Mapping) -> int:
    """1 for grey or 3 for RGB, from the file's header alone; 3 if it cannot be read (`decode` reports why)."""
    try:
        with Image.open(io.BytesIO(source["bytes"]) if source["bytes"] is not None else _path(source)) as image:
            return 1 if image.mode in ("1", "L", "LA") or is_deep(image) else 3
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, MedfmcError):
        return 3


def _regular(path: str) -> str:
    """The path, unless opening it would wait for somebody to write, as a named pipe does."""
    if (place := Path(path)).exists() and not place.is_file() and not place.is_dir():
        raise OSError("it is no regular file")
    return path


def _path(source: Mapping) -> str:
    if not source["path"]:
        raise MedfmcError("a row of the dataset has neither the bytes nor the path of its image; build the dataset again (medfmc build).")
    return source["path"]
