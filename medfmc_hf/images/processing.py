"""From a decoded image to the tensor a backbone expects: the parameters, and functions that apply them.

`medfmc_hf.models.image_processor` reads the parameters of a backbone. Pixels stay uint8, and grey images stay grey, until they are
normalised; values are those of transformers' PIL processors to one grey level.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import MedfmcError
from .grey_range import GreyRange
from .resize import RESAMPLES, centre_crop, channels_first, resize_as_pillow, shortest_edge_size

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Processing:
    """All parameters of processing an image for a backbone.

    An image is resized, centre-cropped (padded with zeros) to `height` x `width`, and normalised as `(x * rescale - mean) / std`.

    Attributes:
        height: height of the result, in pixels.
        width: width of the result, in pixels.
        resize: `(height, width)`, which squashes the image to that size, or `(edge,)`, which scales the shorter edge to `edge` and keeps
            the aspect ratio.
        resample: one of `medfmc_hf.images.resize.RESAMPLES`.
        rescale: factor that is applied to 0..255 before normalising.
        mean: per channel (red, green, blue), subtracted after rescaling.
        std: per channel, divided by.
        grey: the range of grey values of more than 8 bits that the data set has, see `medfmc_hf.images.decoding.decode`; None for none.
    """

    height: int
    width: int
    resize: tuple[int, ...]
    resample: str = "bicubic"
    rescale: float = 1 / 255
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    grey: GreyRange | None = None

    def __post_init__(self) -> None:
        if self.resample not in RESAMPLES:
            raise MedfmcError(f"resample must be one of {', '.join(RESAMPLES)}; got {self.resample!r}.")
        if len(self.resize) not in (1, 2) or min(self.height, self.width, *self.resize) < 1:
            raise MedfmcError(f"sizes must be at least one pixel; got {self.height} x {self.width}, resize {self.resize}.")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(self.std):
            raise MedfmcError(f"expected three means and three nonzero standard deviations; got {self.mean} and {self.std}.")

    @property
    def rule(self) -> str:
        """`direct` or `shortest-edge`."""
        return "direct" if len(self.resize) == 2 else "shortest-edge"

    @property
    def geometry(self) -> str:
        """A short name of what determines the uint8 pixels, fit for a file name; backbones that differ only in mean and std share it."""
        name = f"{self.height}x{self.width}-{self.resample}"
        if self.rule == "shortest-edge":
            return f"{name}-edge{self.resize[0]}"
        return name if self.resize == (self.height, self.width) else f"{name}-from{self.resize[0]}x{self.resize[1]}"

    def key(self) -> str:
        """All parameters as stable text: equal text means equal tensors."""
        return f"{self.geometry}:" + ",".join(f"{value:.9g}" for value in (self.rescale, *self.mean, *self.std))


def process(image: np.ndarray | torch.Tensor, processing: Processing) -> torch.Tensor:
    """Resize and crop one image.

    Args:
        image: uint8, (H, W) grey or (H, W, 3) RGB.
        processing: processing of the backbone, from `processing_of`.

    Returns:
        uint8, (C, height, width); C is 1 for grey and 3 for RGB. Within one grey level of transformers' PIL processor.
    """
    image = channels_first(image)
    if processing.rule == "direct":
        size = processing.resize[0], processing.resize[1]
    else:
        size = shortest_edge_size(image.shape[1], image.shape[2], processing.resize[0])
    return centre_crop(resize_as_pillow(image, size, processing.resample), processing.height, processing.width)


def normalise(
    batch: torch.Tensor, processing: Processing, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> torch.Tensor:
    """Rescale and normalise uint8 pixels, and give grey images three channels.

    Args:
        batch: uint8, (B, C, h, w), C = 1 or 3.
        processing: processing of the backbone, from `processing_of`.
        dtype: dtype of the result; the arithmetic is float32.
        device: device of the result, None for that of the batch; pixels are transferred as uint8.

    Returns:
        (B, 3, h, w), `(x * rescale - mean) / std`.
    """
    if device is not None:
        batch = batch.to(device, non_blocking=True)
    factors = [processing.rescale / std for std in processing.std]
    offsets = [-mean / std for mean, std in zip(processing.mean, processing.std)]
    scale, shift = (torch.tensor(values, dtype=torch.float32, device=batch.device).view(1, 3, 1, 1) for values in (factors, offsets))
    values = batch.float()
    values = values.mul_(scale) if values.shape[1] == 3 else values * scale
    return values.add_(shift).to(dtype)
