"""Images, and a counter of decoded images that starts at 0 in every test of this room."""

import numpy as np
import pytest
from PIL import Image

from medfmc_hf.images.decoding import decodes


@pytest.fixture(autouse=True)
def _count():
    decodes.reset()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Forty small images of different sizes, every third one grey."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(40):
        shape = (20 + number, 33) if number % 3 == 0 else (20 + number, 33, 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number:02d}.png")
    return folder
