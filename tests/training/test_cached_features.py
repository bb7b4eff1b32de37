"""What is cached of a frozen network: the same numbers whatever is computed beside them, and after damage."""

import os

import numpy as np
import pytest
import torch

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.processing import Processing
from medfmc_hf.images.store import Reader, list_stores
from medfmc_hf.runs import RunConfig, load_predictions
from medfmc_hf.training import one_run
from medfmc_hf.training.cached_features import cache_rows
from medfmc_hf.training.one_run import train
from medfmc_hf.training.shared import Shared


@pytest.mark.parametrize(("method", "options"), [("linear", {}), ("partial", {"augmentation": "fixed-views"}), ("lora", {})])
def test_flipped_bytes_in_a_cache_change_no_result(sample_build, tiny_backbone, tmp_path, method, options):
    """Pixels, features and outputs of frozen blocks: every store is damaged, in many places."""
    config = RunConfig(subset="retino", shots=1, model=str(tiny_backbone), method=method, epochs=1, **options)
    right = load_predictions(train(config, shared=Shared(sample_build, cache=tmp_path / "cache"), out=tmp_path / "right")[0]).logits
    stores = list((tmp_path / "cache").glob("*/pixels.bin"))
    assert len(stores) == (1 if method == "lora" else 2)
    for path in stores:
        content = np.frombuffer(path.read_bytes(), np.uint8).copy()
        content[:: max(1, len(content) // 50)] ^= 0x40
        path.write_bytes(content.tobytes())
    Reader._sound.clear()  # as in a new process
    again = train(config, shared=Shared(sample_build, cache=tmp_path / "cache"), out=tmp_path / "again")[0]
    np.testing.assert_array_equal(load_predictions(again).logits, right)


def test_an_image_is_cached_the_same_whatever_is_computed_with_it(sample_build, tiny_backbone, tmp_path):
    cached = []
    for number, seeds in enumerate(([0], [1, 0])):
        shared = Shared(sample_build, cache=tmp_path / str(number))
        for seed in seeds:
            config = RunConfig(subset="retino", shots=1, seed=seed, method="linear", model=str(tiny_backbone))
            run = shared.resolve(config)
            with shared.acquire(run) as backbone:
                part = shared.evaluation_pixels(run.train, run.processing)
                (features,) = one_run.frozen_features(run, backbone, shared, [part])
        cached.append(features[:].numpy())
    assert np.array_equal(*cached)


class Rows:
    """Grey and colour images of 4 x 4 pixels, each of one value that its number tells."""

    def __init__(self, numbers: list[int]) -> None:
        self.identities = [b"%016d" % number for number in numbers]
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, indices) -> torch.Tensor:
        (number,) = [self._numbers[index] for index in indices]
        return torch.full((1, 1 if number % 2 else 3, 4, 4), number, dtype=torch.uint8)


class Network:
    """Sums of each image, (B, 2, 3); it notes the batches that it was given."""

    def __init__(self) -> None:
        self.batches = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(images.shape)
        sums = images.sum(dim=(2, 3))
        return torch.stack([sums, -sums], dim=1)


PLAIN = Processing(4, 4, (4, 4), rescale=1.0, mean=(0.0, 1.0, 2.0), std=(1.0, 1.0, 2.0))


def cached(network, parts, root, key=("backbone",)):
    where = {"root": root, "subset": "endo", "key": key, "what": "features", "device": torch.device("cpu")}
    return cache_rows(network, (2, 3), parts, PLAIN, **where)


def test_each_image_goes_through_the_network_once_and_comes_back_in_row_order(tmp_path):
    network = Network()
    first, second = cached(network, [Rows([5, 2, 5]), Rows([2, 8])], tmp_path)
    assert network.batches == [(1, 3, 4, 4)] * 3
    assert (len(first), len(second)) == (3, 2)
    for part, numbers in ((first, [5, 2, 5]), (second, [2, 8])):
        sums = np.array([[16 * n, 16 * (n - 1), 16 * (n - 2) / 2] for n in numbers])
        np.testing.assert_array_equal(part[:].numpy(), np.stack([sums, -sums], axis=1))
    np.testing.assert_array_equal(first[[1, 0]].numpy(), first[:].numpy()[[1, 0]])


def test_only_what_is_new_is_computed_and_another_key_is_another_store(tmp_path):
    cached(Network(), [Rows([1, 2, 3])], tmp_path)
    network = Network()
    cached(network, [Rows([3, 4]), Rows([1])], tmp_path)
    assert len(network.batches) == 1
    cached(network, [Rows([1, 2, 3, 4])], tmp_path)
    assert len(network.batches) == 1
    cached(network, [Rows([1, 2])], tmp_path, key=("another backbone",))
    assert len(network.batches) == 3 and len(list_stores(tmp_path)) == 2


def test_what_was_computed_before_an_error_is_not_computed_again(tmp_path):
    class Breaks(Network):
        def __call__(self, images):
            if len(self.batches) == 2:
                raise RuntimeError("out of memory")
            return super().__call__(images)

    with pytest.raises(RuntimeError, match="out of memory"):
        cached(Breaks(), [Rows([1, 2, 3, 4, 5])], tmp_path)
    network = Network()
    cached(network, [Rows([1, 2, 3, 4, 5])], tmp_path)
    assert len(network.batches) == 3


def test_a_cache_that_changes_while_it_is_read_is_an_error(tmp_path):
    (rows,) = cached(Network(), [Rows([1, 2])], tmp_path)
    (path,) = tmp_path.glob("*/pixels.bin")
    os.truncate(path, 24)
    with pytest.raises(MedfmcError, match="has changed while it was read"):
        rows[[1]]
