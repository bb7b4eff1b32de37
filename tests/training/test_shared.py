import pytest
import torch

from medfmc_hf.runs import RunConfig
from medfmc_hf.subsets import ConfigName
from medfmc_hf.training.one_run import train
from medfmc_hf.training.shared import Shared


def test_shrunk_images_make_other_runs_and_embedding_alone_does_not(sample, sample_build, tmp_path):
    from medfmc_hf.data.build import build

    build([sample], tmp_path / "embedded", subsets=["retino"], embed=True)
    build([sample], tmp_path / "shrunk", subsets=["retino"], embed=True, max_side=32)
    name = ConfigName("retino", 1, 0)
    linked, embedded, shrunk = (Shared(data).data_fingerprint(name) for data in (sample_build, tmp_path / "embedded", tmp_path / "shrunk"))
    assert linked == embedded != shrunk


def hooks_of(model):
    return {name: [*part._forward_hooks.values(), *part._forward_pre_hooks.values()] for name, part in model.named_modules()}


@pytest.mark.parametrize("method", ["linear", "lora", "vpt", "adaptformer", "full", "partial", "bitfit", "dora", "linear-sgd"])
def test_a_run_gives_the_backbone_back_as_it_was(method, sample_build, tiny_backbone, tmp_path):
    shared = Shared(sample_build, cache=tmp_path / "cache")
    config = RunConfig("retino", shots=1, model=str(tiny_backbone), method=method, epochs=1, batch_size=8)
    run = shared.resolve(config)
    with shared.acquire(run) as model:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        hooks = hooks_of(model)
    train(config, shared=shared, out=tmp_path / "runs")
    with shared.acquire(run) as backbone:
        assert backbone is model, "it was not loaded again"
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert hooks_of(model) == hooks
