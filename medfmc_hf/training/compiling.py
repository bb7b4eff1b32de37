"""Compiles the blocks of a network by torch.compile while a run trains and tests, where its config says so or a probe says that it pays.

Only the blocks are compiled, for they are alike: one takes the compiler ten to thirty seconds, the rest nothing. A few-shot run of some
seconds cannot win that back, and on a CPU the compiled network is no faster (a ViT-S with prompts: 1.0 times, after 30 s), so `auto` asks
for a GPU and for minutes of work before it tries.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..errors import MedfmcError
from ..progress import notify

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
