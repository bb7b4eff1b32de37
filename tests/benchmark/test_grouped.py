import copy

import numpy as np
import pytest
import torch
from torch import nn

from medfmc_hf.adaptation import adapt
from medfmc_hf.benchmark import grouped
from medfmc_hf.benchmark.grid import Grid
from medfmc_hf.benchmark.grid_plan import plan
from medfmc_hf.benchmark.sweep import sweep
from medfmc_hf.runs import load_predictions
from medfmc_hf.runs.folders import find_runs
from medfmc_hf.training import one_run
from medfmc_hf.training.shared import Shared


@pytest.fixture(scope="module")
def shared(sample_build, tmp_path_factory):
    return Shared(sample_build, cache=tmp_path_factory.mktemp("cache"))


def configs_of(backbone, method, options, **changes):
    method = {"method": method, "method_options": options, "epochs": 2, "batch_size": 4, "learning_rate": 2e-3}
    grid = {"backbones": [str(backbone)], "methods": [method], "subsets": ["retino"], "shots": [1], "seeds": [0, 1, 2]}
    return Grid.from_dict(grid | changes).configs()


def alone(config, shared):
    """The values and history of a run trained by `Loop.fit`."""
    run = shared.resolve(config)
    with shared.acquire(run) as backbone, one_run.adapted(backbone, run) as model:
        loop = one_run.Loop(run, one_run.make_accelerator(), one_run.Stopwatch())
        history = loop.fit(model, shared.training_pixels(run)).history
        return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}, history


CASES = [
    ("lora", {"lora_dropout": 0.0}),
    ("vpt", {"prompt_dropout": 0.0}),
    ("adaptformer", {"bottleneck_dropout": 0.0}),
    ("bitfit", {}),
]


@pytest.mark.parametrize(("method", "options"), CASES, ids=[method for method, _ in CASES])
def test_a_group_trains_each_run_as_it_is_alone(method, options, shared, tiny_backbone):
    known = adapt.method_of(method).options
    configs = configs_of(tiny_backbone, method, {name: value for name, value in options.items() if name in known})
    assert len({grouped.group_key(config) for config in configs}) == 1 and all(map(grouped.can_group, configs))
    together = grouped.train_group([shared.resolve(config) for config in configs], shared, one_run.make_accelerator())
    assert together is not None
    for config, run in zip(configs, together):
        values, history = run.values, run.history
        own, own_history = alone(config, shared)
        assert list(values) == list(own)
        for name in own:
            torch.testing.assert_close(values[name], own[name], atol=5e-5, rtol=1e-4)
        for epoch, own_epoch in zip(history, own_history, strict=True):
            assert epoch == pytest.approx(own_epoch, rel=1e-5)


def test_runs_of_different_length_share_a_group(shared, tiny_backbone):
    configs = configs_of(tiny_backbone, "lora", {"lora_dropout": 0.0}, shots=[1, 5], seeds=[0])
    together = grouped.train_group([shared.resolve(config) for config in configs], shared, one_run.make_accelerator())
    for config, run in zip(configs, together):
        values, history = run.values, run.history
        own, own_history = alone(config, shared)
        assert len(history) == len(own_history) == 2
        assert history[-1]["loss"] == pytest.approx(own_history[-1]["loss"], rel=1e-4)
        for name in own:
            torch.testing.assert_close(values[name], own[name], atol=5e-5, rtol=1e-3)


def test_dropout_is_not_grouped(shared, tiny_backbone):
    configs = configs_of(tiny_backbone, "lora", {"lora_dropout": 0.1})
    assert grouped.train_group([shared.resolve(config) for config in configs], shared, one_run.make_accelerator()) is None


@pytest.mark.parametrize(
    ("method", "options"),
    [("adalora", {}), ("peft", {"config": {"peft_type": "ADALORA", "total_step": 10, "tinit": 1, "tfinal": 1}})],
)
def test_adalora_is_not_grouped_under_either_name(method, options, shared, tiny_backbone):
    configs = configs_of(tiny_backbone, method, options)
    assert grouped.train_group([shared.resolve(config) for config in configs], shared, one_run.make_accelerator()) is None


@pytest.mark.parametrize("change", [{"select": "best"}, {"method": "linear", "recipe": "none", "method_options": {}}])
def test_what_cannot_be_grouped(change, tiny_backbone):
    from dataclasses import replace

    (config, *_) = configs_of(tiny_backbone, "lora", {})
    assert not grouped.can_group(replace(config, **change))


def test_a_grouped_sweep_leaves_the_runs_of_a_plain_one(shared, tiny_backbone, tmp_path):
    configs = configs_of(tiny_backbone, "lora", {"lora_dropout": 0.0})
    for name, size in (("plain", 1), ("grouped", 3)):
        table = sweep(plan(configs, shared, tmp_path / name, group=size), shared, tmp_path / name)
        assert table.count("finished") == 3
    runs = [dict((r.id, (f, r)) for f, r in find_runs(tmp_path / name)) for name in ("plain", "grouped")]
    assert runs[0].keys() == runs[1].keys()
    for run_id, (folder, record) in runs[0].items():
        other, other_record = runs[1][run_id]
        np.testing.assert_allclose(load_predictions(folder).logits, load_predictions(other).logits, atol=1e-4)
        assert other_record.cost["grouped"] == 3 and "grouped" not in record.cost
        assert {"start", "data", "train", "test"} <= set(other_record.cost["seconds"]), "loading and decoding are no training"
        assert {path.name for path in other.iterdir()} == {"run.json", "predictions.parquet", "adapter"}


def test_stacking_equals_a_loop_to_double_precision():
    """In float64, the gradients of runs in one pass are those of each run."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)).double()
    runs = [copy.deepcopy(dict(model[2].named_parameters(prefix="2"))) for _ in range(4)]
    runs = [{name: (p.detach() + torch.randn_like(p)).requires_grad_() for name, p in run.items()} for run in runs]
    images = torch.randn(4, 5, 6, dtype=torch.float64)
    stacked = {name: torch.stack([run[name] for run in runs]) for name in runs[0]}
    grouped.vmap(lambda values, x: grouped.functional_call(model, values, (x,)))(stacked, images).square().sum().backward()
    for run, x in zip(runs, images):
        own = {name: p.detach().clone().requires_grad_() for name, p in run.items()}
        grouped.functional_call(model, own, (x,)).square().sum().backward()
        for name in run:
            torch.testing.assert_close(run[name].grad, own[name].grad, rtol=1e-12, atol=1e-12)
