"""Tells a picture file that is whole from one that is empty, cut off or no picture at all, without decoding it."""

import os
import struct
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..progress import bar

_PNG = b"\x89PNG\r\n\x1a\n"
_WHOLE = 1 << 20  # files up to this many bytes are read whole, larger ones at both ends
_ENDS = 4096


def picture_damage(path: str) -> str | None:
    """What is wrong with a picture file, or None.

    Caught in every PNG and JPEG: an empty or unreadable file, another kind of file under a picture's name (a web page, a Git LFS
    pointer), no size in the header, and an end that is missing. In a PNG of up to 1 MiB also every changed byte, by the checksum
    of each chunk. Not caught: changed bytes inside larger files and inside JPEGs; a picture that no decoder likes for
    another reason. Other formats are opened by Pillow, header only.
    """
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _WHOLE:
                head = tail = file.read()
            else:
                head = file.read(_ENDS)
                file.seek(-_ENDS, os.SEEK_END)
                tail = file.read()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not size:
        return "is empty"
    if head.startswith(_PNG):
        return _png_damage(head, tail, size)
    if head.startswith(b"\xff\xd8\xff"):
        return None if b"\xff\xd9" in tail[-1024:] else "is cut off (a JPEG without its end)"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the picture"
    return _other_damage(path)


def _png_damage(head: bytes, tail: bytes, size: int) -> str | None:
    if len(head) < 33 or head[12:16] != b"IHDR":
        return "is cut off (a PNG without its header)"
    if 0 in struct.unpack(">II", head[16:24]):
        return "is damaged (a PNG of no size)"
    if b"IEND\xaeB`\x82" not in tail[-1024:]:
        return "is cut off (a PNG without its end)"
    if size > _WHOLE:
        return None
    view, position = memoryview(head), len(_PNG)
    while position + 12 <= size:
        (length,) = struct.unpack(">I", view[position : position + 4])
        end = position + 8 + length
        if end + 4 > size or zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return "is damaged (a PNG chunk whose checksum is wrong)"
        if view[position + 4 : position + 8] == b"IEND":
            return None
        position = end + 4
    return "is damaged (a PNG whose chunks do not add up)"


def _other_damage(path: str) -> str | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.verify()
    except UnidentifiedImageError:
        return "is no picture"
    except Exception as error:  # Pillow's plugins raise what they like
        return f"cannot be opened ({type(error).__name__}: {error})"
    return None


def damaged_pictures(paths: Iterable[str]) -> dict[str, str]:
    """The damage of each picture that has some, by path. Reads the ends of the files, a few at a time."""
    paths = list(paths)
    with ThreadPoolExecutor(8) as pool:
        found = zip(paths, bar(pool.map(picture_damage, paths, chunksize=64), total=len(paths), desc="checking pictures", unit="picture"))
        return {path: damage for path, damage in found if damage}
