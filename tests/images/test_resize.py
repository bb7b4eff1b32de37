"""Resizing and cropping, against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image
from textures import image

from medfmc_hf.images.resize import RESAMPLES, _float_resize, resize, resize_as_pillow, shortest_edge_size


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_that_of_pillow(resample, channels):
    for (height, width), size in [
        ((97, 203), (40, 40)),
        ((97, 203), (131, 300)),
        ((97, 203), (97, 33)),
        ((97, 203), (31, 203)),
        ((5, 2), (7, 9)),
    ]:
        pixels = image(height, width, channels)
        tensor = torch.from_numpy(pixels if channels == 3 else pixels[..., None]).permute(2, 0, 1)
        ours = resize_as_pillow(tensor, size, resample)
        expected = np.array(Image.fromarray(pixels).resize(size[::-1], RESAMPLES.index(resample))).reshape(*size, channels)
        assert ours.shape == (channels, *size)
        assert ours.is_contiguous()
        assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_grey_is_resized_as_any_other_channel():
    pixels = image(211, 317, 3)
    together = resize(torch.from_numpy(pixels).permute(2, 0, 1), (90, 75), "bicubic")
    for channel in range(3):
        alone = resize(torch.from_numpy(np.ascontiguousarray(pixels[..., channel]))[None], (90, 75), "bicubic")
        assert torch.equal(alone[0], together[channel])


def test_a_crop_of_an_image_is_resized_in_place():
    pixels = torch.from_numpy(image(120, 130, 3)).permute(2, 0, 1)
    crop = pixels[:, 11:90, 20:101]
    assert torch.equal(resize(crop, (40, 40), "bicubic"), resize(crop.contiguous(), (40, 40), "bicubic"))


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_the_float_resize_of_other_devices_is_that_of_the_cpu(resample):
    for shape, size in [((211, 317), (90, 75)), ((50, 40), (64, 70)), ((300, 90), (40, 90))]:
        pixels = torch.from_numpy(image(*shape, 3)).permute(2, 0, 1)
        difference = _float_resize(pixels, size, resample).int() - resize(pixels, size, resample).int()
        assert difference.abs().max() <= 2
        assert difference.abs().float().mean() < 0.05


@pytest.mark.parametrize("shape", [(532, 373), (471, 338), (1200, 180), (180, 1200), (600, 400), (400, 600)])
def test_the_order_of_passes_is_that_of_the_installed_pillow(shape):
    """Black-and-white noise, where the order is most visible."""
    pixels = np.random.default_rng(0).integers(0, 2, (*shape, 3), dtype=np.uint8) * 255
    for size in [(270, 245), (241, 224), (100, 100), (165, 27), (27, 165)]:
        ours = resize_as_pillow(torch.from_numpy(pixels).permute(2, 0, 1), size, "bicubic").permute(1, 2, 0).numpy()
        assert np.abs(ours.astype(int) - np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC))).max() <= 1


@pytest.mark.parametrize(
    ("shape", "edge", "size"), [((100, 335), 50, (50, 167)), ((335, 100), 50, (167, 50)), ((7, 7), 5, (5, 5)), ((2, 3), 4, (4, 6))]
)
def test_the_longer_edge_is_rounded_down(shape, edge, size):
    assert shortest_edge_size(*shape, edge) == size
