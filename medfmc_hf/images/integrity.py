"""Reads an image file once, checks that it is not empty, truncated or something other than an image, and hashes it."""

import hashlib
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from ..errors import MedfmcError
from ..progress import bar
from .grey_range import Depth, GreyRange, depth_of, is_deep, refuse_deep_colours

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


class Inspected(NamedTuple):
    """The result of reading an image file.

    Attributes:
        damage: what is wrong with it; None if nothing was found.
        sha256: of its bytes, in hex; empty where it cannot be read.
        depth: of an image with more than 8 bits; None for others.
    """

    damage: str | None
    sha256: str
    depth: Depth | None = None


def inspect(path: str, window: GreyRange | None = None) -> Inspected:
    """Read a file and look whether it is a whole image. One of more than 8 bits is decoded, and others are not.

    Caught in every PNG and JPEG: an empty or unreadable file, another kind of file under an image's name (a web page, a Git LFS pointer),
    and an end that is missing; in a PNG also every changed byte, by Pillow's `verify`. Not caught: changed bytes inside a JPEG, and an
    image that no decoder likes for another reason.

    Args:
        path: of the file.
        window: the range of grey values of more than 8 bits that a person chose; None for none.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        return Inspected(f"cannot be read ({error.strerror})", "")
    damage, depth = _damage(content), None
    try:
        if damage is None:
            depth = _depth(content, window)
    except MedfmcError as error:
        damage = str(error).rstrip(".")
    except Exception as error:  # Pillow's plugins raise what they like
        damage = f"is damaged ({error})"
    return Inspected(damage, hashlib.sha256(content).hexdigest(), depth)


def _depth(content: bytes, window: GreyRange | None) -> Depth | None:
    with Image.open(io.BytesIO(content)) as image:
        refuse_deep_colours(image)
        if image.mode == "F":
            raise MedfmcError("has floating-point pixels, which have no 8-bit form: convert it to PNG")
        return depth_of(image, content, window) if is_deep(image) else None


def _damage(content: bytes) -> str | None:
    if not content:
        return "is empty"
    if content.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image"
    if content.startswith(_JPEG) and b"\xff\xd9" not in content[-1024:]:
        return "is truncated (a JPEG without its end)"
    if content.startswith(_PNG) and b"IEND\xaeB`\x82" not in content[-1024:]:
        return "is truncated (a PNG without its end)"
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
    except UnidentifiedImageError:
        return "is damaged (no decoder knows its header)" if content.startswith((_PNG, _JPEG)) else "is no image"
    except Exception as error:  # Pillow's plugins raise all kinds of exceptions
        return f"is damaged ({error})"
    return None


def inspect_all(paths: Iterable[str], window: GreyRange | None = None) -> dict[str, Inspected]:
    """What each file is, by path. Reads a few files at a time."""
    paths = list(paths)
    with ThreadPoolExecutor(8) as pool:
        read = bar(pool.map(inspect, paths, repeat(window), chunksize=16), total=len(paths), desc="reading images", unit="image")
        return dict(zip(paths, read))
