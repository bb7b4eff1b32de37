"""Grids of runs that take a second each."""

from medfmc_hf.benchmark.grid import Grid

GRID = {"subsets": ["retino"], "shots": [1], "seeds": [0, 1], "overrides": {"epochs": 1, "batch_size": 8}}


def grid_of(backbone, methods, **changes) -> Grid:
    return Grid.from_dict(GRID | {"backbones": [str(backbone)], "methods": methods} | changes)
