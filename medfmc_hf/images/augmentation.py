"""Random resized crop and horizontal flip for training, with torchvision's distribution but without torchvision."""

import math

import torch

from .processing import Processing
from .resize import resize

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)


def draw_crop(height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Sample the box of torchvision's `RandomResizedCrop.get_params`, with the same random numbers in the same order.

    Tries ten times an area in `SCALE` of the image and a log-uniform aspect ratio in `RATIO`; if none fits, takes the largest centre crop
    with a ratio in `RATIO`. Introduced as inception-style cropping by Szegedy et al., "Going deeper with convolutions" (2015).

    Args:
        height: height of the image, in pixels.
        width: width of the image, in pixels.
        generator: CPU generator.

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
    """Make a random view of an image: cropped, resized to the backbone's size, and flipped with probability 1/2.

    Args:
        image: uint8, (C, H, W), on any device.
        processing: size and interpolation of the result.
        generator: CPU generator.

    Returns:
        uint8, (C, height, width), on the same device.
    """
    top, left, height, width = draw_crop(image.shape[1], image.shape[2], generator)
    view = resize(image[:, top : top + height, left : left + width], (processing.height, processing.width), processing.resample)
    return view.flip(-1) if torch.rand(1, generator=generator).item() < 0.5 else view
