"""Writes the numbers of a `Processing` as an image processor of transformers, so that a saved adapter takes its pictures with it."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..files import write_json
from .processing import Processing

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

PROCESSOR = "preprocessor_config.json"


def save_processor(processing: Processing, folder: str | Path) -> Path:
    """Write `preprocessor_config.json` into an adapter's folder. `processing_of(folder)` reads the same numbers back.

    It is that of a `ViTImageProcessor`, which does whatever its numbers ask for: resize, crop, rescale, normalise.
    """
    squashed = processing.rule == "direct"
    values = {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": dict(zip(("height", "width"), processing.resize)) if squashed else {"shortest_edge": processing.resize[0]},
        "resample": int(Image.Resampling[processing.resample.upper()]),
        "do_center_crop": processing.resize != (processing.height, processing.width),
        "crop_size": {"height": processing.height, "width": processing.width},
        "do_rescale": True,
        "rescale_factor": processing.rescale,
        "do_normalize": True,
        "image_mean": list(processing.mean),
        "image_std": list(processing.std),
    }
    write_json(Path(folder) / PROCESSOR, values)
    return Path(folder) / PROCESSOR


def image_processor(processing: Processing) -> "BaseImageProcessor":
    """The image processor of transformers with these numbers; its pixels are those of `process` and `normalise` to one grey level."""
    from transformers import AutoImageProcessor

    with tempfile.TemporaryDirectory() as folder:
        save_processor(processing, folder)
        return AutoImageProcessor.from_pretrained(folder)
