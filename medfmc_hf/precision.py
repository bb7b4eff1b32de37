"""Chooses the precision of a run where its config says `auto`: the faster one, by a probe."""

import time
from functools import cache

import torch

_GAIN = 1.2  # a probe that is nearly even must not fall one way today and the other way tomorrow


def resolve(dtype: str, device: torch.device) -> str:
    """`float32` or `bfloat16`; `auto` is bfloat16 where its matrix products are clearly faster than float32's."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if bfloat16_gain(device.type) > _GAIN else "float32"


@cache
def bfloat16_gain(device: str, size: int = 1024, rounds: int = 5) -> float:
    """How many times faster a bfloat16 matrix product is than a float32 one: many processors emulate it and are slower."""

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(size, size, dtype=dtype, device=device)
        begin = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        return time.perf_counter() - begin

    for dtype in (torch.bfloat16, torch.float32):
        seconds(dtype)  # the first is a warm-up
    times = [(seconds(torch.bfloat16), seconds(torch.float32)) for _ in range(rounds)]
    return min(single for _, single in times) / min(half for half, _ in times)
