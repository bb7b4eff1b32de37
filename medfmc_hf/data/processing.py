"""From a decoded picture to the tensor a backbone expects: the numbers of its image processor, the resize, the normalisation.

The numbers are those of the processor that the backbone names (`preprocessor_config.json`), read through transformers, which knows the
defaults of every processor class. The work is plain torch on uint8: no torchvision, and the values of transformers' PIL processors
to one grey level, several times faster (`benchmarks/pixels.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import MedfmcError
from ..progress import say

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESAMPLES = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # in the order of Pillow's numbers, which processors store


@dataclass(frozen=True)
class Processing:
    """All the numbers between a decoded picture and the backbone.

    A picture is resized, cropped at its centre (zeros outside it) to `height` x `width`, and normalised as `(x * rescale - mean) / std`.

    Attributes:
        height: rows of the result, in pixels.
        width: columns of the result, in pixels.
        resize: `(height, width)`, which squashes the picture to that size ("direct"), or `(edge,)`, which scales the shorter edge to
            `edge` and keeps the shape ("shortest-edge").
        resample: one of `RESAMPLES`.
        rescale: factor that is applied to 0..255 before normalising.
        mean: per channel (red, green, blue), subtracted after rescaling.
        std: per channel, divided by.
    """

    height: int
    width: int
    resize: tuple[int, int] | tuple[int]
    resample: str = "bicubic"
    rescale: float = 1 / 255
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.resample not in RESAMPLES:
            raise MedfmcError(f"resample is one of {', '.join(RESAMPLES)}; got {self.resample!r}.")
        if len(self.resize) not in (1, 2) or min(self.height, self.width, *self.resize) < 1:
            raise MedfmcError(f"sizes are at least one pixel; got {self.height} x {self.width}, resize {self.resize}.")
        if not all(self.std):
            raise MedfmcError(f"the standard deviation of a channel cannot be 0; got {self.std}.")

    @property
    def rule(self) -> str:
        """`direct` or `shortest-edge`."""
        return "direct" if len(self.resize) == 2 else "shortest-edge"

    @property
    def geometry(self) -> str:
        """What determines the uint8 pixels, as short text fit for a file name: two backbones that differ only in mean and std share it."""
        name = f"{self.height}x{self.width}-{self.resample}"
        if self.rule == "shortest-edge":
            return f"{name}-edge{self.resize[0]}"
        return name if self.resize == (self.height, self.width) else f"{name}-from{self.resize[0]}x{self.resize[1]}"

    def key(self) -> str:
        """All the numbers as stable text: equal text, equal tensors."""
        numbers = ",".join(f"{value:.9g}" for value in (self.rescale, *self.mean, *self.std))
        return f"{self.geometry}:{numbers}"


def processing_of(model: str, *, revision: str | None = None, image_size: int | None = None) -> Processing:
    """The numbers of a backbone's image processor.

    Args:
        model: Hub id or local folder of the backbone.
        revision: branch, tag or commit on the Hub.
        image_size: side of the square that the backbone shall see instead of its own size, in pixels. What the processor resizes to
            before cropping grows in proportion.

    Raises:
        MedfmcError: the backbone cannot be reached, or its processor does something that has no fixed-size equivalent here.
    """
    from transformers.models.auto.image_processing_auto import get_image_processor_config

    if image_size is not None and (isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1):
        raise MedfmcError(f"image_size is a whole number of pixels; got {image_size!r}.")
    try:
        values = get_image_processor_config(model, revision=revision)
    except (OSError, ValueError) as error:
        raise MedfmcError(f"the image processor of {model!r} cannot be read: {_first_line(error)}") from None
    if not values:
        return _default_processing(model, revision, image_size)
    processor = _processor(model, values)
    rule = _RULES.get(type(processor).__name__.removesuffix("Pil"), _generic)
    processing = rule(processor, image_size, f"the image processor of {model!r}")
    return replace(processing, mean=_three(processing.mean), std=_three(processing.std))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _three(values) -> tuple[float, float, float]:
    values = tuple(map(float, values)) if isinstance(values, Sequence) else (float(values),)
    return values * 3 if len(values) == 1 else values


def _default_processing(model: str, revision: str | None, image_size: int | None) -> Processing:
    from transformers import AutoConfig

    if image_size is None:
        try:
            config = AutoConfig.from_pretrained(model, revision=revision)
        except (OSError, ValueError) as error:
            raise MedfmcError(f"{model!r} has no image processor, and its config cannot be read: {_first_line(error)}") from None
        image_size = getattr(getattr(config, "vision_config", config), "image_size", None) or 224
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    say(f"{model} names no image processor: bicubic resize to {height} x {width} and ImageNet's mean and standard deviation are used.")
    return Processing(height, width, (height, width))


def _processor(model: str, values: dict):
    """An instance of the processor class that `values` names, in transformers' PIL flavour: it fills in the defaults of its class."""
    from transformers.image_processing_backends import PilBackend
    from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

    name = values.get("image_processor_type") or (values.get("feature_extractor_type") or "").replace("FeatureExtractor", "ImageProcessor")
    name = name.removesuffix("Fast").removesuffix("Pil")
    if name == "DINOv3ViTImageProcessor":
        # It exists for torchvision only, and rescales before it resizes, which is the same to half a grey level.
        values = {"resample": 2, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD), **values}
        name = "ViTImageProcessor"
    found = get_image_processor_class_from_name(name + "Pil") if name else None
    if found is None or not issubclass(found, PilBackend):
        raise MedfmcError(
            f"the image processor of {model!r} is {name or 'without a name'}, which has no PIL version in transformers; "
            "use a backbone with a ViT, DeiT, BEiT, CLIP, SigLIP, BiT, ConvNeXt or EfficientNet processor."
        )
    plain = all(
        getattr(found, step) is getattr(PilBackend, step) for step in ("_preprocess", "resize", "center_crop", "rescale", "normalize")
    )
    if name not in _RULES and not plain:
        raise MedfmcError(f"the image processor of {model!r} is {name}, whose steps medfmc_hf does not know; use another backbone.")
    return found(**{key: value for key, value in values.items() if key in found.valid_kwargs.__annotations__})


def _finish(processor, height: int, width: int, resize: tuple) -> Processing:
    """Rescaling and normalising, which all processors share."""
    return Processing(
        height=height,
        width=width,
        resize=resize,
        resample=RESAMPLES[int(processor.resample)] if processor.resample is not None else "bilinear",
        rescale=processor.rescale_factor if processor.do_rescale else 1.0,
        mean=processor.image_mean if processor.do_normalize else (0.0,),
        std=processor.image_std if processor.do_normalize else (1.0,),
    )


def _generic(processor, image_size: int | None, what: str) -> Processing:
    """Resize directly or by the shortest edge, then perhaps crop the centre."""
    size, crop = processor.size, processor.crop_size if processor.do_center_crop else None
    if getattr(processor, "do_pad", None):
        raise MedfmcError(f"{what} pads pictures to a common size; medfmc_hf does not. Use a backbone whose processor resizes.")
    if not processor.do_resize:
        fault = "does not resize"
    elif size.longest_edge or size.max_height:
        fault = "limits the longest edge, so that results differ in shape,"
    elif size.shortest_edge and not crop:
        fault = "resizes the shortest edge and does not crop, so that results differ in shape,"
    else:
        resize = (size.shortest_edge,) if size.shortest_edge else (size.height, size.width)
        height, width = (crop.height, crop.width) if crop else resize
        if image_size is not None:
            shorter = min(height, width)
            resize = tuple(max(1, round(edge * image_size / shorter)) for edge in (resize if height == width else resize[:1] * len(resize)))
            height = width = image_size
        return _finish(processor, height, width, resize)
    if image_size is None:
        raise MedfmcError(f"{what} {fault} and pictures could not share a batch; give image_size to resize to a square instead.")
    return _finish(processor, image_size, image_size, (image_size, image_size))


def _convnext(processor, image_size: int | None, what: str) -> Processing:
    """ConvNeXt, RegNet and ResNet: below 384 the shortest edge goes to size / crop_pct and the centre is cropped; else a squash."""
    if not processor.do_resize or not processor.size.shortest_edge:
        return _generic(processor, image_size, what)
    edge = image_size or processor.size.shortest_edge
    resize = (int(edge / processor.crop_pct),) if edge < 384 else (edge, edge)
    return _finish(processor, edge, edge, resize)


def _efficientnet(processor, image_size: int | None, what: str) -> Processing:
    """EfficientNet: perhaps an offset of -1 after rescaling, perhaps a second division by std."""
    processing = _generic(processor, image_size, what)
    mean, std = _three(processing.mean), _three(processing.std)
    if processor.do_rescale and processor.rescale_offset:
        mean = tuple(value + 1 for value in mean)
    if processor.include_top:
        std = tuple(a * b for a, b in zip(std, _three(processor.image_std)))
    return replace(processing, mean=mean, std=std)


# Processors whose steps differ from the generic ones in a way that is known here, by class name; BEiT's only adds label maps.
_RULES = {
    "BeitImageProcessor": _generic,
    "ConvNextImageProcessor": _convnext,
    "EfficientNetImageProcessor": _efficientnet,
}


def process(picture: np.ndarray | torch.Tensor, processing: Processing) -> torch.Tensor:
    """Resize and crop one picture.

    Args:
        picture: uint8, (H, W) grey or (H, W, 3) RGB.
        processing: as `processing_of` gives it.

    Returns:
        uint8, (C, height, width); C is 1 for grey and 3 for RGB. Within one grey level of transformers' PIL processor.
    """
    picture = torch.as_tensor(picture)
    channels_first = picture[None] if picture.ndim == 2 else picture.permute(2, 0, 1)
    height, width = channels_first.shape[1:]
    if processing.rule == "direct":
        size = processing.resize
    else:
        edge = processing.resize[0]
        size = (int(edge * height / width), edge) if width <= height else (edge, int(edge * width / height))
    return centre_crop(resize(channels_first, size, processing.resample), processing.height, processing.width)


def resize(picture: torch.Tensor, size: tuple[int, int], resample: str) -> torch.Tensor:
    """Antialiased resize of one uint8 picture (C, H, W) to `size`, (height, width), as Pillow does it; on the device the picture is on."""
    size = tuple(size)
    if tuple(picture.shape[1:]) == size:
        return picture.contiguous()
    if resample not in ("bilinear", "bicubic"):
        return _pillow_resize(picture, size, resample)
    if picture.device.type == "cpu":
        return F.interpolate(picture[None], size=size, mode=resample, antialias=True)[0].contiguous()
    # Other devices have no uint8 kernel.
    return F.interpolate(picture[None].float(), size=size, mode=resample, antialias=True)[0].round_().clamp_(0, 255).to(torch.uint8)


def _pillow_resize(picture: torch.Tensor, size: tuple[int, int], resample: str) -> torch.Tensor:
    """The kernels that torch lacks."""
    from PIL import Image

    array = picture.permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
    resized = np.array(image.resize(size[::-1], RESAMPLES.index(resample)))
    resized = torch.from_numpy(resized if resized.ndim == 3 else resized[..., None])
    return resized.permute(2, 0, 1).contiguous().to(picture.device)


def centre_crop(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The middle of a picture (C, H, W), with zeros where it is smaller than asked."""
    have_height, have_width = picture.shape[1:]
    if (have_height, have_width) == (height, width):
        return picture
    top, left = math.ceil(max(height - have_height, 0) / 2), math.ceil(max(width - have_width, 0) / 2)
    if top or left or have_height < height or have_width < width:
        padded = picture.new_zeros(picture.shape[0], max(height, have_height), max(width, have_width))
        padded[:, top : top + have_height, left : left + have_width] = picture
        picture = padded
        # transformers rounds the origin before it pads
        top, left = top + (have_height - height) // 2, left + (have_width - width) // 2
    else:
        top, left = (have_height - height) // 2, (have_width - width) // 2
    return picture[:, top : top + height, left : left + width].contiguous()


def normalise(
    batch: torch.Tensor, processing: Processing, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> torch.Tensor:
    """Rescale and normalise uint8 pixels, and give grey pictures three channels.

    Args:
        batch: uint8, (B, C, h, w), C = 1 or 3.
        processing: as `processing_of` gives it.
        dtype: of the result; the arithmetic is float32.
        device: where to; the bytes travel as uint8.

    Returns:
        (B, 3, h, w), `(x * rescale - mean) / std`.
    """
    batch = batch.to(device, non_blocking=True) if device is not None else batch
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (processing.mean, processing.std))
    scale = (processing.rescale / std).to(batch.device, torch.float32)
    offset = (-mean / std).to(batch.device, torch.float32)
    return torch.addcmul(offset, batch.float(), scale).to(dtype)
