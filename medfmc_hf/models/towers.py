"""A classification head for vision towers that transformers has no image classifier for (DINOv3, CLIP's and SigLIP's vision models)."""

import inspect

from torch import nn
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    AutoModelForImageClassification,
    CLIPVisionConfig,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    PretrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
)
from transformers.modeling_outputs import ImageClassifierOutput

from ..errors import MedfmcError


class TowerForImageClassification(PreTrainedModel):
    """A vision tower and a linear classifier on the vector the tower itself pools.

    The pooled vector is the tower's `pooler_output`: the normalised CLS token of DINOv3 and CLIP, attention pooling for SigLIP.
    `register` makes `AutoModelForImageClassification` know one subclass for each kind of tower.
    """

    base_model_prefix = "tower"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: PretrainedConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.tower = AutoModel.from_config(config)
        self.classifier = nn.Linear(_width(config), config.num_labels)
        self.post_init()

    def forward(self, pixel_values, labels=None, **kwargs):
        outputs = self.tower(pixel_values, **kwargs)
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions)


def loader_of(config: PretrainedConfig) -> type:
    """The class whose `from_pretrained` makes a classifier of a backbone: transformers' own where there is one.

    Raises:
        MedfmcError: the backbone is no vision model.
    """
    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        tower = MODEL_MAPPING.get(type(config), None)
        if getattr(tower, "main_input_name", None) != "pixel_values" or _width(config) is None:
            raise MedfmcError(
                f"{config.model_type} is no vision backbone: looked for an image classifier of it in transformers, and for a model that "
                "takes pixel_values and has a hidden_size."
            )
        register(type(config))
    return AutoModelForImageClassification


def register(config_class: type[PretrainedConfig]) -> None:
    """Make `AutoModelForImageClassification` give a tower with this config a head."""
    name = f"{config_class.__name__.removesuffix('Config')}ForImageClassification"
    classifier = type(name, (TowerForImageClassification,), {"config_class": config_class, "__module__": __name__})
    globals()[name] = classifier  # so that it can be pickled
    AutoModelForImageClassification.register(config_class, classifier, exist_ok=True)


def _width(config: PretrainedConfig) -> int | None:
    """Numbers in the vector that a tower pools."""
    return getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [None])[-1]


def needed_inputs(network: nn.Module) -> list[str]:
    """What the model, or the tower in it, must be given besides pixel_values."""
    parts = [network.tower] if isinstance(network, TowerForImageClassification) else [network]
    parameters = [each for part in parts for each in inspect.signature(part.forward).parameters.values()]
    ordinary = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in parameters if each.default is each.empty and each.kind in ordinary and each.name != "pixel_values"]


def asks_for_interpolation(network: nn.Module) -> bool:
    """Whether the model or its tower has the switch `interpolate_pos_encoding`."""
    parts = [network, *network.children()]
    return any("interpolate_pos_encoding" in inspect.signature(part.forward).parameters for part in parts)


for _known in (CLIPVisionConfig, DINOv3ConvNextConfig, DINOv3ViTConfig, SiglipVisionConfig):
    if _known not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        register(_known)  # at import, so that what was saved with such a head loads in any process; others follow when they are first met
