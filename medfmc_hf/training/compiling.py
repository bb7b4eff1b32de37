"""Compiles the blocks of a network by torch.compile while a run trains and tests, where its config says so or a probe says that it pays.

Only the blocks are compiled, for they are alike: one takes the compiler ten to thirty seconds, the rest nothing. A few-shot run of some
seconds cannot win that back, and on a CPU the compiled network is no faster (a ViT-S with prompts: 1.0 times, after 30 s), so `auto` asks
for a GPU and for minutes of work before it tries.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState
from torch import nn

from ..errors import MedfmcError
from ..progress import notify
from .resolved import ResolvedRun

if TYPE_CHECKING:
    from .shared import Shared

_WORTH = 120.0  # seconds of training without the compiler below which it is not tried
_GAIN = 1.1  # times faster that a probe must say it is


@contextmanager
def compiled(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, the blocks run compiled; afterwards as they are.

    Raises:
        MedfmcError: the compiler failed.
    """
    try:
        for block in blocks:
            block.forward = torch.compile(block.forward)
        yield
    except Exception as error:
        if type(error).__module__.split(".")[:2] not in (["torch", "_dynamo"], ["torch", "_inductor"]):  # the compiler's own errors
            raise
        first = str(error).strip().splitlines()[0]
        raise MedfmcError(f"torch.compile failed ({first}); it needs a C++ compiler, on a GPU Triton. Use compile: off.") from error
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


@contextmanager
def compiled_where_it_pays(blocks: Sequence[nn.Module], step: Callable[[], None], run: ResolvedRun, shared: "Shared") -> Iterator[bool]:
    """Inside, the blocks run compiled if the run's config says so, or if a probe of a run like it says that it pays.

    Args:
        blocks: those of the network that are trained through.
        step: runs a training step that changes nothing, and waits for it.
        run: the run.
        shared: remembers what a probe said.

    Returns:
        Whether they are compiled.
    """
    config = run.config
    chosen = config.compile == "on"
    if config.compile == "auto" and blocks and run.device.type != "cpu" and PartialState().num_processes == 1:
        key = "compile", config.model, config.revision, config.image_size, config.method, repr(config.method_options), config.dtype
        steps = run.steps_per_epoch * config.epochs
        chosen = pays(blocks, step, steps, lambda probe: shared.cached((*key, min(len(run.train), config.batch_size)), probe))
    with compiled(blocks) if chosen else nullcontext():
        yield chosen


def pays(blocks: Sequence[nn.Module], step: Callable[[], None], steps: int, gain_once: Callable[[Callable[[], float]], float]) -> bool:
    """Whether a run is faster with its blocks compiled, by a probe.

    Args:
        blocks: of the network.
        step: runs a training step that changes nothing, and waits for it.
        steps: of the whole run.
        gain_once: gives what its argument returns, or what it returned when a run like this one asked before.
    """
    plain = _seconds(step)
    if plain * steps < _WORTH:
        return False

    def gain() -> float:
        try:
            with compiled(blocks):
                return plain / _seconds(step)
        except MedfmcError as error:
            notify(f"nothing is compiled: {error}")
            return 0.0

    return gain_once(gain) > _GAIN


def _seconds(step: Callable[[], None]) -> float:
    """The better of two, after one that does not count."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return min(times[1:])
