"""Images on which errors of resizing show."""

import numpy as np
from PIL import Image


def image(height, width, channels, seed=0):
    """uint8, (height, width) or (height, width, 3): smooth fields, hard edges and noise, so that filters overshoot."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 255
    pixels[height // 2 :, : width // 8] = 0
    pixels[:, width // 2 :] ^= rng.integers(0, 256, (height, width - width // 2, 3), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels
