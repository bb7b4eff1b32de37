"""The image processor of a backbone as the numbers of a `Processing`, and such numbers as a processor of transformers."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..errors import MedfmcError
from ..files import write_json
from ..images.processing import IMAGENET, Processing
from ..images.resize import RESAMPLES
from ..progress import notify
from .backbones import read_config
from .checkpoint import Checkpoint, find_checkpoint, read_json

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

PROCESSOR = "preprocessor_config.json"
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

# What each processor class of transformers does where a backbone's file is silent. Swin and ViT-MAE name ViT's, DINOv2 BiT's, ResNet and
# RegNet ConvNeXt's. DINOv3's rescales before it resizes, which is the same to half a grey level.
_SQUARE = {"size": {"height": 224, "width": 224}, "square": True, "crop": 224, "do_center_crop": False}
_EDGE = {"size": {"shortest_edge": 224}, "square": False, "crop": 224, "do_center_crop": True}
_CLASSES: dict[str, dict[str, Any]] = {
    "ViTImageProcessor": {**_SQUARE, "resample": 2, "normalise": _HALF},
    "DeiTImageProcessor": {**_SQUARE, "resample": 3, "normalise": _HALF, "size": {"height": 256, "width": 256}, "do_center_crop": True},
    "BeitImageProcessor": {**_SQUARE, "resample": 3, "normalise": _HALF},
    "SiglipImageProcessor": {**_SQUARE, "resample": 3, "normalise": _HALF, "square": False},
    "PvtImageProcessor": {**_SQUARE, "resample": 3, "normalise": IMAGENET},
    "DINOv3ViTImageProcessor": {**_SQUARE, "resample": 2, "normalise": IMAGENET},
    "CLIPImageProcessor": {**_EDGE, "resample": 3, "normalise": _CLIP},
    "BitImageProcessor": {**_EDGE, "resample": 3, "normalise": _CLIP},
    "ConvNextImageProcessor": {**_EDGE, "resample": 3, "normalise": _HALF, "size": {"shortest_edge": 384}, "do_center_crop": False},
    "EfficientNetImageProcessor": {**_SQUARE, "resample": 3, "normalise": _HALF, "size": {"height": 346, "width": 346}, "crop": 289},
}


def processing_of(model: "str | Checkpoint", *, revision: str | None = None, image_size: int | None = None) -> Processing:
    """The numbers of a backbone's image processor.

    A backbone without one gets a bicubic resize to its config's `image_size` (else 224) and ImageNet's mean and standard deviation, and a
    message says so.

    Args:
        model: Hub id or local folder of the backbone, or its `Checkpoint`.
        revision: branch, tag or commit on the Hub.
        image_size: side of the square that the backbone shall see instead of its own size, in pixels. What the processor resizes to
            before it crops grows in proportion.

    Raises:
        MedfmcError: the backbone cannot be reached, or its processor does something that is not done here.
    """
    if image_size is not None and (isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1):
        raise MedfmcError(f"image_size is a whole number of pixels; got {image_size!r}.")
    # An adapter's folder has a processor and no backbone.
    folder = Path(model) if isinstance(model, str) and Path(model).is_dir() else None
    checkpoint = None if folder else find_checkpoint(model, revision)
    values = _processor_values(folder or checkpoint.folder, str(folder or checkpoint.name))
    if not values:
        return _default(checkpoint or find_checkpoint(folder), image_size)
    model = str(folder or checkpoint.name)
    name = values.get("image_processor_type") or str(values.get("feature_extractor_type")).replace("FeatureExtractor", "ImageProcessor")
    name = name.removesuffix("Fast").removesuffix("Pil")
    if name not in _CLASSES:
        raise MedfmcError(f"the image processor of {model!r} is {name}; medfmc_hf knows {', '.join(_CLASSES)}.")
    try:
        return _from_values(name, values, image_size)
    except (MedfmcError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise MedfmcError(f"the image processor of {model!r} ({name}) cannot be used: {error}") from None


def _processor_values(folder: Path, name: str) -> dict:
    """What a folder says of its image processor; empty where it says nothing. As in transformers, processor_config.json goes first."""
    if (folder / "processor_config.json").is_file():
        nested = read_json(folder / "processor_config.json", name).get("image_processor")
        if isinstance(nested, dict):
            return nested
    path = folder / "preprocessor_config.json"
    return read_json(path, name) if path.is_file() else {}


def _default(checkpoint: "Checkpoint", image_size: int | None) -> Processing:
    model, config = checkpoint.name, read_config(checkpoint)
    if config.model_type == "timm_wrapper":
        raise MedfmcError(
            f"{model!r} is a timm checkpoint, whose transforms need torchvision; use a transformers checkpoint of the same backbone."
        )
    size = image_size or getattr(getattr(config, "vision_config", config), "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else size
    notify(f"{model} names no image processor: bicubic resize to {height} x {width}, and ImageNet's mean and standard deviation.")
    return Processing(height, width, (height, width))


def _from_values(name: str, values: dict, image_size: int | None) -> Processing:
    """A processor's file, on top of the defaults of its class."""
    default = _CLASSES[name]

    def value(key: str, otherwise: Any) -> Any:
        return otherwise if values.get(key) is None else values[key]

    if value("do_pad", False):
        raise MedfmcError("it pads images to a common size, which is not done here.")
    height, width, edges = _sizes(name, values, value, image_size)
    rescale = value("rescale_factor", 1 / 255) if value("do_rescale", True) else 1.0
    mean, std = _three(value("image_mean", default["normalise"][0])), _three(value("image_std", default["normalise"][1]))
    divisor = std
    if not value("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if name == "EfficientNetImageProcessor":
        if value("do_rescale", True) and value("rescale_offset", False):
            mean = tuple(m + 1 for m in mean)  # it shifts by -1 after rescaling
        if value("include_top", True):
            std = tuple(s * d for s, d in zip(std, divisor))  # and divides a second time
    return Processing(height, width, edges, RESAMPLES[int(value("resample", default["resample"]))], rescale, mean, std)


def _three(values: float | Sequence[float]) -> tuple[float, ...]:
    values = tuple(map(float, values)) if isinstance(values, Sequence) else (float(values),)
    return values * 3 if len(values) == 1 else values


def _size_dict(size: int | Sequence[int] | dict, square: bool) -> dict[str, int]:
    """The forms a size has had over the years, as the one of today."""
    if isinstance(size, dict):
        return {key: edge for key, edge in size.items() if edge is not None}
    if isinstance(size, Sequence):
        return dict(zip(("height", "width"), size, strict=True))
    return {"height": size, "width": size} if square else {"shortest_edge": size}


def _sizes(name: str, values: dict, value, image_size: int | None) -> tuple[int, int, tuple]:
    """Height, width and `Processing.resize`."""
    default = _CLASSES[name]
    size = _size_dict(value("size", default["size"]), value("default_to_square", default["square"]))
    crop = _size_dict(value("crop_size", default["crop"]), True) if value("do_center_crop", default["do_center_crop"]) else None
    problem = None
    if not value("do_resize", True):
        problem = "it does not resize"
    elif name == "ConvNextImageProcessor":  # below 384 it resizes to size / crop_pct and crops, from there on it squashes
        if set(size) == {"shortest_edge"} and not crop:
            edge = image_size or size["shortest_edge"]
            return edge, edge, (int(edge / value("crop_pct", 224 / 256)),) if edge < 384 else (edge, edge)
        problem = f"its size is {size} and it crops to {crop}"
    elif set(size) not in ({"shortest_edge"}, {"height", "width"}):
        problem = f"its size is {size}"
    elif not crop and "shortest_edge" in size:
        problem = "it keeps the shape of images and does not crop"
    if problem and image_size is None:
        raise MedfmcError(f"{problem}, so images could not share a batch; give image_size to squash them to a square instead.")
    if problem:
        return image_size, image_size, (image_size, image_size)
    edges = tuple(size.values()) if "shortest_edge" in size else (size["height"], size["width"])
    height, width = (crop["height"], crop["width"]) if crop else edges
    if image_size is None:
        return height, width, edges
    scales = (image_size / min(height, width),) if len(edges) == 1 else (image_size / height, image_size / width)
    return image_size, image_size, tuple(max(1, round(edge * scale)) for edge, scale in zip(edges, scales))


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
