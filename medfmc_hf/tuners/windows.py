"""Visual prompts in Swin and SwinV2: the same prompts are in every window, and have no relative position.

Follows Jia et al. 2022 and their Swin code: attention from and to prompts has no position bias; the windows' outputs for a prompt are
averaged; where four patches are merged into one, a prompt is merged with itself. Their code distributes the prompts over windows in an
order that mixes the images of a batch after the first block; here every image keeps its own.

Shapes are written with B images, P prompts, a grid of H x W patches, windows of n patches, and tokens of width C.
"""

import math
from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.models.swin.modeling_swin import window_partition, window_reverse

from ..errors import MedfmcError
from .vpt_layer import VptLayer

Sides = tuple[int, int]  # height and width of a grid, in patches


class PromptedStage(VptLayer):
    """A stage of Swin or SwinV2 that runs with prompts in every window."""

    merging_steps: tuple[str, str]  # the modules of patch merging, in order
    mask_factor: int  # how many times transformers adds the mask of shifted windows to the scores

    def forward(self, hidden_states: torch.Tensor, input_dimensions: Sides, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        if self.role is None:
            return self.base_layer(hidden_states, input_dimensions, *args, **kwargs)
        adapter, role = self.role
        own = self.prompts(adapter, hidden_states.shape[0], hidden_states) if role.inserts else None
        if self.training and getattr(self.base_layer, "gradient_checkpointing", False):
            run = checkpoint(self._run, hidden_states, own, input_dimensions, use_reentrant=False)
        else:
            run = self._run(hidden_states, own, input_dimensions)
        prompts, patches, before_merging, sides = run
        tokens = patches if role.removes else torch.cat([prompts, patches], dim=1)
        return tokens, *self._other_outputs(patches, before_merging, input_dimensions, sides)

    def _run(self, tokens: torch.Tensor, own: torch.Tensor | None, sides: Sides) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Sides]:
        """Run the blocks of the stage and its patch merging.

        Args:
            tokens: tokens (B, P + H W, C); P is 0 if no prompts come from the previous stage.
            own: prompts of the stage, (B, blocks, P, C); each of these blocks starts with its own, which replace the previous ones.
            sides: H and W.

        Returns:
            Prompts and patches after merging, patches before it, and the sides of the grid after it.
        """
        stage: Any = self.base_layer
        count = tokens.shape[1] - sides[0] * sides[1]
        for index, block in enumerate(stage.blocks):
            if own is not None and index < own.shape[1]:
                tokens = torch.cat([own[:, index], tokens[:, count:]], dim=1)
                count = own.shape[2]
            tokens = self._block(block, tokens, count, sides)
        prompts, before_merging = tokens[:, :count], tokens[:, count:]
        if stage.downsample is None:
            return prompts, before_merging, before_merging, sides
        prompts = prompts.repeat(1, 1, 4)
        for step in self.merging_steps:
            prompts = getattr(stage.downsample, step)(prompts)
        return prompts, stage.downsample(before_merging, sides), before_merging, ((sides[0] + 1) // 2, (sides[1] + 1) // 2)

    def _attend(self, block: Any, tokens: torch.Tensor, count: int, sides: Sides) -> torch.Tensor:
        """Attention in windows that all contain the `count` prompts: tokens (B, P + H W, C) -> the same shape."""
        windows, padded = _cut_into_windows(block, tokens[:, count:], sides)  # (B, windows, n, C)
        prompts = tokens[:, None, :count].expand(-1, windows.shape[1], -1, -1)  # (B, windows, P, C)
        inside = torch.cat([prompts, windows], dim=2)  # (B, windows, P + n, C)
        bias = self._position_bias(block.attention)  # (1, heads, n, n)
        mask = block.get_attn_mask(*padded, dtype=tokens.dtype, device=tokens.device)  # (windows, n, n), None without a shift
        if mask is not None:
            bias = (bias + self.mask_factor * mask.unsqueeze(1)).repeat(len(tokens), 1, 1, 1)  # (B windows, heads, n, n)
        bias = F.pad(bias, (count, 0, count, 0))  # zeros for pairs with a prompt: (.., heads, P + n, P + n)
        inside = self._attention(block.attention, inside.flatten(0, 1), bias).view_as(inside)
        prompts = inside[:, :, :count].mean(dim=1)  # (B, P, C)
        patches = _join_windows(block, inside[:, :, count:], padded, sides)  # (B, H W, C)
        return torch.cat([prompts, patches], dim=1)

    @abstractmethod
    def _block(self, block: Any, tokens: torch.Tensor, count: int, sides: Sides) -> torch.Tensor:
        """Run one block on tokens (B, P + H W, C), of which the first `count` are prompts."""

    @abstractmethod
    def _position_bias(self, attention: Any) -> torch.Tensor:
        """Relative position bias of the patches in a window, (1, heads, n, n)."""

    @abstractmethod
    def _attention(self, attention: Any, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Attention among tokens (B windows, P + n, C), with a bias (1 or B windows, heads, P + n, P + n) on the scores."""

    @abstractmethod
    def _other_outputs(self, patches: torch.Tensor, before_merging: torch.Tensor, sides_before: Sides, sides: Sides) -> tuple[Any, Any]:
        """Outputs of a stage to the encoder besides its tokens."""


class PromptedSwinStage(PromptedStage):
    """A stage of Swin with prompts."""

    merging_steps = ("norm", "reduction")
    mask_factor = 1

    def _block(self, block: Any, tokens: torch.Tensor, count: int, sides: Sides) -> torch.Tensor:
        block.set_shift_and_window_size(sides)
        attended = self._attend(block, block.layernorm_before(tokens), count, sides)
        tokens = tokens + block.drop_path(block.dropout(attended))
        return tokens + block.dropout(block.mlp(block.layernorm_after(tokens)))

    def _position_bias(self, attention: Any) -> torch.Tensor:
        return attention.relative_position_bias()

    def _attention(self, attention: Any, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        query, key, value = (each(tokens).unflatten(2, (-1, attention.head_dim)).transpose(1, 2) for each in projections)
        dropout = attention.attention_dropout if attention.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype), dropout, scale=attention.scaling)
        return attention.o_proj(mixed.transpose(1, 2).flatten(2))

    def _other_outputs(self, patches: torch.Tensor, before_merging: torch.Tensor, sides_before: Sides, sides: Sides) -> tuple[Any, Any]:
        return patches.transpose(1, 2).unflatten(2, sides), None


class PromptedSwinV2Stage(PromptedStage):
    """A stage of SwinV2 with prompts: norms come after attention and MLP, and attention is by cosine similarity."""

    merging_steps = ("reduction", "norm")
    mask_factor = 2

    def _block(self, block: Any, tokens: torch.Tensor, count: int, sides: Sides) -> torch.Tensor:
        tokens = tokens + block.drop_path(block.layernorm_before(self._attend(block, tokens, count, sides)))
        return tokens + block.drop_path(block.layernorm_after(block.output(block.intermediate(tokens))))

    def _position_bias(self, attention: Any) -> torch.Tensor:
        own = attention.self
        table = own.continuous_position_bias_mlp(own.relative_coords_table).view(-1, own.num_attention_heads)
        return 16 * torch.sigmoid(table[own.relative_position_index].permute(2, 0, 1)).unsqueeze(0)

    def _attention(self, attention: Any, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        own = attention.self
        projections = (own.query, own.key, own.value)
        query, key, value = (each(tokens).unflatten(2, (own.num_attention_heads, -1)).transpose(1, 2) for each in projections)
        scale = own.logit_scale.clamp(max=math.log(100)).exp()
        scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1) * scale
        weights = own.dropout(F.softmax(scores + bias, dim=-1))
        return attention.output((weights.to(value.dtype) @ value).transpose(1, 2).flatten(2), tokens)

    def _other_outputs(self, patches: torch.Tensor, before_merging: torch.Tensor, sides_before: Sides, sides: Sides) -> tuple[Any, Any]:
        return before_merging, (*sides_before, *sides)


def prompted_stage(stage: nn.Module) -> PromptedStage:
    """Wrap a stage of Swin or SwinV2, distinguished by their attention.

    Raises:
        MedfmcError: it is a stage of neither.
    """
    blocks: Any = stage.blocks
    attention = getattr(blocks[0], "attention", None)
    if hasattr(attention, "self"):
        return PromptedSwinV2Stage(stage)
    if hasattr(attention, "relative_position_bias"):
        return PromptedSwinStage(stage)
    raise MedfmcError(
        f"prompts in windows support transformers' Swin and SwinV2 only; looked for attention.relative_position_bias or "
        f"attention.self in {type(blocks[0]).__name__} and found neither."
    )


def _cut_into_windows(block: Any, patches: torch.Tensor, sides: Sides) -> tuple[torch.Tensor, Sides]:
    """Pad the grid of patches (B, H W, C) to whole windows, roll it by the block's shift and cut it into windows.

    Returns:
        Windows (B, windows, n, C), and the sides of the padded grid.
    """
    grid, _ = block.maybe_pad(patches.unflatten(1, sides), *sides)  # (B, H, W, C)
    padded = (grid.shape[1], grid.shape[2])
    grid = torch.roll(grid, (-block.shift_size, -block.shift_size), dims=(1, 2))
    windows = window_partition(grid, block.window_size)  # (B windows, side, side, C)
    return windows.flatten(1, 2).unflatten(0, (len(patches), -1)), padded


def _join_windows(block: Any, windows: torch.Tensor, padded: Sides, sides: Sides) -> torch.Tensor:
    """Undo `_cut_into_windows`: windows (B, windows, n, C) -> patches (B, H W, C)."""
    windows = windows.flatten(0, 1).unflatten(1, (block.window_size, block.window_size))
    grid = window_reverse(windows, block.window_size, *padded)  # (B, padded H, padded W, C)
    grid = torch.roll(grid, (block.shift_size, block.shift_size), dims=(1, 2))
    return grid[:, : sides[0], : sides[1]].flatten(1, 2)
