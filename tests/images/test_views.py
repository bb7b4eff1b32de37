"""Training views, from images that are decoded once."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images import augmentation
from medfmc_hf.images import views as module
from medfmc_hf.images.decoding import decode, decodes
from medfmc_hf.images.processing import Processing, process
from medfmc_hf.images.resize import _float_resize
from medfmc_hf.images.views import ImageStore, TrainingPixels

PROCESSING = Processing(16, 16, (16, 16))


@pytest.fixture
def rows(tmp_path):
    """Two grey and four colour images, the last one in two rows."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(6):
        shape = (40 + number, 52) if number < 2 else (40 + number, 52, 3)
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(paths[-1])
    return datasets.Dataset.from_dict({"image": [*paths, paths[-1]]}).cast_column("image", datasets.Image())


def test_batches_follow_their_seeds_and_mix_grey_with_colour(rows):
    pixels = TrainingPixels(rows, PROCESSING)
    assert len(pixels) == 7
    first = pixels.batch([0, 3, 1, 6], [5, 6, 7, 8])
    assert first.shape == (4, 3, 16, 16) and first.dtype == torch.uint8
    assert torch.equal(first[0, 0], first[0, 2])
    assert torch.equal(first, pixels.batch(torch.tensor([0, 3, 1, 6]), torch.tensor([5, 6, 7, 8])))
    assert not torch.equal(first, pixels.batch([0, 3, 1, 6], [1, 2, 3, 4]))
    assert pixels.batch([0, 1], [0, 0]).shape == (2, 1, 16, 16)
    assert pixels.batch([], []).shape == (0, 1, 16, 16)
    order = zip((6, 1, 3, 0), (8, 7, 6, 5))  # a view does not depend on its batch or position
    one_by_one = torch.cat([pixels.batch([row], [seed]).expand(-1, 3, -1, -1) for row, seed in order])
    assert torch.equal(first, one_by_one.flip(0))


def test_runs_share_decoded_images(rows):
    store = ImageStore()
    for epoch in range(3):
        for chosen in (rows, rows.select([2, 3]), rows.select([6, 0])):
            pixels = TrainingPixels(chosen, PROCESSING, store=store)
            pixels.batch(range(len(chosen)), [epoch] * len(chosen))
    assert decodes.count == 6
    assert store.bytes == sum((40 + n) * 52 * (1 if n < 2 else 3) for n in range(6))


def test_precomputing_decodes_each_image_once(rows):
    pixels = TrainingPixels(rows, PROCESSING)
    pixels.precompute()
    assert decodes.count == 6
    pixels.batch(range(7), range(7))
    assert decodes.count == 6


def test_precomputing_stops_where_the_budget_ends(rows):
    pixels = TrainingPixels(rows, PROCESSING, budget_bytes=20000)
    pixels.precompute()
    kept = dict(pixels.store._kept)
    assert 2 <= len(kept) < 6
    pixels.precompute()
    assert list(pixels.store._kept) == list(kept)


def test_beyond_the_budget_images_are_decoded_again_and_that_is_said_once(rows, capsys):
    within, small = TrainingPixels(rows, PROCESSING), TrainingPixels(rows, PROCESSING, budget_bytes=20000)
    expected = within.batch(range(7), range(7))
    decodes.reset()
    for _ in range(3):
        assert torch.equal(small.batch(range(7), range(7)), expected)
        assert small.store.bytes <= 20000
    assert 6 < decodes.count <= 21
    assert capsys.readouterr().err.count("decoded again") == 1
    nothing = TrainingPixels(rows, PROCESSING, budget_bytes=0)
    assert torch.equal(nothing.batch(range(7), range(7)), expected)


def test_no_augmentation_is_what_evaluation_sees(rows):
    pixels = TrainingPixels(rows, PROCESSING, augmentation="none")
    sources = rows.cast_column("image", datasets.Image(decode=False))["image"]
    for row, image in enumerate(pixels.batch(range(7), range(7))):
        assert torch.equal(image, process(decode(sources[row]), PROCESSING).expand(3, -1, -1))
    assert torch.equal(pixels.view(3, 0), pixels.batch([3], [9])[0])


def test_fixed_views_belong_to_the_image_not_to_the_run(rows):
    pixels = TrainingPixels(rows, PROCESSING, augmentation="fixed-views", views=3)
    pixels.precompute()
    assert decodes.count == 6
    known = [{pixels.view(row, number).numpy().tobytes() for number in range(3)} for row in range(7)]
    assert all(len(views) == 3 for views in known)
    seen = [set() for _ in range(7)]
    for seed in range(20):
        for row in range(7):
            seen[row].add(pixels.batch([row], [seed]).numpy().tobytes())
    assert seen == known
    other = TrainingPixels(rows.select([4, 2]), PROCESSING, augmentation="fixed-views", views=3)
    assert torch.equal(other.view(0, 1), pixels.view(4, 1))
    fewer = TrainingPixels(rows, PROCESSING, augmentation="fixed-views", views=2)
    assert torch.equal(fewer.view(5, 1), pixels.view(5, 1))


def test_options_are_checked(rows):
    with pytest.raises(MedfmcError, match="crop-flip, fixed-views, none"):
        TrainingPixels(rows, PROCESSING, augmentation="mixup")
    with pytest.raises(MedfmcError, match="views"):
        TrainingPixels(rows, PROCESSING, augmentation="fixed-views", views=0)
    with pytest.raises(MedfmcError, match="fixed-views"):
        TrainingPixels(rows, PROCESSING).view(0, 0)


def test_another_device_gives_the_same_views(rows, monkeypatch):
    """The GPU's code path, run on the CPU: whole grey levels, of which at most a few differ by one or two from the CPU's."""
    here = TrainingPixels(rows, PROCESSING).batch(range(7), range(7))
    monkeypatch.setattr(augmentation, "resize", _float_resize)
    there = TrainingPixels(rows, PROCESSING).batch(range(7), range(7))
    difference = (here.int() - there.int()).abs()
    assert difference.max() <= 2 and difference.float().mean() < 0.05


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_cuts_the_views_itself(rows):
    here = TrainingPixels(rows, PROCESSING).batch(range(7), range(7))
    pixels = TrainingPixels(rows, PROCESSING, device="cuda")
    there = pixels.batch(range(7), range(7))
    assert there.device.type == "cuda"
    assert pixels._image(0).device.type == "cuda"
    difference = (here.int() - there.cpu().int()).abs()
    assert difference.max() <= 2 and difference.float().mean() < 0.05


def test_the_default_budget_is_stated():
    assert ImageStore().budget_bytes == module.IMAGE_BUDGET == 4 * 2**30
