"""Tiny image classifiers, with random weights instead of the zeros and ones of a new model."""

import torch
import transformers as T

from medfmc_hf.models import vision_encoders  # noqa: F401  gives the DINOv3, CLIP and SigLIP encoders a classifier

_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
_SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 2}

CONFIGS = {
    "vit": lambda: T.ViTConfig(**_VIT, intermediate_size=24),
    "deit": lambda: T.DeiTConfig(**_VIT, intermediate_size=24, architectures=["DeiTForImageClassification"]),
    "deit teacher": lambda: T.DeiTConfig(**_VIT, intermediate_size=24, architectures=["DeiTForImageClassificationWithTeacher"]),
    "dinov2": lambda: T.Dinov2Config(**_VIT, mlp_ratio=2),
    "dinov2 registers": lambda: T.Dinov2WithRegistersConfig(**_VIT, mlp_ratio=2, num_register_tokens=3),
    "dinov3": lambda: T.DINOv3ViTConfig(**_VIT, intermediate_size=24, num_register_tokens=3),
    "clip vision": lambda: T.CLIPVisionConfig(**_VIT, intermediate_size=24),
    "clip": lambda: T.CLIPConfig(vision_config=T.CLIPVisionConfig(**_VIT, intermediate_size=24).to_dict()),
    "siglip vision": lambda: T.SiglipVisionConfig(**_VIT, intermediate_size=24),
    "beit": lambda: T.BeitConfig(**_VIT, intermediate_size=24, use_relative_position_bias=True, layer_scale_init_value=0.5),
    "swin": lambda: T.SwinConfig(**_SWIN),
    "swinv2": lambda: T.Swinv2Config(**_SWIN),
    "convnext": lambda: T.ConvNextConfig(image_size=32, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
    "resnet": lambda: T.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    "efficientnet": lambda: T.EfficientNetConfig(image_size=32, width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128),
}
TOKENS = ("vit", "deit", "deit teacher", "dinov2", "dinov2 registers", "dinov3", "clip vision", "clip", "siglip vision", "beit")
WINDOWS = ("swin", "swinv2")
CONVOLUTIONAL = ("convnext", "resnet", "efficientnet")


def tiny(name: str, classes: int = 4):
    """A classifier in evaluation mode; every parameter is random and differs from that of a new model."""
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config.num_labels = classes
    model = T.AutoModelForImageClassification.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images(name: str, n: int = 3) -> torch.Tensor:
    """(n, 3, side, side) at the model's own size."""
    size = getattr(CONFIGS[name](), "vision_config", CONFIGS[name]())
    side = getattr(size, "image_size", 32)
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def stir(model) -> None:
    """Move every weight that trains away from its initial value, as training would."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))


def plain(name: str, adapted):
    """The model as `tiny` makes it, with the trained head of an adapted one."""
    bare = tiny(name)
    trained = {n.removeprefix("base_model.model."): v for n, v in adapted.state_dict().items() if ".modules_to_save.default." in n}
    with torch.no_grad():
        for part, value in trained.items():
            bare.get_parameter(part.replace(".modules_to_save.default", "")).copy_(value)
    return bare
