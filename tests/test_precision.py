import json

import pytest
import torch
from tiny_models import tiny

from medfmc_hf import precision

CPU = torch.device("cpu")


def probe(monkeypatch, product, network):
    asked = []
    monkeypatch.setattr(precision, "product_gain", lambda device: asked.append("product") or product)
    monkeypatch.setattr(precision, "network_gain", lambda *args: asked.append("network") or network)
    return asked


@pytest.mark.parametrize(
    ("product", "network", "expected", "asked"),
    [
        (0.6, 9.0, "float32", ["product"]),  # emulated: the network is not even tried
        (2.0, 1.1, "float32", ["product", "network"]),
        (2.0, 1.7, "bfloat16", ["product", "network"]),
    ],
)
def test_bfloat16_is_chosen_where_product_and_network_gain(product, network, expected, asked, tmp_path, monkeypatch):
    seen = probe(monkeypatch, product, network)
    assert precision.chosen(None, (16, 16), CPU, tmp_path, ("backbone",)) == expected
    assert seen == asked


def test_a_choice_stands_for_the_processes_that_come_later(tmp_path, monkeypatch):
    probe(monkeypatch, 2.0, 1.7)
    precision.chosen(None, (16, 16), CPU, tmp_path, ("backbone", "device"))
    seen = probe(monkeypatch, 0.5, 0.5)
    assert precision.chosen(None, (16, 16), CPU, tmp_path, ("backbone", "device")) == "bfloat16"
    assert seen == []
    assert precision.chosen(None, (16, 16), CPU, tmp_path, ("backbone", "other device")) == "float32"
    assert sorted(json.loads(path.read_text())["bfloat16_gain"] for path in tmp_path.glob("*.json")) == [0.5, 1.7]


def test_the_probes_time_what_they_say(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(ticks) ** 2.0)  # every piece of work takes longer than the last
    works = []
    gain = precision._gain(lambda: works.append("single") or torch.ones(1), lambda: works.append("half") or torch.ones(1), rounds=2)
    assert works == ["single", "half"] * 3
    assert gain == (5**2 - 4**2) / (7**2 - 6**2)  # the best of each that counts


def test_the_network_is_left_as_it_was():
    model = tiny("vit").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    assert precision.network_gain(model, (16, 16), CPU) > 0
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
