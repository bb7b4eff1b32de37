import pytest

from medfmc_hf.data import loading
from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.rows import image_sources
from medfmc_hf.subsets import SUBSETS, ConfigName
from medfmc_hf.training.shared import Shared, read_linked


@pytest.mark.parametrize("name", ["endo-5shot-seed0", "retino", "colon-1shot-seed3-official", "chest-challenge"])
def test_reading_a_linked_build_gives_what_load_dataset_gives(name, sample_build):
    config = ConfigName.parse(name)
    ours, theirs = read_linked(sample_build, config), loading.load_splits(sample_build, config)
    subset = SUBSETS[config.subset]
    assert list(ours) == list(theirs)
    assert loading.fingerprint(ours, subset) == loading.fingerprint(theirs, subset)
    for split in ours:
        assert ours[split].features == theirs[split].features
        assert image_sources(ours[split]) == image_sources(theirs[split])
        assert ours[split][0]["image"].size == theirs[split][0]["image"].size


def test_what_is_no_linked_build_is_left_to_load_splits(sample_build, tmp_path):
    assert read_linked("someone/medfmc", ConfigName("endo")) is None
    with pytest.raises(MedfmcError):
        Shared(tmp_path / "nothing").splits(ConfigName("endo"))


def test_shrunk_images_make_other_runs_and_embedding_alone_does_not(sample, sample_build, tmp_path):
    from medfmc_hf.data.build import build

    build([sample], tmp_path / "embedded", subsets=["retino"], embed=True)
    build([sample], tmp_path / "shrunk", subsets=["retino"], embed=True, max_side=32)
    name = ConfigName("retino", 1, 0)
    linked, embedded, shrunk = (Shared(data).data_fingerprint(name) for data in (sample_build, tmp_path / "embedded", tmp_path / "shrunk"))
    assert linked == embedded != shrunk
