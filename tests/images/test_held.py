"""What callers hold as images: each form gives the same pixels, and what is none is named."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.grey_range import of_bits
from medfmc_hf.images.held import held_images

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)


@pytest.fixture
def path(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "one.png")
    return tmp_path / "one.png"


def forms(path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"image": [str(path)], "label": [0]}, features=features)
    return {
        "path": path,
        "text": str(path),
        "bytes": path.read_bytes(),
        "Pillow": Image.open(path),
        "array": PIXELS,
        "array of images": PIXELS[None],
        "tensor": torch.from_numpy(PIXELS),
        "with alpha": np.concatenate([PIXELS, np.full((7, 5, 1), 9, np.uint8)], 2),
        "list": [str(path)],
        "tuple": (Image.open(path),),
        "generator": (each for each in [PIXELS]),
        "undecoded": {"bytes": None, "path": str(path)},
        "split": rows,
        "streamed split": rows.to_iterable_dataset(),
        "rows": list(rows),
        "column": rows["image"],
    }


FORMS = (
    *("path", "text", "bytes", "Pillow", "array", "array of images", "tensor", "with alpha", "list", "tuple", "generator", "undecoded"),
    *("split", "streamed split", "rows", "column"),
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pixels(form, path):
    held = forms(path)
    assert set(held) == set(FORMS)
    (image,) = held_images(held[form])
    np.testing.assert_array_equal(image.pixels(), PIXELS)


def test_no_images_are_no_images():
    assert held_images([]) == []


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (3, "int holds no images; expected a path"),
        (None, "NoneType holds no images"),
        ([3], "image 0 is a int; expected a path"),
        ({"a": 1}, "dict holds no images"),
        (datasets.Dataset.from_dict({"x": [1]}), "no column image; it has x"),
        (datasets.DatasetDict({"train": datasets.Dataset.from_dict({"x": [1]})}), r"several splits \(train\); give one"),
    ],
)
def test_what_holds_no_images_is_named(images, says):
    with pytest.raises(MedfmcError, match=says):
        held_images(images)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 7, 5), np.uint8), "array of 3 x 7 x 5; expected .* colours last"),
        (np.zeros((7, 5, 3), np.float32), "array of float32; expected uint8"),
        (np.zeros((7, 5), np.uint16), "grey values of 16 bits"),
        (np.zeros((7, 5), bool), "array of bool"),
    ],
)
def test_arrays_that_are_no_pixels(array, says):
    with pytest.raises(MedfmcError, match=says):
        held_images(array)[0].pixels()


def test_a_deep_array_is_read_by_the_range_of_the_data_set():
    assert held_images(np.full((2, 2), 4095, np.uint16))[0].pixels(of_bits(12)).tolist() == [[255, 255], [255, 255]]
