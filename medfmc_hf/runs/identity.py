"""What makes two runs the same."""

import hashlib
import json
from typing import Any

from .config import PLAIN, RunConfig

SCHEMA = 2  # of records and ids. 1: ids had every option, and neither what the images are nor how CLIP's and SigLIP's vectors are pooled

# An option counts only where it differs from the default that it was born with, so that a new option leaves the ids of all runs that do not
# use it as they are. An entry stays what it is for ever, also where the default of `RunConfig` changes; a new option gets one of its
# own, and counts by its default until then.
WRITTEN_DOWN: dict[str, Any] = {
    "shots": 5,
    "seed": 0,
    "training_seed": None,
    "protocol": "clean",
    "method": "lora",
    "method_options": {},
    "image_size": None,
    "epochs": 20,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "optimizer": "adamw",
    "schedule": "cosine",
    "final_lr_fraction": 0.0,
    "warmup_epochs": 1.0,
    "gradient_clip": 1.0,
    "augmentation": "crop-flip",
    "loss": "auto",
    "sampling": "uniform",
    "select": "last",
    "dtype": "float32",
    "compile": "off",
    "predict_challenge": False,
}
BORN = PLAIN | WRITTEN_DOWN
NAMES = ("model", "revision", "recipe")  # under which things were found; what was found there counts


def identity(config: RunConfig, data_fingerprint: str, backbone_fingerprint: str) -> str:
    """What makes two runs the same: 16 hex digits of a SHA-256 over everything that determines the result.

    Args:
        config: the run's config. The names under which backbone and recipe were found do not count, their content does.
        data_fingerprint: hash of the rows of the dataset config and of their images.
        backbone_fingerprint: hash of the backbone's config and weights, or its commit on the Hub.
    """
    values = {name: value for name, value in config.to_dict().items() if name not in NAMES}
    chosen = {name: value for name, value in values.items() if name == "subset" or value != BORN[name]}
    determines = {"schema": SCHEMA, "data": data_fingerprint, "backbone": backbone_fingerprint, "config": chosen}
    return hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()[:16]
