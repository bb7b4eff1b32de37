"""Visual prompt tuning: learned tokens among the patches (Jia et al. 2022, "Visual Prompt Tuning", ECCV)."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft.utils.peft_types import PeftType
from torch import nn

from ..errors import MedfmcError
from ..models.structure import attention_of, block_width, has_class_token, patch_pixels
from .base import VisionTuner, VisionTunerConfig
from .register import register
from .vpt_layer import PromptedBlock, Role, VptLayer
from .windows import prompted_stage


@dataclass
class VptConfig(VisionTunerConfig):
    """Options of visual prompt tuning.

    In a transformer the prompts come after the class token (first if there is none) and are removed before the final norm.
    In Swin they are in every window.

    Attributes:
        num_prompts: number of learned tokens, for each block if `deep`.
        deep: new prompts before every block (VPT-deep), or prompts inserted before the first block only (VPT-shallow).
        prompt_dropout: dropout on the prompts.
        projection: width of the prompts before a learned linear map to the width of the tokens, shared by all blocks; None for no map.
        init: `xavier`, the paper's uniform initialisation by the size of a patch, or `normal`, N(0, 0.02), as MedFMC's official baseline.
        pool_prompts: Swin with shallow prompts only: include the prompts in the mean over tokens that the head reads, as the official
            baseline does.
        target_modules: blocks (for Swin: stages) that get prompts; None for all.
    """

    num_prompts: int = 8
    deep: bool = True
    prompt_dropout: float = 0.0
    projection: int | None = None
    init: Literal["xavier", "normal"] = "xavier"
    pool_prompts: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType("VPT")
        if isinstance(self.num_prompts, bool) or not isinstance(self.num_prompts, int) or self.num_prompts < 1:
            raise MedfmcError(f"num_prompts must be a whole number of at least 1; got {self.num_prompts!r}.")
        if not 0 <= self.prompt_dropout < 1:
            raise MedfmcError(f"prompt_dropout must be a number in [0, 1); got {self.prompt_dropout!r}.")
        if self.init not in ("xavier", "normal"):
            raise MedfmcError(f"init must be xavier or normal; got {self.init!r}.")
        if self.pool_prompts and self.deep:
            raise MedfmcError("pool_prompts needs deep=False: the prompts of VPT-deep are removed after their block.")


class VptModel(VisionTuner):
    """The tuner of `VptConfig`."""

    prefix = "vpt_"
    tuner_layer_cls = VptLayer
    method = "visual prompt tuning"
    why_not_merged = "prompts are input tokens, not a change of weights."

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        super()._pre_injection_hook(model, config, adapter_name)
        self.position = int(has_class_token(model))
        self.patch_pixels = patch_pixels(model)
        self.projections: dict[str, nn.Linear] = {}  # a plain dict, so that each is saved once, with the layer that owns it
        if self.structure.family == "convolutional":
            raise MedfmcError("prompts are tokens, and a convolutional network has no sequence of tokens to insert them in.")
        for name in self.structure.blocks if self.structure.family == "tokens" else ():
            _refuse_unknown_bias(model.get_submodule(name))

    @property
    def _places(self) -> tuple[str, ...]:
        """Names of the modules that are wrapped: blocks, or the stages of Swin."""
        if self.structure.family == "tokens":
            return self.structure.blocks
        return tuple(dict.fromkeys(name.rsplit(".", 2)[0] for name in self.structure.blocks))

    def _find_targets(self, config: VptConfig) -> list[str]:
        return list(self._places)

    def _describe(self, config: VptConfig) -> str:
        places = self._chosen(config)
        where = f"before each part of {places[0]} .. {places[-1]}" if config.deep else f"from {places[0]} to {places[-1]}"
        return f"{config.num_prompts} prompts {where}"

    def _chosen(self, config: VptConfig) -> list[str]:
        chosen = [name for name in self._places if self._check_target_module_exists(config, name) is True]
        if not chosen:
            raise MedfmcError(f"prompts go before blocks, {self._places[0]} .. {self._places[-1]}; target_modules matches none of them.")
        return chosen

    def _wrap(self, target: nn.Module, key: str) -> VptLayer:
        if key not in self._places:
            raise MedfmcError(f"prompts go before blocks, {self._places[0]} .. {self._places[-1]}; {key} is not one of them.")
        if self.structure.family == "windows":
            return prompted_stage(target)
        return PromptedBlock(target, self.position)

    def _update(self, layer: VptLayer, config: VptConfig, adapter_name: str, key: str) -> None:
        self._refuse_what_does_not_fit(config)
        chosen = self._chosen(config)
        first, last = key == chosen[0], key == chosen[-1]
        inserts = config.deep or first
        layer.roles[adapter_name] = Role(config.num_prompts, inserts, config.deep or (last and not config.pool_prompts))
        layer.vpt_dropout[adapter_name] = nn.Dropout(config.prompt_dropout)
        if not inserts:
            return
        place: Any = layer.get_base_layer()
        width = block_width(place.blocks[0] if self.structure.family == "windows" else place)
        per_stage = (len(place.blocks) if config.deep else 1,) if self.structure.family == "windows" else ()
        layer.vpt_prompts[adapter_name] = nn.Parameter(self._initial(config, *per_stage, config.num_prompts, config.projection or width))
        if config.projection is None:
            return
        if first:
            self.projections[adapter_name] = nn.Linear(config.projection, width)
            nn.init.kaiming_normal_(self.projections[adapter_name].weight, a=0, mode="fan_out")
            layer.vpt_projection[adapter_name] = self.projections[adapter_name]
        layer.projections[adapter_name] = self.projections[adapter_name]

    def _refuse_what_does_not_fit(self, config: VptConfig) -> None:
        windows = self.structure.family == "windows"
        if windows and config.projection is not None:
            raise MedfmcError("projection needs one width of tokens; Swin's grows with each stage.")
        if config.pool_prompts and not windows:
            raise MedfmcError("pool_prompts is only for Swin, where the head reads the mean over all tokens.")

    def _initial(self, config: VptConfig, *shape: int) -> torch.Tensor:
        prompts = torch.empty(shape)
        if config.init == "normal":
            return nn.init.normal_(prompts, std=0.02)
        bound = math.sqrt(6 / (self.patch_pixels + shape[-1]))
        return nn.init.uniform_(prompts, -bound, bound)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        if not isinstance(adapter_name, str) and len(adapter_name) > 1:
            raise MedfmcError(f"{self.method} runs one adapter at a time; got {', '.join(adapter_name)}.")
        super().set_adapter(adapter_name, inference_mode)


def _refuse_unknown_bias(block: nn.Module) -> None:
    """Refuse a relative position bias inside attention: it cannot be extended there and would not fit the longer sequence."""
    attention = attention_of(block)
    names = [name for name, _ in attention.named_parameters() if "relative_position" in name] if attention else []
    if names:
        raise MedfmcError(
            f"{type(block).__name__} adds a relative position bias ({names[0]}) inside its attention, which does not allow for prompts."
        )


register("vpt", VptConfig, VptModel)
