"""The grid file: subsets, shots, seeds, methods and backbones, and the run config of each combination."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MedfmcError
from ..hints import checked
from ..runs import RunConfig
from ..runs.recipes import read_options, recipe_names
from ..shipped import shipped
from ..subsets import SEEDS, SHOTS, SUBSETS

_AXES = {"subset", "shots", "seed", "training_seed", "model", "revision", "method", "recipe"}
_APART = 100  # step between the training seeds of one seed, so that no two runs of an experiment share one
_BACKBONE = ("model", "revision", "image_size")


@dataclass(frozen=True)
class Grid:
    """A benchmark: one run for every combination of its axes.

    The options of a run come from its method's recipe, `overrides`, the backbone's keys and the method's keys; later ones take precedence.
    Types and ranges are those of `RunConfig`.

    Attributes:
        backbones: Hub ids or folders, or mappings of `model`, `revision` and `image_size`.
        methods: names of methods or recipes, or mappings of `method` and options of a run, such as `{method: lora, learning_rate: 0.002}`.
        subsets: subset keys.
        shots: 1, 5, 10 or None for the whole pool (`all` in the file).
        seeds: seeds of the split, 0 to 4.
        repeat: number of training seeds per seed s: s, s + 100, s + 200 and so on.
        overrides: options of every run, such as `{epochs: 20, protocol: official}`.
    """

    backbones: Sequence[str | Mapping[str, Any]]
    methods: Sequence[str | Mapping[str, Any]]
    subsets: Sequence[str] = tuple(SUBSETS)
    shots: Sequence[int | None] = SHOTS
    seeds: Sequence[int] = SEEDS
    repeat: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Grid":
        """Make a grid from the keys of its file.

        Raises:
            MedfmcError: a key is unknown or missing, or a value has the wrong type; the message lists the known keys.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        _refuse_unknown("grid", values, known)
        absent = [name for name in ("backbones", "methods") if not values.get(name)]
        if absent:
            raise MedfmcError(f"the grid has no {' and no '.join(absent)}; it knows {', '.join(known)}.")
        values = dict(values)
        overrides = values.pop("overrides", None) or {}
        if not isinstance(overrides, Mapping):
            raise MedfmcError(f"overrides must be a mapping of `option: value` lines; got {overrides!r}.")
        repeat = checked("repeat", values.pop("repeat", 1), int, {"low": 1, "high": 1000})
        axes = {name: list(value) if isinstance(value, (list, tuple)) else [value] for name, value in values.items()}
        for name, axis in axes.items():
            if not axis:
                raise MedfmcError(f"{name} is empty; omit the key for all of them, or give at least one.")
        return cls(**axes, repeat=repeat, overrides=overrides)

    def configs(self) -> list[RunConfig]:
        """The distinct runs of the grid, by backbone and subset.

        Raises:
            MedfmcError: an option or a recipe is unknown, or a combination is not a valid config.
        """
        options = [f.name for f in dataclasses.fields(RunConfig) if f.name not in _AXES]
        _refuse_unknown("overrides", self.overrides, options)
        backbones = [_mapping("backbone", backbone, "model", _BACKBONE) for backbone in self.backbones]
        methods = [_mapping("method", method, "method", ("method", *options)) for method in self.methods]
        configs = {}
        for backbone, subset, method in itertools.product(backbones, self.subsets, methods):
            own = {name: value for name, value in method.items() if name != "method"}
            name = method["method"]
            kind = "recipe" if name in recipe_names() else "method"
            base = {"revision": None, **self.overrides, **backbone, **own, kind: name}
            base["method_options"] = {**(self.overrides.get("method_options") or {}), **(own.get("method_options") or {})}
            for shots, seed, number in itertools.product(self.shots, self.seeds, range(self.repeat)):
                config = RunConfig.from_dict(base | {"subset": subset, "shots": shots, "seed": seed})
                if number:
                    config = dataclasses.replace(config, training_seed=config.seed + _APART * number)
                configs[repr(config)] = config
        return list(configs.values())


def read_grid(path: str | Path) -> Grid:
    """Read a grid file.

    Raises:
        MedfmcError: the file does not exist, is not YAML, or does not describe a grid.
    """
    path = Path(path)
    values = read_options(path, "grid file", ", ".join(map(str, grid_files())))
    try:
        return Grid.from_dict(values)
    except MedfmcError as error:
        raise MedfmcError(f"{path}: {error}") from None


def grid_files() -> list[Path]:
    """The grid files that ship with the package."""
    return sorted(shipped("recipes/grids").glob("*.yaml"))


def _mapping(what: str, value: Any, name: str, known: Sequence[str]) -> dict[str, Any]:
    """A grid entry as a mapping, also if it is just a name."""
    if isinstance(value, str):
        return {name: value}
    if not isinstance(value, Mapping) or not isinstance(value.get(name), str):
        raise MedfmcError(f"a {what} must be a name or a mapping with the key {name}; got {value!r}.")
    _refuse_unknown(f"{what} {value[name]}", value, known)
    return dict(value)


def _refuse_unknown(what: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = sorted(map(str, set(values) - set(known)))
    if unknown:
        raise MedfmcError(f"unknown key {', '.join(unknown)} in {what}; it knows {', '.join(known)}.")
