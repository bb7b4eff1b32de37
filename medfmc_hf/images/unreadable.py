"""Why a file could not be read as an image, and what to do: the true reason, by what the file is."""

import difflib
import re
from pathlib import Path

from PIL import Image, UnidentifiedImageError

UNREADABLE = (OSError, SyntaxError, ValueError, AssertionError, Image.DecompressionBombError)  # what Pillow raises over files
_HEAD = 256  # bytes that tell kinds of files apart
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def reason(name: str, content: bytes | None, error: Exception) -> str:
    """A sentence without its end, such as `x.dcm is a DICOM file: ...`.

    Args:
        name: path of the file, or what else the image is called.
        content: its bytes where these are at hand; None to look into the file.
        error: what came of opening or decoding it.
    """
    shown = name if len(name) <= 200 else f"{name[:200]}..."
    try:
        if content is None and (why := _place(Path(name), error)):
            return f"{shown} {why}"
        head = content[:_HEAD] if content is not None else _head_of(Path(name))
    except (OSError, ValueError) as problem:  # no name of a file, a loop of links, no permission
        return f"{shown} cannot be read ({getattr(problem, 'strerror', None) or problem})"
    return f"{shown} {_kind(head) or _failure(error)}"


def _place(path: Path, error: Exception) -> str | None:
    """What is wrong with the path itself."""
    if path.is_dir():
        return f"is a folder; give the files in it, such as {path / '*.png'}"
    if isinstance(error, FileNotFoundError):
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        if not path.parent.is_dir():
            return f"is not there, and neither is its folder {path.parent}"
        close = difflib.get_close_matches(path.name, names, n=1)
        return "is not there" + (f"; the nearest name in its folder is {close[0]}" if close else "")
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied"
    return None


def _head_of(path: Path) -> bytes:
    if not path.is_file():
        raise OSError("it is no regular file")
    with path.open("rb") as file:
        return file.read(_HEAD)


def _kind(head: bytes) -> str | None:
    """What a file is that is no image of Pillow's."""
    if not head:
        return "is empty"
    if head[128:132] == b"DICM":
        return "is a DICOM file, which is not read here; convert it to PNG with the window that the other images have"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
        return "is a HEIC image, which Pillow does not read; convert it to JPEG or PNG"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image; run `git lfs pull` in its repository"
    if head.lstrip()[:5].lower() in (b"<html", b"<!doc"):
        return "is a web page, not an image; the download went wrong"
    if head.startswith(b"%PDF"):
        return "is a PDF, not an image"
    if head.startswith(b"PK\x03\x04"):
        return "is a zip archive, not an image; unpack it"
    return None


def _failure(error: Exception) -> str:
    """What decoding says."""
    words = str(error).strip() or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\((\d+) pixels\)", words)
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        many = f"{int(pixels[1]):,} pixels, " if pixels else ""
        return f"has {many}more than the {limit:,} that Pillow decodes, to be safe from harmful files; make a smaller copy"
    if isinstance(error, UnidentifiedImageError):
        return "is no image that Pillow can read"
    if "truncated" in words or "cut off" in words:
        return "is cut off; fetch or copy it again"
    return f"cannot be decoded ({words}); it may be damaged"
