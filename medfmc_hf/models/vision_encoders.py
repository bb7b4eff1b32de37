"""A classification head for vision encoders without an image classifier in transformers, or without one that reads the pretrained vector.

DINOv3 and the vision models of CLIP and SigLIP have none. CLIP, SigLIP and similar checkpoints with a text encoder in the same file have
one, but it averages the patch tokens, before CLIP's final norm and without SigLIP's attention pooling, so the head would read a vector
that was never pretrained.
"""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    AutoModelForImageClassification,
    CLIPVisionConfig,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    MetaClip2VisionConfig,
    PretrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
)
from transformers.modeling_outputs import ImageClassifierOutput

from ..errors import MedfmcError


class VisionEncoderForImageClassification(PreTrainedModel):
    """A vision encoder and a linear classifier on the vector that the encoder pools.

    The pooled vector is the encoder's `pooler_output`: the normalised class token of DINOv3 and CLIP, attention pooling of SigLIP.
    `register` adds one subclass per encoder config to `AutoModelForImageClassification`.
    """

    base_model_prefix = "tower"  # part of the weight names in saved adapters
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: PretrainedConfig):
        super().__init__(config)
        self.num_labels = int(config.num_labels or 0)
        self.tower = AutoModel.from_config(config)
        self.classifier = nn.Linear(int(_width(config) or 0), self.num_labels)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any) -> ImageClassifierOutput:
        outputs = self.tower(pixel_values, **kwargs)
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions)


def vision_part(config: PretrainedConfig) -> PretrainedConfig:
    """The config of the vision encoder, if the backbone also has a text encoder; else the config itself."""
    part = getattr(config, "vision_config", None)
    return config if part is None or type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING else part


def pool_of(network: nn.Module) -> str:
    """The vector that the head reads, see `medfmc_hf.models.backbones.Origin`."""
    return "encoder" if isinstance(network, VisionEncoderForImageClassification) else "stock"


def from_pretrained(config: PretrainedConfig, folder: str, *, beside_text: bool, **options: Any) -> tuple[PreTrainedModel, dict]:
    """Load the backbone in a folder as a classifier; returns it and transformers' report of how its weights were loaded.

    Args:
        config: config of the backbone.
        folder: folder of its files.
        beside_text: whether `config` is the `vision_part` of a backbone with a text encoder.
        **options: options of transformers' `from_pretrained`.

    Raises:
        MedfmcError: the backbone is not a vision model.
    """
    loader = loader_of(config)
    if not beside_text:
        return loader.from_pretrained(folder, config=config, **options)
    encoder, report = AutoModel.from_pretrained(folder, config=config, **options)  # maps the weight names of such files
    network = loader.from_config(config)
    network.tower = encoder
    inside = {"missing_keys": [f"tower.{key}" for key in report["missing_keys"]]}
    inside["mismatched_keys"] = [f"tower.{key[0] if isinstance(key, tuple) else key}" for key in report["mismatched_keys"]]
    return network, {**report, **inside}


def loader_of(config: PretrainedConfig) -> type[AutoModelForImageClassification]:
    """The auto class that loads a backbone as a classifier; an encoder without a classifier in transformers is registered first.

    Raises:
        MedfmcError: the backbone is not a vision model.
    """
    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        if isinstance(config, MetaClip2VisionConfig):  # AutoModel lacks it
            from transformers import MetaClip2VisionModel

            AutoModel.register(MetaClip2VisionConfig, MetaClip2VisionModel, exist_ok=True)
        encoder = MODEL_MAPPING.get(type(config), None)
        if getattr(encoder, "main_input_name", None) != "pixel_values" or _width(config) is None:
            raise MedfmcError(
                f"{config.model_type} is not a vision backbone: looked in transformers for an image classifier, and for a model that "
                "takes pixel_values and has a hidden_size."
            )
        register(type(config))
    return AutoModelForImageClassification


def register(config_class: type[PretrainedConfig]) -> None:
    """Register a classifier for encoders with this config in `AutoModelForImageClassification`."""
    name = f"{config_class.__name__.removesuffix('Config')}ForImageClassification"
    classifier = type(name, (VisionEncoderForImageClassification,), {"config_class": config_class, "__module__": __name__})
    globals()[name] = classifier  # so that it can be pickled
    AutoModelForImageClassification.register(config_class, classifier, exist_ok=True)


def _width(config: PretrainedConfig) -> int | None:
    """Width of the vector that an encoder pools."""
    return getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [None])[-1]


def needed_inputs(network: nn.Module) -> list[str]:
    """Inputs that the model, or the encoder in it, requires besides pixel_values."""
    parts = [network.tower] if isinstance(network, VisionEncoderForImageClassification) else [network]
    parameters = [each for part in parts for each in inspect.signature(part.forward).parameters.values()]
    ordinary = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in parameters if each.default is each.empty and each.kind in ordinary and each.name != "pixel_values"]


def asks_for_interpolation(network: nn.Module) -> bool:
    """Whether the model or its encoder has the option `interpolate_pos_encoding`."""
    parts = [network, *network.children()]
    return any("interpolate_pos_encoding" in inspect.signature(part.forward).parameters for part in parts)


for _known in (CLIPVisionConfig, DINOv3ConvNextConfig, DINOv3ViTConfig, SiglipVisionConfig):
    if _known not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        register(_known)  # at import, so that saved models with such a head load in any process; other encoders when they are first loaded
