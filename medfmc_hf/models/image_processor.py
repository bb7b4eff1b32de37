"""Converts a backbone's image processor to a `Processing`, and a `Processing` to an image processor of transformers."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ..errors import MedfmcError
from ..files import write_json
from ..images.grey_range import grey_range_of
from ..images.processing import IMAGENET, Processing, normalise, process
from ..images.resize import RESAMPLES
from ..progress import notify
from .backbones import read_config
from .checkpoint import Checkpoint, find_checkpoint, read_json

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

PROCESSOR = "preprocessor_config.json"
GREY = "medfmc_hf_grey_range"  # an entry of ours in it

# Classes of transformers that need torchvision -> an equivalent without it, to half a grey level (DINOv3 rescales before it resizes).
_WITHOUT_TORCHVISION = {
    "DINOv3ViTImageProcessor": {"image_processor_type": "ViTImageProcessor", "image_mean": IMAGENET[0], "image_std": IMAGENET[1]}
}


def processing_of(model: "str | Checkpoint", *, revision: str | None = None, image_size: int | None = None) -> Processing:
    """The `Processing` that a backbone's image processor does.

    A backbone without one gets a bicubic resize to its config's `image_size` (else 224) and ImageNet's mean and standard deviation, with
    a message.

    Args:
        model: Hub id or local folder of the backbone, or its `Checkpoint`.
        revision: branch, tag or commit on the Hub.
        image_size: side of the square input, in pixels, instead of the backbone's own. The size before the crop scales with it.

    Raises:
        MedfmcError: the backbone cannot be reached, or its processor does something that is not supported.
    """
    if image_size is not None and (isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1):
        raise MedfmcError(f"image_size must be a whole number of pixels; got {image_size!r}.")
    if isinstance(model, str) and Path(model).is_dir():  # possibly an adapter's folder, which has a processor and no backbone
        folder, name = Path(model), model
    else:
        model = find_checkpoint(model, revision)
        folder, name = model.folder, model.name
    values = _processor_values(folder, name)
    if not values:
        return _default(find_checkpoint(model), image_size)
    try:
        processor = _processor(folder, values)
    except Exception as error:  # a file may hold anything, and each class fails in its own way
        kind = values.get("image_processor_type") or values.get("feature_extractor_type")
        raise MedfmcError(
            f"the image processor of {name!r} ({kind}) cannot be used, because transformers cannot load it: {str(error).strip() or error!r}"
        ) from None
    try:
        return replace(_from_processor(processor, image_size), grey=grey_range_of(values.get(GREY)))
    except (MedfmcError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        kind = type(processor).__name__.removesuffix("Pil")
        raise MedfmcError(f"the image processor of {name!r} ({kind}) cannot be used: {error}") from None


def _processor(folder: Path, values: dict[str, Any]) -> Any:
    """The image processor of transformers, with the defaults of its class for what the file lacks."""
    from transformers import AutoImageProcessor

    how = {"backend": "pil", "local_files_only": True, "trust_remote_code": False}
    replaced = _WITHOUT_TORCHVISION.get(str(values.get("image_processor_type")).removesuffix("Fast"))
    if replaced is None:
        return AutoImageProcessor.from_pretrained(str(folder), **how)
    with tempfile.TemporaryDirectory() as temporary:
        write_json(Path(temporary) / PROCESSOR, {**replaced, **values, "image_processor_type": replaced["image_processor_type"]})
        return AutoImageProcessor.from_pretrained(temporary, **how)


def _processor_values(folder: Path, name: str) -> dict:
    """The image processor's values in a folder, empty if there are none. As in transformers, processor_config.json comes first."""
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
            f"{model!r} is a timm checkpoint, and timm's transforms need torchvision; use a transformers checkpoint of the same backbone."
        )
    size = image_size or getattr(getattr(config, "vision_config", config), "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else size
    notify(f"{model} has no image processor: using bicubic resize to {height} x {width}, and ImageNet's mean and standard deviation.")
    return Processing(height, width, (height, width))


def _from_processor(processor: Any, image_size: int | None) -> Processing:
    """The `Processing` that a processor does, checked against the processor itself on a random image."""

    def given(name: str) -> Any:
        return getattr(processor, name, None)

    if given("do_pad"):
        raise MedfmcError("it pads images to a common size, which is not supported.")
    rescale = given("rescale_factor") if given("do_rescale") else 1.0
    mean, std = ((0.0,) * 3, (1.0,) * 3) if not given("do_normalize") else (_three(given("image_mean")), _three(given("image_std")))
    if given("do_rescale") and given("rescale_offset"):  # EfficientNet shifts by -1 after rescaling
        mean = tuple(m + 1 for m in mean)
    if given("include_top"):  # and divides a second time
        std = tuple(s * d for s, d in zip(std, _three(given("image_std"))))
    numbers: dict[str, Any] = {"resample": RESAMPLES[int(given("resample"))], "rescale": rescale, "mean": mean, "std": std}
    try:
        height, width, resize = _geometry(processor)
        stock = Processing(height, width, resize, **numbers)
        if (levels := _difference(stock, processor)) > 1.01:
            raise MedfmcError(f"it does more than resize, crop, rescale and normalise: its pixels differ by {levels:.3g} grey levels.")
    except _NoFixedSize as error:
        if image_size is None:
            raise MedfmcError(f"{error}, so images could not be batched; give image_size to squash them to a square instead.") from None
        return Processing(image_size, image_size, (image_size, image_size), **numbers)
    if image_size is None:
        return stock
    if hasattr(processor, "crop_pct"):
        resize = _convnext_resize(image_size, processor.crop_pct)
    else:
        scales = (image_size / min(height, width),) if len(resize) == 1 else (image_size / height, image_size / width)
        resize = tuple(max(1, round(edge * scale)) for edge, scale in zip(resize, scales))
    return Processing(image_size, image_size, resize, **numbers)


class _NoFixedSize(Exception):
    """Why a processor's images are not all of one size."""


def _geometry(processor: Any) -> tuple[int, int, tuple[int, ...]]:
    """Height, width and `Processing.resize`.

    Raises:
        _NoFixedSize: its images are not all of one size.
    """
    size = {key: edge for key, edge in dict(processor.size).items() if edge is not None}
    crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
    if not processor.do_resize:
        raise _NoFixedSize("it does not resize")
    if hasattr(processor, "crop_pct") and set(size) == {"shortest_edge"} and not crop:
        return size["shortest_edge"], size["shortest_edge"], _convnext_resize(size["shortest_edge"], processor.crop_pct)
    if set(size) not in ({"shortest_edge"}, {"height", "width"}):
        raise _NoFixedSize(f"its size is {size}")
    if not crop and "shortest_edge" in size:
        raise _NoFixedSize("it keeps the aspect ratio of images and does not crop")
    resize = (size["shortest_edge"],) if "shortest_edge" in size else (size["height"], size["width"])
    height, width = (crop["height"], crop["width"]) if crop else (resize[0], resize[-1])
    return height, width, resize


def _convnext_resize(edge: int, crop_pct: float | None) -> tuple[int, ...]:
    """ConvNeXt's processor resizes to edge / crop_pct and crops below 384, and squashes from 384 on."""
    return (int(edge / (crop_pct or 224 / 256)),) if edge < 384 else (edge, edge)


def _difference(processing: Processing, processor: Any) -> float:
    """Largest difference of the pixels of a random image, in grey levels of 255; infinity if the shapes differ."""
    height, width = (5 * edge // 4 for edge in (processing.height, processing.width))
    image = np.random.default_rng(0).integers(0, 256, (height, width + 1, 3), np.uint8)
    theirs = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
    ours = normalise(process(image, processing)[None], processing)[0]
    if ours.shape != theirs.shape:
        return float("inf")
    return float(((ours - theirs).abs().amax((1, 2)) * torch.tensor(processing.std).abs() / processing.rescale).max())


def _three(values: float | Sequence[float]) -> tuple[float, ...]:
    numbers = tuple(map(float, values)) if isinstance(values, Sequence) else (float(values),)
    return numbers * 3 if len(numbers) == 1 else numbers


def save_processor(processing: Processing, folder: str | Path) -> Path:
    """Write `preprocessor_config.json` into an adapter's folder. `processing_of(folder)` reads the same values back.

    It is that of a `ViTImageProcessor`, which can do all of it: resize, crop, rescale, normalise.
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
    if processing.grey is not None:  # which transformers does not know: its own pipeline is not offered then
        values[GREY] = processing.grey.to_dict()
    write_json(Path(folder) / PROCESSOR, values)
    return Path(folder) / PROCESSOR


def image_processor(processing: Processing) -> "BaseImageProcessor":
    """The equivalent image processor of transformers; its pixels are those of `process` and `normalise` to one grey level."""
    from transformers import AutoImageProcessor

    with tempfile.TemporaryDirectory() as folder:
        save_processor(processing, folder)
        return AutoImageProcessor.from_pretrained(folder)
