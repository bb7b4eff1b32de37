"""A classification head for vision towers that transformers has no image classifier for (DINOv3, CLIP's and SigLIP's vision models)."""

import inspect

from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from .errors import MedfmcError


class TowerForImageClassification(PreTrainedModel):
    """A vision tower and a linear classifier on the vector the tower itself pools.

    The pooled vector is the tower's `pooler_output`: the normalised CLS token of DINOv3 and CLIP, attention pooling for SigLIP.
    `register` makes `AutoModelForImageClassification` know one such class for each kind of tower.
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
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
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
    known = AutoModelForImageClassification._model_mapping
    if type(config) in known:
        return AutoModelForImageClassification
    return AutoModelForImageClassification


def asks_for_interpolation(network: nn.Module) -> bool:
    """Whether the model or its tower has the switch `interpolate_pos_encoding`."""
    parts = [network, *network.children()]
    return any("interpolate_pos_encoding" in inspect.signature(part.forward).parameters for part in parts)
