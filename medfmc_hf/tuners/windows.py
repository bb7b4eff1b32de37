"""Visual prompts in Swin and SwinV2: the same prompts stand in every window, and have no relative position.

Follows Jia et al. 2022 and their Swin code: in each window the prompts attend and are attended without bias; what the windows make of
a prompt is averaged; where four patches are merged into one, a prompt is merged with itself. Their code spreads the prompts over
windows in an order that mixes the images of a batch after the first block; here every image keeps its own.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.models.swin.modeling_swin import window_partition, window_reverse

from ..errors import MedfmcError
from .vpt import VptLayer


class PromptedStage(VptLayer):
    """A stage of Swin that runs with prompts in every window."""

    def __init__(self, base_layer: nn.Module):
        super().__init__(base_layer)
        attention = getattr(base_layer.blocks[0], "attention", None)
        self.is_v2 = hasattr(attention, "self")
        if not (self.is_v2 or hasattr(attention, "relative_position_bias")):
            raise MedfmcError(
                f"prompts in windows are written for transformers' Swin and SwinV2; looked for attention.relative_position_bias or "
                f"attention.self in {type(base_layer.blocks[0]).__name__} and found neither."
            )

    def forward(self, hidden_states: torch.Tensor, input_dimensions: tuple[int, int], *args, **kwargs):
        if self.role is None:
            return self.base_layer(hidden_states, input_dimensions, *args, **kwargs)
        adapter, role = self.role
        own = self.prompts(adapter, hidden_states.shape[0], hidden_states) if role.inserts else None
        if self.training and getattr(self.base_layer, "gradient_checkpointing", False):
            run = checkpoint(self._run, hidden_states, own, input_dimensions, use_reentrant=False)
        else:
            run = self._run(hidden_states, own, input_dimensions)
        tokens, before_merging, dimensions = run
        patches = tokens[:, tokens.shape[1] - dimensions[0] * dimensions[1] :]
        if role.strips:
            tokens = patches
        if self.is_v2:
            return tokens, before_merging, (*input_dimensions, *dimensions)
        as_map = patches.transpose(1, 2).unflatten(2, dimensions)
        return tokens, as_map, None

    def _run(self, tokens: torch.Tensor, own: torch.Tensor | None, dimensions: tuple[int, int]):
        stage = self.base_layer
        carried = tokens.shape[1] - dimensions[0] * dimensions[1]
        prompts, patches = tokens[:, :carried], tokens[:, carried:]
        for index, block in enumerate(stage.blocks):
            if own is not None and index < own.shape[1]:
                prompts = own[:, index]
            prompts, patches = self._block(block, prompts, patches, dimensions)
        before_merging = patches
        if stage.downsample is not None:
            patches = stage.downsample(patches, dimensions)
            prompts = self._merge_prompts(stage.downsample, prompts)
            dimensions = ((dimensions[0] + 1) // 2, (dimensions[1] + 1) // 2)
        return torch.cat([prompts, patches], dim=1), before_merging, dimensions

    def _merge_prompts(self, merging: nn.Module, prompts: torch.Tensor) -> torch.Tensor:
        steps = (merging.reduction, merging.norm) if self.is_v2 else (merging.norm, merging.reduction)
        return steps[1](steps[0](prompts.repeat(1, 1, 4)))

    def _block(self, block: nn.Module, prompts: torch.Tensor, patches: torch.Tensor, dimensions: tuple[int, int]):
        """One Swin block over prompts (B, P, C) and patches (B, H W, C)."""
        count = prompts.shape[1]
        tokens = torch.cat([prompts, patches], dim=1)
        if self.is_v2:
            tokens = tokens + block.drop_path(block.layernorm_before(self._attend(block, tokens, count, dimensions)))
            tokens = tokens + block.drop_path(block.layernorm_after(block.output(block.intermediate(tokens))))
        else:
            block.set_shift_and_window_size(dimensions)
            attended = self._attend(block, block.layernorm_before(tokens), count, dimensions)
            tokens = tokens + block.drop_path(block.dropout(attended))
            tokens = tokens + block.dropout(block.mlp(block.layernorm_after(tokens)))
        return tokens[:, :count], tokens[:, count:]

    def _attend(self, block: nn.Module, tokens: torch.Tensor, count: int, dimensions: tuple[int, int]) -> torch.Tensor:
        """Attention inside windows that all hold the prompts: (B, P + H W, C) -> the same."""
        batch, _, channels = tokens.shape
        prompts, patches = tokens[:, :count], tokens[:, count:]
        size, shift = block.window_size, block.shift_size
        grid, _ = block.maybe_pad(patches.view(batch, *dimensions, channels), *dimensions)
        _, height, width, _ = grid.shape
        mask = block.get_attn_mask(height, width, dtype=tokens.dtype, device=tokens.device)
        grid = torch.roll(grid, (-shift, -shift), dims=(1, 2)) if shift > 0 else grid
        windows = window_partition(grid, size).view(batch, -1, size * size, channels)
        prompts = prompts.unsqueeze(1).expand(-1, windows.shape[1], -1, -1)
        inside = torch.cat([prompts, windows], dim=2).flatten(0, 1)
        attended = (_attention_v2 if self.is_v2 else _attention)(block.attention, inside, mask, count)
        attended = attended.unflatten(0, (batch, -1))
        prompts = attended[:, :, :count].mean(dim=1)
        grid = window_reverse(attended[:, :, count:].reshape(-1, size, size, channels), size, height, width)
        grid = torch.roll(grid, (shift, shift), dims=(1, 2)) if shift > 0 else grid
        patches = grid[:, : dimensions[0], : dimensions[1]].reshape(batch, -1, channels)
        return torch.cat([prompts, patches], dim=1)


def _attention(attention: nn.Module, tokens: torch.Tensor, mask: torch.Tensor | None, count: int) -> torch.Tensor:
    """Swin's attention with a bias of zero for the first `count` tokens of each window."""
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (each(tokens).unflatten(2, (-1, attention.head_dim)).transpose(1, 2) for each in projections)
    bias = _extended(attention.relative_position_bias(), mask, tokens.shape[0], count)
    dropout = attention.attention_dropout if attention.training else 0.0
    mixed = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype), dropout, scale=attention.scaling)
    return attention.o_proj(mixed.transpose(1, 2).flatten(2))


def _attention_v2(attention: nn.Module, tokens: torch.Tensor, mask: torch.Tensor | None, count: int) -> torch.Tensor:
    """SwinV2's cosine attention with a bias of zero for the first `count` tokens of each window."""
    own = attention.self
    projections = (own.query, own.key, own.value)
    query, key, value = (each(tokens).unflatten(2, (own.num_attention_heads, -1)).transpose(1, 2) for each in projections)
    scale = own.logit_scale.clamp(max=math.log(100)).exp()
    table = own.continuous_position_bias_mlp(own.relative_coords_table).view(-1, own.num_attention_heads)
    bias = 16 * torch.sigmoid(table[own.relative_position_index].permute(2, 0, 1)).unsqueeze(0)
    scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1) * scale
    weights = own.dropout(F.softmax(scores + _extended(bias, mask, tokens.shape[0], count), dim=-1))
    return attention.output((weights.to(value.dtype) @ value).transpose(1, 2).flatten(2), tokens)


def _extended(bias: torch.Tensor, mask: torch.Tensor | None, windows: int, count: int) -> torch.Tensor:
    """Bias (1, heads, n, n) and shift mask (windows of an image, n, n) as (1 or all windows, heads, count + n, count + n)."""
    bias = F.pad(bias, (count, 0, count, 0))
    if mask is None:
        return bias
    mask = F.pad(mask, (count, 0, count, 0)).unsqueeze(1)
    return bias + mask.repeat(windows // mask.shape[0], 1, 1, 1)
