"""The random resized crop and horizontal flip of training, with torchvision's distribution and without torchvision."""

import math

import torch

from .processing import Processing
from .resize import resize

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)


def draw_crop(height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Where torchvision's `RandomResizedCrop.get_params` would cut an image: the same draws in the same order.

    Ten tries of an area in `SCALE` of the image and a log-uniform shape in `RATIO`; if none fits, the largest centred crop of a
    shape in `RATIO`. Introduced as inception-style cropping by Szegedy et al., "Going deeper with convolutions" (2015).

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        generator: CPU generator of the draws.

    Returns:
        (top, left, height, width), in pixels.
    """
    area, log_ratio = height * width, (math.log(RATIO[0]), math.log(RATIO[1]))
    for _ in range(10):
        target = area * torch.empty(1).uniform_(*SCALE, generator=generator).item()
        ratio = torch.exp(torch.empty(1).uniform_(*log_ratio, generator=generator)).item()
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = torch.randint(0, height - h + 1, size=(1,), generator=generator)
            left = torch.randint(0, width - w + 1, size=(1,), generator=generator)
            return int(top), int(left), h, w
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    return (height - h) // 2, (width - w) // 2, h, w


def crop_flip(image: torch.Tensor, processing: Processing, generator: torch.Generator) -> torch.Tensor:
    """A random view of an image: cropped, resized to the backbone's size, and mirrored half of the time.

    Args:
        image: uint8, (C, H, W), on any device.
        processing: the size and interpolation of the result.
        generator: CPU generator of the draws.

    Returns:
        uint8, (C, height, width), on the same device.
    """
    top, left, height, width = draw_crop(image.shape[1], image.shape[2], generator)
    view = resize(image[:, top : top + height, left : left + width], (processing.height, processing.width), processing.resample)
    return view.flip(-1) if torch.rand(1, generator=generator).item() < 0.5 else view
