from medfmc_hf.subsets import ConfigName
from medfmc_hf.training.shared import Shared


def test_shrunk_images_make_other_runs_and_embedding_alone_does_not(sample, sample_build, tmp_path):
    from medfmc_hf.data.build import build

    build([sample], tmp_path / "embedded", subsets=["retino"], embed=True)
    build([sample], tmp_path / "shrunk", subsets=["retino"], embed=True, max_side=32)
    name = ConfigName("retino", 1, 0)
    linked, embedded, shrunk = (Shared(data).data_fingerprint(name) for data in (sample_build, tmp_path / "embedded", tmp_path / "shrunk"))
    assert linked == embedded != shrunk
