"""What is cached of a frozen network: the same numbers whatever is computed beside them, and after damage."""

import numpy as np
import pytest

from medfmc_hf.runs import RunConfig, load_predictions
from medfmc_hf.training import one_run
from medfmc_hf.training.one_run import train
from medfmc_hf.training.shared import Shared


@pytest.mark.parametrize(("method", "options"), [("linear", {}), ("partial", {"augmentation": "fixed-views"}), ("lora", {})])
def test_flipped_bytes_in_what_is_kept_change_no_result(sample_build, tiny_backbone, tmp_path, method, options):
    """Pixels, features and outputs of frozen blocks: every store is damaged, in many places."""
    from medfmc_hf.images.store import Reader

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


def test_an_image_is_kept_the_same_whatever_is_computed_with_it(sample_build, tiny_backbone, tmp_path):
    kept = []
    for number, seeds in enumerate(([0], [1, 0])):
        shared = Shared(sample_build, cache=tmp_path / str(number))
        for seed in seeds:
            config = RunConfig(subset="retino", shots=1, seed=seed, method="linear", model=str(tiny_backbone))
            run = shared.resolve(config)
            with shared.acquire(run) as backbone:
                part = shared.evaluation_pixels(run.train, run.processing)
                (features,) = one_run.frozen_features(run, backbone, shared, [part])
        kept.append(features[:].numpy())
    assert np.array_equal(*kept)
