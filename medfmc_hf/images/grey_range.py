"""Which values of images of more than 8 bits become 0..255: one range for all images of a subset in a build, never one an image."""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..errors import MedfmcError

BITS = (10, 12, 14, 16)  # what scanners and cameras store
FEW_LEVELS = 64  # of 256
_PHOTOMETRIC = 262  # the tag of a TIFF that says whether 0 is white


@dataclass(frozen=True)
class GreyRange:
    """The values that become 0 and 255; those between are in proportion, rounded.

    Attributes:
        low: becomes 0.
        high: becomes 255.
        window: whether a person chose the range: values outside it then are 0 and 255, and otherwise they are an error.
    """

    low: int
    high: int
    window: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 65535:
            raise MedfmcError(f"a grey range goes from a value to a higher one, of 0 to 65535; got {self.low} to {self.high}.")

    def eight_bits(self, values: np.ndarray, name: str) -> np.ndarray:
        """Grey values, integers (H, W), as uint8.

        Raises:
            MedfmcError: a value is outside a range that is no window.
        """
        values = values.astype(np.int64)
        least, most = int(values.min()), int(values.max())
        if not self.window and (least < self.low or most > self.high):
            raise MedfmcError(
                f"{name} has grey values from {least} to {most}, and those of its data set go from {self.low} to {self.high}, so it was "
                "stored in another way; convert it to the data set's range."
            )
        span = self.high - self.low
        return ((2 * 255 * (values.clip(self.low, self.high) - self.low) + span) // (2 * span)).astype(np.uint8)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, which `grey_range_of` reads back."""
        return asdict(self)


FULL = GreyRange(0, 65535)  # of builds from before ranges were recorded


def grey_range_of(values: Mapping[str, Any] | None) -> GreyRange | None:
    """What `GreyRange.to_dict` wrote; None for None."""
    return None if values is None else GreyRange(**values)


class Depth(NamedTuple):
    """What one look at the pixels of a grey image of more than 8 bits tells.

    Attributes:
        most: its highest value.
        significant_bits: what a PNG says in its sBIT chunk; None where it says nothing.
        levels: how many of the 256 levels it uses, by the range that would be taken.
    """

    most: int
    significant_bits: int | None
    levels: dict[GreyRange, int]


def is_deep(image: Image.Image) -> bool:
    """Whether an image is grey with more than 8 bits, by its header."""
    return image.mode == "I" or image.mode.startswith("I;16")


def deep_values(image: Image.Image) -> np.ndarray:
    """The grey values of a deep image: int64, (H, W).

    Raises:
        MedfmcError: they are no 16-bit ones, or are stored with white as zero.
    """
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # Pillow turns 8-bit ones round, and leaves these
        raise MedfmcError("is a TIFF of more than 8 bits in which 0 is white; convert it so that 0 is black")
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise MedfmcError(f"has grey values from {values.min()} to {values.max()}; expected 16 bits")
    return values


def refuse_deep_colours(image: Image.Image) -> None:
    """Raise for an image with colours, or grey and alpha, of 16 bits; it must not be loaded yet."""
    if not is_deep(image) and any(";16" in str(tile) for tile in getattr(image, "tile", ())):
        raise MedfmcError("has colours of 16 bits, of which only the upper 8 would be read; convert it to 8 bits")


def depth_of(image: Image.Image, content: bytes, window: GreyRange | None) -> Depth:
    """Look at the pixels of a deep image.

    Args:
        image: opened, and `is_deep`.
        content: its file.
        window: the range that a person chose; None for those that may be found.

    Raises:
        MedfmcError: as `deep_values` does.
    """
    values, said = deep_values(image), _significant_bits(content)
    bits = sorted({*BITS, *([] if said is None else [said])})
    ranges = [window] if window else [of_bits(each) for each in bits if values.max() < 1 << each]
    levels = {each: len(np.unique(each.eight_bits(values, ""))) for each in ranges}
    return Depth(int(values.max()), said, levels)


def of_bits(bits: int) -> GreyRange:
    """From 0 to the highest value of so many bits."""
    return GreyRange(0, (1 << bits) - 1)


def common_range(depths: Iterable[Depth]) -> GreyRange:
    """The range of the images of a build: that of the fewest bits that hold every value.

    Where every file is a PNG that says the same number of significant bits, these are taken if they hold every value. PNG asks writers to
    stretch values to all 16 bits; where one did, they do not.
    """
    depths = list(depths)
    most, said = max(depth.most for depth in depths), {depth.significant_bits for depth in depths}
    bits = next(bits for bits in BITS if most < 1 << bits)
    if len(said) == 1 and (own := next(iter(said))) is not None:
        return of_bits(own) if most < 1 << own else of_bits(16)
    return of_bits(bits)


def _significant_bits(content: bytes) -> int | None:
    """The bits that a grey PNG says its values have; Pillow does not read this chunk."""
    position = 8
    while content.startswith(b"\x89PNG") and position + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        if kind == b"sBIT" and length >= 1:
            return content[position + 8] if 8 < content[position + 8] <= 16 else None
        if kind == b"IDAT":
            return None
        position += 12 + length
    return None
