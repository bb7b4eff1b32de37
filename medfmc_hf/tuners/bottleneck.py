"""Bottleneck adapters: small MLPs inside the blocks of a frozen backbone.

After attention and the MLP (Houlsby et al. 2019), after the MLP (Pfeiffer et al. 2021), or parallel to it (AdaptFormer, Chen et al. 2022).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft.utils.peft_types import PeftType
from torch import nn

from ..errors import MedfmcError
from ..models.structure import attention_output, mlp_module, mlp_output
from .base import VisionTuner, VisionTunerConfig, VisionTunerLayer
from .register import register

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


@dataclass
class BottleneckConfig(VisionTunerConfig):
    """Options of bottleneck adapters.

    An adapter maps x to scale * up(dropout(act(down(x)))). Its up-projection starts at zero, so the model starts equal to the backbone.

    Attributes:
        style: where adapters go. `houlsby`: added to the outputs of attention and MLP; `pfeiffer`: added to the output of the MLP;
            `adaptformer`: computed from the input of the MLP and added to its output.
        bottleneck_dim: width between the two projections.
        scale: factor on the adapter's output; None for the paper's, 1 for houlsby and pfeiffer and 0.1 for adaptformer.
        bottleneck_dropout: dropout on the input of the up-projection.
        activation: `relu`, `gelu` or `silu`.
        target_modules: modules that get an adapter on their output; None for the style's own targets.
    """

    style: Literal["houlsby", "pfeiffer", "adaptformer"] = "adaptformer"
    bottleneck_dim: int = 64
    scale: float | None = None
    bottleneck_dropout: float = 0.0
    activation: Literal["relu", "gelu", "silu"] = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType("BOTTLENECK")
        if self.style not in ("houlsby", "pfeiffer", "adaptformer"):
            raise MedfmcError(f"style must be houlsby, pfeiffer or adaptformer; got {self.style!r}.")
        if isinstance(self.bottleneck_dim, bool) or not isinstance(self.bottleneck_dim, int) or self.bottleneck_dim < 1:
            raise MedfmcError(f"bottleneck_dim must be a whole number of at least 1; got {self.bottleneck_dim!r}.")
        if not 0 <= self.bottleneck_dropout < 1:
            raise MedfmcError(f"bottleneck_dropout must be a number in [0, 1); got {self.bottleneck_dropout!r}.")
        if self.activation not in _ACTIVATIONS:
            raise MedfmcError(f"activation must be one of {', '.join(_ACTIVATIONS)}; got {self.activation!r}.")
        if self.scale is None:
            self.scale = 0.1 if self.style == "adaptformer" else 1.0


class Bottleneck(nn.Module):
    """scale * up(dropout(act(down(x)))) over the last dimension; zero at initialisation."""

    def __init__(self, width: int, config: BottleneckConfig):
        super().__init__()
        self.down = nn.Linear(width, config.bottleneck_dim)
        self.activation = _ACTIVATIONS[config.activation]()
        self.dropout = nn.Dropout(config.bottleneck_dropout)
        self.up = nn.Linear(config.bottleneck_dim, width)
        self.scale = config.scale
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.dropout(self.activation(self.down(x.to(self.down.weight.dtype))))) * self.scale


class BottleneckLayer(VisionTunerLayer):
    """A module with bottleneck adapters added to its output."""

    adapter_layer_names = ("bottleneck_adapters",)
    other_param_names = ("parallel",)

    def __init__(self, base_layer: nn.Module):
        super().__init__(base_layer)
        self.bottleneck_adapters = nn.ModuleDict()
        self.parallel: dict[str, bool] = {}

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result = self.base_layer(x, *args, **kwargs)
        for name in self.working_adapters:
            adapter = self.bottleneck_adapters[name]
            result = result + adapter(x if self.parallel[name] else result).to(result.dtype)
        return result


# How the module at each place is found, and what a block must have for it. All styles target the module that is the whole MLP, if there is
# one, so that one model can hold adapters of different styles.
_NEEDS = {
    "attention": (attention_output, "attention in every block"),
    "after MLP": (lambda block: mlp_module(block) or mlp_output(block), "an MLP (two Linear layers outside attention) in every block"),
    "parallel to MLP": (mlp_module, "an MLP that is one module in every block, to run in parallel with it"),
}
_PLACES = {"houlsby": ("attention", "after MLP"), "pfeiffer": ("after MLP",), "adaptformer": ("parallel to MLP",)}


def find_places(model: nn.Module, blocks: Iterable[str]) -> dict[str, dict[str, str | None]]:
    """Find where adapters can go: for each block, the module inside it at each place of `_NEEDS`, or None if the block has none.

    Args:
        model: image classifier without adapters.
        blocks: names of blocks.
    """
    return {name: {place: find(model.get_submodule(name)) for place, (find, _) in _NEEDS.items()} for name in blocks}


def targets_of(model: nn.Module, places: Mapping[str, Mapping[str, str | None]], style: str) -> list[str]:
    """Names of the modules that get adapters of a style.

    Args:
        model: image classifier.
        places: result of `find_places` for the blocks to adapt.
        style: style of `BottleneckConfig`.

    Raises:
        MedfmcError: a block lacks a place that the style needs.
    """
    targets = []
    for block, found in places.items():
        for place in _PLACES[style]:
            if found[place] is None:
                kind = type(model.get_submodule(block)).__name__
                raise MedfmcError(f"{style} adapters need {_NEEDS[place][1]}. The block {block}, a {kind}, has none.")
            targets.append(f"{block}.{found[place]}")
    return targets


class BottleneckModel(VisionTuner):
    """The tuner of `BottleneckConfig`."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    method = "bottleneck adapters"
    why_not_merged = "an adapter has a non-linear activation between its two projections, so no weight matrix is equivalent to it."

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        super()._pre_injection_hook(model, config, adapter_name)
        # Found before any adapter changes the modules, so that a second adapter of any style finds the same places.
        self.places = find_places(model, self.structure.blocks)

    def _find_targets(self, config: BottleneckConfig) -> list[str]:
        return targets_of(self.model, self.places, config.style)

    def _describe(self, config: BottleneckConfig) -> str:
        where = {"houlsby": "after attention and MLP", "pfeiffer": "after the MLP", "adaptformer": "parallel to the MLP"}[config.style]
        adapted = [name for name, _ in self.model.named_modules() if self._check_target_module_exists(config, name) is True]
        blocks = [block for block in self.structure.blocks if any(name.startswith(f"{block}.") for name in adapted)]
        blocks = blocks or list(self.structure.blocks)  # PEFT raises an error if target_modules matches nothing
        return f"{config.style}, {config.bottleneck_dim} wide, {where} of {blocks[0]} .. {blocks[-1]}"

    def _update(self, layer: BottleneckLayer, config: BottleneckConfig, adapter_name: str, key: str) -> None:
        linears = [part for part in layer.get_base_layer().modules() if isinstance(part, nn.Linear)]
        if not linears:
            raise MedfmcError(f"an adapter takes its width from a Linear layer; {key} has none.")
        layer.parallel[adapter_name] = config.style == "adaptformer"
        layer.bottleneck_adapters[adapter_name] = Bottleneck(linears[-1].out_features, config)


register("bottleneck", BottleneckConfig, BottleneckModel)
