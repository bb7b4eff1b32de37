"""PEFT methods for vision backbones that PEFT lacks. Importing this package registers them with PEFT."""

from ..models import vision_encoders as _vision_encoders  # noqa: F401  classifiers of CLIP, SigLIP and DINOv3, for their adapters to load
from .bottleneck import BottleneckConfig, BottleneckModel
from .vpt import VptConfig, VptModel

__all__ = ["BottleneckConfig", "BottleneckModel", "VptConfig", "VptModel"]
