"""torchvision's random resized crop, without torchvision."""

import math

import numpy as np
import pytest
import torch

from medfmc_hf.images.augmentation import crop_flip, draw_crop
from medfmc_hf.images.processing import Processing
from medfmc_hf.images.resize import resize

PROCESSING = Processing(16, 16, (16, 16))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def described_crop(height, width):
    """torchvision's documented crop, from torch's global generator: a slow, obvious version."""

    def uniform(low, high):
        return torch.empty(1).uniform_(low, high).item()

    for _attempt in range(10):
        pixels = uniform(0.08, 1) * height * width
        shape = math.exp(uniform(-math.log(4 / 3), math.log(4 / 3)))
        crop = (int(np.rint(math.sqrt(pixels / shape))), int(np.rint(math.sqrt(pixels * shape))))
        if 1 <= crop[0] <= height and 1 <= crop[1] <= width:
            top, left = (int(torch.randint(0, room + 1, (1,))) for room in (height - crop[0], width - crop[1]))
            return top, left, *crop
    tallest, widest = min(height, int(np.rint(width * 4 / 3))), min(width, int(np.rint(height * 4 / 3)))
    return (height - tallest) // 2, (width - widest) // 2, tallest, widest


@pytest.mark.parametrize("shape", [(1024, 1024), (1024, 1280), (2965, 2953), (30, 900), (900, 30), (5, 5), (1, 1), (1, 400)])
def test_crops_are_those_of_torchvision_number_by_number(shape):
    generator = seeded(3)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    try:
        for _ in range(300):
            assert draw_crop(*shape, generator) == described_crop(*shape)
    finally:
        torch.set_rng_state(state)


def test_crops_lie_inside_and_cover_the_stated_areas_and_shapes():
    generator = seeded()
    crops = np.array([draw_crop(1000, 1000, generator) for _ in range(2000)])
    top, left, height, width = crops.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 1000).all() and (left + width <= 1000).all()
    areas, shapes = height * width / 1e6, width / height
    assert 0.079 < areas.min() < 0.1 and 0.9 < areas.max() <= 1.0
    assert 0.74 < shapes.min() < 0.76 and 1.32 < shapes.max() < 1.34
    assert abs(np.log(shapes).mean()) < 0.02


def test_a_view_is_the_crop_resized_and_flipped_half_of_the_time():
    image = torch.randint(0, 256, (3, 50, 60), dtype=torch.uint8)
    mirrored = 0
    for seed in range(200):
        top, left, height, width = draw_crop(50, 60, generator := seeded(seed))
        plain = resize(image[:, top : top + height, left : left + width], (16, 16), "bicubic")
        flip = bool(torch.rand(1, generator=generator) < 0.5)
        assert torch.equal(crop_flip(image, PROCESSING, seeded(seed)), plain.flip(-1) if flip else plain)
        mirrored += flip
    assert 70 < mirrored < 130
