"""PEFT methods for vision backbones that PEFT lacks. Importing this package is all that PEFT needs to know them."""

from .bottleneck import BottleneckConfig, BottleneckModel
from .vpt import VptConfig, VptModel

__all__ = ["BottleneckConfig", "BottleneckModel", "VptConfig", "VptModel"]
