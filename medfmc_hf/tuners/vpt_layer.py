"""The layers of visual prompt tuning: the base class that holds prompts, and a transformer block with prompts among its tokens."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.hooks import RemovableHandle

from .base import VisionTunerLayer


@dataclass(frozen=True)
class Role:
    """What a layer does for one adapter.

    Attributes:
        prompts: number of prompts in the sequence while the layer runs.
        inserts: whether the layer inserts prompts of its own.
        removes: whether the layer removes the prompts from its output.
    """

    prompts: int
    inserts: bool
    removes: bool


class VptLayer(VisionTunerLayer):
    """A part of the backbone that holds prompts and runs with them among its tokens."""

    adapter_layer_names = ("vpt_prompts", "vpt_projection")
    other_param_names = ("vpt_dropout", "roles")

    def __init__(self, base_layer: nn.Module):
        super().__init__(base_layer)
        self.vpt_prompts = nn.ParameterDict()
        self.vpt_projection = nn.ModuleDict()
        self.vpt_dropout = nn.ModuleDict()
        self.roles: dict[str, Role] = {}
        self.projections: dict[str, nn.Module] = {}  # shared by all layers, registered as a module in the first

    @property
    def role(self) -> tuple[str, Role] | None:
        """The working adapter and its role, or None if the layer adds nothing."""
        names = self.working_adapters
        return (names[0], self.roles[names[0]]) if names else None

    def prompts(self, adapter: str, batch_size: int, like: torch.Tensor) -> torch.Tensor:
        """The layer's prompts, (B, ..., prompts, width), in the dtype of the tokens."""
        prompts = self.vpt_prompts[adapter]
        if adapter in self.projections:
            prompts = self.projections[adapter](prompts)
        prompts = self.vpt_dropout[adapter](prompts).to(like.dtype)
        return prompts.expand(batch_size, *prompts.shape)


class PromptedBlock(VptLayer):
    """A transformer block that runs with prompts among its tokens."""

    def __init__(self, base_layer: nn.Module, position: int):
        super().__init__(base_layer)
        self.position = position
        # BEiT adds a bias for each pair of positions inside the block; prompts have no position, so their bias is zero.
        bias = getattr(base_layer, "relative_position_bias", None)
        self.hooks: list[RemovableHandle] = []
        if isinstance(bias, nn.Module):
            self.hooks.append(bias.register_forward_pre_hook(self._without_prompts, with_kwargs=True))
            self.hooks.append(bias.register_forward_hook(self._with_prompts))

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.role is None:
            return self.base_layer(hidden_states, *args, **kwargs)
        adapter, role = self.role
        end = self.position + role.prompts
        if role.inserts:
            prompts = self.prompts(adapter, hidden_states.shape[0], hidden_states)
            hidden_states = torch.cat([hidden_states[:, : self.position], prompts, hidden_states[:, self.position :]], dim=1)
        if isinstance(kwargs.get("attention_mask"), torch.Tensor):
            kwargs["attention_mask"] = self._widen(kwargs["attention_mask"], role.prompts)
        outputs = self.base_layer(hidden_states, *args, **kwargs)
        if not role.removes:
            return outputs
        tokens = outputs[0] if isinstance(outputs, tuple) else outputs
        tokens = torch.cat([tokens[:, : self.position], tokens[:, end:]], dim=1)
        return (tokens, *outputs[1:]) if isinstance(outputs, tuple) else tokens

    def release(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def _without_prompts(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.role and kwargs.get("dim_size") is not None:
            kwargs = kwargs | {"dim_size": kwargs["dim_size"] - self.role[1].prompts}
        return args, kwargs

    def _with_prompts(self, module: nn.Module, args: tuple[Any, ...], bias: torch.Tensor) -> torch.Tensor:
        return self._widen(bias, self.role[1].prompts) if self.role else bias

    def _widen(self, bias: torch.Tensor, prompts: int) -> torch.Tensor:
        """(..., N, N) -> (..., N + prompts, N + prompts), with zeros for pairs with a prompt."""
        start = self.position
        bias = torch.cat([F.pad(bias[..., :start], (0, prompts)), bias[..., start:]], dim=-1)
        return torch.cat([F.pad(bias[..., :start, :], (0, 0, 0, prompts)), bias[..., start:, :]], dim=-2)
