"""What a caller holds as images (paths, Pillow images, arrays, lists of these, a `datasets` split), one image at a time."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import MedfmcError
from .decoding import decode, eight_bits
from .grey_range import GreyRange
from .rows import as_built, image_digests, image_sources
from .unreadable import UNREADABLE

_EXPECTED = (
    "expected a path, a Pillow image, an array (H, W) or (H, W, 3), encoded bytes, a list of these, or a split of `datasets` with a column "
    "image"
)


@dataclass(frozen=True)
class HeldImage:
    """One image that a caller holds.

    Attributes:
        name: its path, or what tells it from the others.
        content: a `{"bytes": ..., "path": ...}` of an undecoded column, a Pillow image or an array.
        sha256: digest of its file from when its data set was built, which is compared; None where there is none.
    """

    name: str
    content: Any
    sha256: str | None = None

    def pixels(self, grey: GreyRange | None = None) -> np.ndarray:
        """uint8, (H, W) or (H, W, 3), as `medfmc_hf.images.decoding.decode` gives them.

        Raises:
            MedfmcError: it cannot be read, or its values have no 8-bit form.
        """
        if isinstance(self.content, Mapping):
            return decode(self.content if self.sha256 is None else as_built(dict(self.content), self.sha256), grey)
        if isinstance(self.content, Image.Image):
            try:
                return eight_bits(self.content, self.name, grey)
            except UNREADABLE as error:  # it may be open, and not yet read
                raise MedfmcError(f"{self.name} cannot be read ({str(error).strip() or type(error).__name__}).") from None
        return _of_array(self.content, self.name, grey)


def held_images(images: Any) -> list[HeldImage]:
    """The images that a caller holds, in order.

    Args:
        images: one path, Pillow image, array or tensor (H, W) or (H, W, 3), or bytes of an image file; a list of these; an array
            (n, H, W, 3); or a `datasets` split with a column `image`.

    Raises:
        MedfmcError: it is something else.
    """
    if (rows := _rows_of(images)) is not None:
        return rows
    one = _one(images, "the image")
    if one is not None:
        return [one]
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise MedfmcError(f"{type(images).__name__} holds no images; {_EXPECTED}.")
    return list(_each(images))


def _each(images: Iterable[Any]) -> Iterator[HeldImage]:
    for number, item in enumerate(images):
        content = item["image"] if isinstance(item, Mapping) and "image" in item else item
        one = _one(content, f"image {number}")
        if one is None:
            raise MedfmcError(f"image {number} is a {type(content).__name__}; {_EXPECTED}.")
        yield one


def _one(image: Any, name: str) -> HeldImage | None:
    """The image if it is a single one; None for what may hold several."""
    if isinstance(image, (str, os.PathLike)):
        return HeldImage(os.fspath(image), {"bytes": None, "path": os.fspath(image)})
    if isinstance(image, (bytes, bytearray)):
        return HeldImage(name, {"bytes": bytes(image), "path": name})
    if isinstance(image, Image.Image):
        return HeldImage(getattr(image, "filename", "") or name, image)
    if isinstance(image, Mapping) and {"bytes", "path"} <= set(image):
        return HeldImage(image["path"] or name, image)
    if hasattr(image, "ndim") and hasattr(image, "shape") and image.ndim in (2, 3):
        return HeldImage(name, image)
    return None


def _rows_of(images: Any) -> list[HeldImage] | None:
    """The rows of a `datasets` split; None for anything else."""
    if type(images).__module__.split(".")[0] != "datasets":
        return None
    if isinstance(images, Mapping):
        raise MedfmcError(f"these are several splits ({', '.join(images)}); give one, such as splits[{next(iter(images))!r}].")
    if not hasattr(images, "column_names"):
        return None  # a column of a split: an iterable of images
    if "image" not in (images.column_names or ()):
        raise MedfmcError(f"the split has no column image; it has {', '.join(images.column_names or ())}.")
    if not hasattr(images, "__len__"):
        return None  # streamed: an iterable of rows
    sources = image_sources(images)
    wrong = next((each for each in sources if not isinstance(each, Mapping) or not {"bytes", "path"} <= set(each)), None)
    if wrong is not None or None in sources:
        raise MedfmcError("the column image of the split holds something else than images; cast it: split.cast_column('image', Image()).")
    digests = image_digests(images)
    return [
        HeldImage(source["path"] or f"row {row}", source, None if digests is None else digests[row]) for row, source in enumerate(sources)
    ]


def _of_array(array: Any, name: str, grey: GreyRange | None) -> np.ndarray:
    values = np.asarray(array.cpu() if hasattr(array, "cpu") else array)
    if values.ndim == 3 and values.shape[-1] in (1, 4) and values.dtype == np.uint8:
        values = values[..., 0] if values.shape[-1] == 1 else values[..., :3]
    if values.size == 0:
        raise MedfmcError(f"{name} is an array of {' x '.join(map(str, values.shape))}, without a pixel.")
    shape, kind = " x ".join(map(str, values.shape)), values.dtype
    if values.ndim == 3 and values.shape[-1] != 3:
        raise MedfmcError(f"{name} is an array of {shape}; expected (H, W) or (H, W, 3), with the colours last.")
    if kind == np.uint8:
        return values
    if kind == np.uint16 and values.ndim == 2:
        if grey is None:
            raise MedfmcError(f"{name} has grey values of 16 bits, and the images of the model's data set have 8; convert it to 8 bits.")
        return grey.eight_bits(values, name)
    raise MedfmcError(f"{name} is an array of {kind}; expected uint8, 0 to 255 (or uint16 of grey, where the model's data set has such).")
