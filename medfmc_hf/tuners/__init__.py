"""PEFT methods for vision backbones that PEFT lacks. Importing this package is all that PEFT needs to know them."""

from ..models import vision_encoders as _towers  # noqa: F401  gives CLIP, SigLIP and DINOv3 a classifier, so that adapters on them load too
from .bottleneck import BottleneckConfig, BottleneckModel
from .vpt import VptConfig, VptModel

__all__ = ["BottleneckConfig", "BottleneckModel", "VptConfig", "VptModel"]
