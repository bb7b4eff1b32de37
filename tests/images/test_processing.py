"""The parameters of processing an image, and the functions that apply them."""

import numpy as np
import pytest
import torch

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.processing import Processing, normalise, process


def test_normalise_is_the_formula_on_grey_and_colour():
    processing = Processing(4, 4, (4, 4), rescale=1 / 127.5, mean=(1.1, 0.9, 0.2), std=(0.3, 0.2, 0.7))
    batch = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = np.array(processing.mean)[:, None, None], np.array(processing.std)[:, None, None]
    expected = (batch.numpy().astype(np.float64) / 127.5 - mean) / std
    np.testing.assert_allclose(normalise(batch, processing).numpy(), expected, rtol=1e-5, atol=1e-5)
    grey = normalise(batch[:, :1], processing)
    assert torch.equal(grey, normalise(batch[:, :1].expand(-1, 3, -1, -1), processing))
    assert normalise(batch, processing, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_keys_tell_processings_apart():
    one = Processing(224, 224, (224, 224))
    others = [Processing(224, 224, (256, 256)), Processing(224, 224, (256,)), Processing(224, 224, (224,)), Processing(8, 8, (8, 8)),
              Processing(224, 224, (224, 224), "bilinear"), Processing(224, 192, (224, 192))]  # fmt: skip
    assert len({p.geometry for p in [one, *others]}) == len({p.key() for p in [one, *others]}) == 7
    shifted = Processing(224, 224, (224, 224), mean=(0.5, 0.5, 0.5))
    assert shifted.geometry == one.geometry
    assert shifted.key() != one.key()
    assert len({one, shifted, Processing(224, 224, (224, 224))}) == 2


def test_invalid_parameters_are_refused():
    for wrong, says in (
        ({"resample": "cubic"}, "got 'cubic'"),
        ({"std": (0.0, 1.0, 1.0)}, "nonzero"),
        ({"mean": (0.5,)}, "three means"),
        ({"height": 0}, "got 0 x 4"),
        ({"resize": (4, 0)}, r"resize \(4, 0\)"),
        ({"resize": (4, 4, 4)}, r"resize \(4, 4, 4\)"),
    ):
        with pytest.raises(MedfmcError, match=says):
            Processing(**{"height": 4, "width": 4, "resize": (4, 4), **wrong})


def test_the_shorter_edge_is_scaled_and_the_centre_is_cropped():
    image = np.arange(4 * 9, dtype=np.uint8).reshape(4, 9)  # its shorter edge already has the right length, so nothing is resized
    cut = process(image, Processing(2, 4, (4,)))
    assert cut.shape == (1, 2, 4)
    np.testing.assert_array_equal(cut[0].numpy(), [[11, 12, 13, 14], [20, 21, 22, 23]])
    colour = np.stack([image, 100 + image, 200 + image], axis=2)
    np.testing.assert_array_equal(process(colour, Processing(2, 4, (4,)))[1].numpy(), [[111, 112, 113, 114], [120, 121, 122, 123]])
    assert process(image.T, Processing(4, 2, (4,)))[0].tolist() == cut[0].T.tolist()


def test_an_image_smaller_than_the_crop_is_padded_with_zeros():
    image = np.array([[1, 2], [3, 4]], np.uint8)
    cropped = process(image, Processing(4, 6, (2, 2)))[0].tolist()
    assert cropped == [[0] * 6, [0, 0, 1, 2, 0, 0], [0, 0, 3, 4, 0, 0], [0] * 6]


def test_an_image_is_squashed_to_the_size_it_is_resized_to():
    image = np.repeat(np.array([[0, 200]], np.uint8), 4, axis=0)  # 4 x 2: the left half black
    squashed = process(image, Processing(2, 4, (2, 4), "nearest"))[0].tolist()
    assert squashed == [[0, 0, 200, 200], [0, 0, 200, 200]]
