"""The invented data of benchmarks/gpu.py is of the real one's scale, and builds. What the script measures is not tested."""

import sys
from pathlib import Path

import numpy as np
import pytest

from medfmc_hf.data.loading import read_manifest
from medfmc_hf.subsets import SUBSETS, config_names


@pytest.fixture(scope="module")
def invented():
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
    import invented

    yield invented
    sys.path.pop(0)


@pytest.mark.parametrize("key", SUBSETS)
def test_numbers_are_the_real_ones(invented, key):
    subset = SUBSETS[key]
    images = invented.images_of(subset)
    assert len({image.name for image in images}) == subset.images
    assert len({image.patient for image in images}) == subset.patients
    assert tuple(np.sum([image.labels for image in images], axis=0)) == subset.counts


def test_toy_builds_and_is_found_again(invented, tmp_path):
    folder = invented.invented_build(tmp_path, toy=True)
    configs = read_manifest(folder)["configs"]
    for key in SUBSETS:
        for config in config_names(key)[:16]:
            assert configs[str(config)]["train"]["rows"] > 0 and configs[str(config)]["test"]["rows"] > 0
    before = (folder / "medfmc_build.json").stat().st_mtime_ns
    assert invented.invented_build(tmp_path, toy=True) == folder
    assert (folder / "medfmc_build.json").stat().st_mtime_ns == before
