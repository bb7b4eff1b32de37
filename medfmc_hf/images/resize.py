"""Resizing and cropping uint8 images as Pillow and transformers do, in plain torch, without torchvision.

torch's antialiased uint8 kernel has Pillow's filters and downscales a photograph many times faster. It is fast for three or four
channels, so a grey image is cut into four parts, which are resized as if they were channels.
"""

import math
import warnings

import numpy as np
import torch
import torch.nn.functional as F

with warnings.catch_warnings():  # torch warns once about read-only arrays, such as Pillow's; nothing here writes to images
    warnings.simplefilter("ignore")
    torch.from_numpy(np.frombuffer(b"0", np.uint8))

RESAMPLES = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # in the order of Pillow's constants, which processors store


def channels_first(image: np.ndarray | torch.Tensor) -> torch.Tensor:
    """An image (H, W) or (H, W, 3) as a read-only view (1, H, W) or (3, H, W)."""
    image = torch.as_tensor(image)
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1)


def shortest_edge_size(height: int, width: int, edge: int) -> tuple[int, int]:
    """(height, width) of an image with its shorter side scaled to `edge`; the longer one is rounded down."""
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def resize_as_pillow(image: torch.Tensor, size: tuple[int, int], resample: str) -> torch.Tensor:
    """`resize`, within one grey level of the installed Pillow.

    Both resize columns and rows in separate passes, and round and clip in between. torch does columns first. So does Pillow, but from 13.0
    on it swaps the passes if the height shrinks much more than the width, which is visible at edges. If bicubic hardly shrinks, the
    rounding in between can grow to two levels. These cases, which are rare or small, are left to Pillow itself. (What remains: two levels
    in one value of a million of black-and-white noise, none found in anything smoother.)

    Args:
        image: uint8, (C, H, W), on the CPU.
        size: (height, width), in pixels.
        resample: one of `RESAMPLES`.

    Returns:
        uint8, (C, height, width), contiguous.
    """
    shrink_height, shrink_width = image.shape[1] / size[0], image.shape[2] / size[1]
    columns_first = shrink_height <= 1.15 * shrink_width and image.shape[1] <= 1.5 * image.shape[2]
    if columns_first and (resample == "bilinear" or min(shrink_height, shrink_width) >= 1.4):
        return resize(image, size, resample)
    return _pillow(image, size, resample)


def resize(image: torch.Tensor, size: tuple[int, int], resample: str) -> torch.Tensor:
    """Resize one image with antialiasing, on its device: columns, then rows, each rounded to whole grey levels.

    Args:
        image: uint8, (C, H, W), in any memory layout; C is 1 or 3.
        size: (height, width), in pixels.
        resample: one of `RESAMPLES`.

    Returns:
        uint8, (C, height, width), contiguous.
    """
    height, width = size
    if tuple(image.shape[1:]) == (height, width):
        return image.contiguous()
    if resample not in ("bilinear", "bicubic"):
        return _pillow(image, size, resample)
    if image.device.type != "cpu":
        return _float_resize(image, size, resample)
    if image.shape[0] == 1:
        columns = _grey_columns(image[0].numpy(), width, resample)
        return torch.from_numpy(_grey_rows(columns, height, resample))[None]
    return F.interpolate(image[None], size=size, mode=resample, antialias=True)[0].contiguous()


def _float_resize(image: torch.Tensor, size: tuple[int, int], resample: str) -> torch.Tensor:
    """Resize on devices without uint8 kernels."""
    values = image[None].float()
    for step in ((image.shape[1], size[1]), size):
        values = F.interpolate(values, size=step, mode=resample, antialias=True).add_(0.5).floor_().clamp_(0, 255)
    return values[0].to(torch.uint8).contiguous()


def _interpolate(packed: np.ndarray, size: tuple[int, int], resample: str) -> np.ndarray:
    """Resize (H, W, 4) to `size`."""
    channels = torch.from_numpy(packed).permute(2, 0, 1)[None]
    return F.interpolate(channels, size=size, mode=resample, antialias=True)[0].permute(1, 2, 0).numpy()


def _grey_columns(image: np.ndarray, width: int, resample: str) -> np.ndarray:
    """(H, W) to (H, width). Rows are independent, so four blocks of rows can be the channels of one image."""
    if image.shape[1] == width:
        return image
    height = image.shape[0]
    block = -(-height // 4)
    packed = np.zeros((block, image.shape[1], 4), np.uint8)
    for channel in range(4):
        rows = image[channel * block : (channel + 1) * block]
        packed[: len(rows), :, channel] = rows
    resized = _interpolate(packed, (block, width), resample)
    return resized.transpose(2, 0, 1).reshape(4 * block, width)[:height]


def _grey_rows(image: np.ndarray, height: int, resample: str) -> np.ndarray:
    """(H, W) to (height, W). Columns are independent, so four neighbours can be the channels of one pixel."""
    if image.shape[0] == height:
        return np.ascontiguousarray(image)
    have, width = image.shape
    packed = np.zeros((have, -(-width // 4) * 4), np.uint8)
    packed[:, :width] = image
    resized = _interpolate(packed.reshape(have, -1, 4), (height, packed.shape[1] // 4), resample)
    return np.ascontiguousarray(resized.reshape(height, -1)[:, :width])


def _pillow(image: torch.Tensor, size: tuple[int, int], resample: str) -> torch.Tensor:
    """Resize with Pillow, which has filters that torch lacks."""
    from PIL import Image

    pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    whole = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    resized = np.array(whole.resize(size[::-1], RESAMPLES.index(resample)))
    channels_last = resized if resized.ndim == 3 else resized[..., None]
    return torch.from_numpy(channels_last).permute(2, 0, 1).contiguous().to(image.device)


def centre_crop(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Centre crop of an image (C, H, W) to (C, height, width), padded with zeros if it is smaller, placed as in transformers."""
    have_height, have_width = image.shape[1:]
    if (have_height, have_width) == (height, width):
        return image
    top, left = (have_height - height) // 2, (have_width - width) // 2
    full_height, full_width = max(height, have_height), max(width, have_width)
    if (full_height, full_width) != (have_height, have_width):
        above, before = math.ceil((full_height - have_height) / 2), math.ceil((full_width - have_width) / 2)
        padded = image.new_zeros(image.shape[0], full_height, full_width)
        padded[:, above : above + have_height, before : before + have_width] = image
        image, top, left = padded, top + above, left + before
    return image[:, top : top + height, left : left + width].contiguous()
