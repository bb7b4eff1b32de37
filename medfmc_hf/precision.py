"""Chooses the precision of a run where its config says `auto`: bfloat16 where a probe says that it is clearly faster than float32.

A product of matrices decides first, in milliseconds: many processors emulate bfloat16 and are slower. Where it is faster, the network
itself is timed both ways. What came out is written down, for runs of one table shall have one precision: the next process, and a
grid that is taken up again, read it.
"""

import hashlib
import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from .files import write_json

_GAIN = 1.2  # a probe that is nearly even must not decide


def chosen(network: nn.Module, side: tuple[int, int], device: torch.device, folder: Path, key: tuple[str, ...]) -> str:
    """`float32` or `bfloat16`, as it was chosen before or as a probe now chooses.

    Args:
        network: maps `pixel_values`, (B, 3, height, width), to an output with `.logits`; on the device.
        side: (height, width) of its pictures.
        device: where it is.
        folder: where choices are written down.
        key: what the choice is for, such as the fingerprint of the network and the name of the device.
    """
    note = folder / f"{hashlib.sha256(repr((side, torch.get_num_threads(), torch.__version__, *key)).encode()).hexdigest()[:16]}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(note.with_suffix(".lock")):
        if not note.exists():
            gain = product_gain(device.type)
            write_json(note, {"bfloat16_gain": network_gain(network, side, device) if gain > _GAIN else gain})
        gain = json.loads(note.read_text(encoding="utf-8"))["bfloat16_gain"]
    return "bfloat16" if gain > _GAIN else "float32"


@cache
def product_gain(device: str, size: int = 1024) -> float:
    """How many times faster a bfloat16 matrix product is than a float32 one."""

    def product(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
        matrix = torch.ones(size, size, dtype=dtype, device=device)
        return lambda: matrix @ matrix

    return _gain(product(torch.float32), product(torch.bfloat16), rounds=5)


def network_gain(network: nn.Module, side: tuple[int, int], device: torch.device) -> float:
    """How many times faster a network runs forward and back to its picture in bfloat16 (autocast) than in float32."""
    pictures = torch.rand(4 if device.type == "cuda" else 1, 3, *side, generator=torch.Generator().manual_seed(0))
    pictures = pictures.to(device).requires_grad_()

    def step(enabled: bool) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            logits = network(pixel_values=pictures).logits
        return torch.autograd.grad(logits.float().sum(), pictures)[0].sum()

    was_training = network.training
    try:
        network.eval()
        return _gain(lambda: step(False), lambda: step(True), rounds=2)
    finally:
        network.train(was_training)


def _gain(single: Callable[[], torch.Tensor], half: Callable[[], torch.Tensor], rounds: int) -> float:
    """Seconds of one over seconds of the other: the best of some rounds in turn, after one that does not count."""
    seconds: dict[Callable, list[float]] = {single: [], half: []}
    for _ in range(rounds + 1):
        for work, times in seconds.items():
            begin = time.perf_counter()
            work().flatten()[0].item()  # waits for a GPU
            times.append(time.perf_counter() - begin)
    return min(seconds[single][1:]) / min(seconds[half][1:])
