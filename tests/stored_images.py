"""Small images as rows of a dataset, their stored pixels, and what these have to be."""

from pathlib import Path

import datasets
import torch

from medfmc_hf.images.pixels import decode, evaluation_pixels
from medfmc_hf.images.processing import Processing, process
from medfmc_hf.subsets import SUBSETS

RECORD = 40  # bytes of an image in the index of a store
PROCESSING = Processing(16, 16, (16, 16))
ENDO = SUBSETS["endo"]


def rows_of(folder, numbers=range(40)):
    """Rows that link to the images `NUMBER.png` of a folder."""
    paths = [str(folder / f"{number:02d}.png") for number in numbers]
    return datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())


def embedded(rows):
    """The same rows with the bytes of the images in them."""
    sources = rows.cast_column("image", datasets.Image(decode=False))["image"]
    images = [{"bytes": Path(source["path"]).read_bytes(), "path": "x"} for source in sources]
    return datasets.Dataset.from_dict({"image": images}, features=rows.features)


def check(found, rows):
    """The pixels of every row are those of its image, decoded and processed now."""
    for number, source in enumerate(rows.cast_column("image", datasets.Image(decode=False))["image"]):
        assert torch.equal(found[[number]][0], process(decode(source), PROCESSING)), number


def fetch(rows, cache, **options):
    return evaluation_pixels(rows, options.pop("processing", PROCESSING), subset=options.pop("subset", ENDO), cache=cache, **options)
