from functools import partial

import pytest
import torch
from tiny_models import images, tiny

from medfmc_hf.adaptation import adapt
from medfmc_hf.errors import MedfmcError
from medfmc_hf.training import compiling


@pytest.fixture
def without_a_compiler(monkeypatch):
    """torch.compile captures the blocks and their gradients, and runs them by torch's own kernels: no C++ compiler is needed."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.mark.parametrize("method", ["lora", "vpt", "adaptformer", "full"])
def test_compiled_blocks_give_the_same_numbers_and_are_let_go(method, without_a_compiler):
    model = adapt.adapt(tiny("vit"), method)
    blocks = adapt.blocks_of(model)
    assert len(blocks) == 2

    def numbers():
        model.zero_grad()
        logits = model(pixel_values=images("vit")).logits
        logits.square().sum().backward()
        return logits.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    (logits, gradients), compiled = numbers(), None
    torch._dynamo.utils.counters.clear()
    with compiling.compiled(blocks):
        compiled = numbers()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    torch.testing.assert_close(compiled[0], logits)
    for own, plain in zip(compiled[1], gradients, strict=True):
        torch.testing.assert_close(own, plain, rtol=1e-4, atol=1e-5)
    assert not any("forward" in vars(block) for block in blocks)


def test_a_compiler_that_fails_is_a_clear_error(monkeypatch):
    def broken(*args):
        raise RuntimeError("no compiler found")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    torch._dynamo.reset()
    blocks = [tiny("vit").vit.layers[0]]
    with pytest.raises(MedfmcError, match="compile: off"), compiling.compiled(blocks):
        blocks[0](torch.ones(1, 5, 16))
    assert "forward" not in vars(blocks[0])


class Clock:
    """A step takes `plain` seconds, or `fast` once the block is compiled."""

    def __init__(self, monkeypatch, plain, fast):
        self.now, self.compiled, self.tried = 0.0, False, 0
        monkeypatch.setattr(compiling.time, "perf_counter", lambda: self.now)
        self.plain, self.fast, self.block = plain, fast, torch.nn.Linear(1, 1)
        monkeypatch.setattr(torch, "compile", self._compile)

    def _compile(self, function):
        self.tried += 1
        return object()

    def step(self):
        self.now += self.plain if "forward" not in vars(self.block) else self.fast


@pytest.mark.parametrize(
    ("plain", "fast", "steps", "expected", "tried"),
    [
        (0.05, 0.01, 100, False, 0),  # five seconds: the compiler is not even started
        (0.05, 0.02, 100_000, True, 1),
        (0.05, 0.048, 100_000, False, 1),
        (0.05, 0.07, 100_000, False, 1),
    ],
)
def test_auto_compiles_long_runs_that_gain(plain, fast, steps, expected, tried, monkeypatch):
    clock = Clock(monkeypatch, plain, fast)
    assert compiling.pays([clock.block], clock.step, steps, lambda probe: probe()) is expected
    assert clock.tried == tried and "forward" not in vars(clock.block)


def test_what_a_run_like_this_one_found_is_not_tried_again(monkeypatch):
    clock = Clock(monkeypatch, 0.05, 0.02)
    assert not compiling.pays([clock.block], clock.step, 100_000, lambda probe: 0.9)
    assert clock.tried == 0


def test_a_probe_that_fails_leaves_the_run_as_it_is(monkeypatch, capsys):
    clock = Clock(monkeypatch, 0.05, 0.02)

    def fail(function):
        raise torch._dynamo.exc.TorchDynamoException("no compiler")

    monkeypatch.setattr(torch, "compile", fail)
    assert not compiling.pays([clock.block], clock.step, 100_000, lambda probe: probe())
    assert "nothing is compiled" in capsys.readouterr().err
