"""Loads a backbone from the Hub or a folder, with a new classification head for a subset."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import transformers
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForImageClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from ..errors import MedfmcError
from ..subsets import Subset
from . import vision_encoders
from .checkpoint import CONFIG, Checkpoint, find_checkpoint, read_json
from .structure import head_names

_PROBLEM: dict[str, Literal["single_label_classification", "multi_label_classification"]] = {
    "single-label": "single_label_classification",
    "multi-label": "multi_label_classification",
}


@dataclass(frozen=True)
class Origin:
    """Where a loaded backbone came from; `load_backbone` stores it as `model.origin`.

    Attributes:
        model: id on the Hub, or absolute path of a local folder.
        revision: commit on the Hub; None for a local folder.
        image_size: side of the square input, in pixels.
        subset: key of the subset that the head is for.
        pool: vector that the head reads: `stock`, the one that transformers' image classifier of this architecture pools, or `encoder`,
            the one that the vision encoder pools, as in pretraining (CLIP: the class token after the final norm; SigLIP: its attention
            pooling). Files from before this field existed mean `stock`.
    """

    model: str
    revision: str | None
    image_size: int
    subset: str
    pool: str = "stock"


def is_stock(model: nn.Module) -> bool:
    """Whether transformers alone, given the weights, makes the same logits: its own class, at the size of its own config."""
    known = type(model) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.values() and type(model).__module__.startswith("transformers.")
    return known and origin(model).pool == "stock" and origin(model).image_size == image_size_of(cast(Any, model).config)


def load_whole(folder: Path, source: Origin) -> PreTrainedModel:
    """A classifier of transformers' own that was saved with all its weights, by `save_pretrained`.

    Args:
        folder: where it is.
        source: which backbone it was made from.

    Raises:
        MedfmcError: it cannot be loaded.
    """
    try:
        with quiet_loading():
            model = AutoModelForImageClassification.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises nearly every kind
        raise MedfmcError(_not_loaded(str(folder), error)) from error
    model.origin = source
    return model.eval()


def origin(model: nn.Module) -> Origin:
    """Return where a loaded backbone came from, whether it is adapted or not."""
    return cast(Origin, model.origin)


def load_backbone(
    model: str | Checkpoint, subset: Subset, *, revision: str | None = None, image_size: int | None = None, pool: str | None = None
) -> PreTrainedModel:
    """Load pretrained weights with a new head of one output per class. Code in a repository is never run.

    The model maps `pixel_values`, float32 (B, 3, H, W), to an output with `.logits` (B, classes). Its head is initialised from torch's
    global generator: seed that, or call `medfmc_hf.adaptation.adapt.reset_head`, for a reproducible head.

    Args:
        model: Hub id, local folder, or a `Checkpoint` from `find_checkpoint`.
        subset: subset that defines the classes of the head.
        revision: branch, tag or commit on the Hub.
        image_size: side of the square input, in pixels; None for the backbone's own. Position embeddings are interpolated if the
            architecture can.
        pool: vector that the head reads, see `Origin`; None for the backbone's default.

    Raises:
        MedfmcError: the model does not exist, is not a vision backbone, lacks weights, or does not support that image size.
    """
    checkpoint = find_checkpoint(model, revision)
    checkpoint.check()
    name = checkpoint.name
    whole = read_config(checkpoint)
    config = whole if pool == "stock" else vision_encoders.vision_part(whole)
    try:
        size = image_size or image_size_of(config)
    except (TypeError, ValueError, IndexError) as error:
        raise MedfmcError(f"{CONFIG} of {name} has no image size that is a number: {error}") from error
    _name_classes(config, subset)
    config.architectures = config.architectures or []  # transformers chooses between DeiT's two classes by it and fails on None
    try:
        with quiet_loading():
            network, report = vision_encoders.from_pretrained(
                config,
                str(checkpoint.folder),
                beside_text=config is not whole,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except MedfmcError:
        raise
    except Exception as error:  # a repository may hold anything, and transformers raises nearly every exception
        raise MedfmcError(_not_loaded(name, error)) from error
    if needed := vision_encoders.needed_inputs(network):
        raise MedfmcError(f"{name} cannot be used: a {type(network).__name__} needs {', '.join(needed)} besides the image.")
    _check_weights(name, network, report)
    init_head(network)
    network.name_or_path = name  # PEFT writes it into adapter_config.json, where a cache folder would mean nothing on another machine
    network.origin = Origin(  # type: ignore[assignment]  # an extra attribute, which PEFT's wrappers pass through
        name, checkpoint.commit, size, subset.key, vision_encoders.pool_of(network)
    )
    if size != image_size_of(config):
        _interpolate_positions(network)
        _check_size(network, size)
    return network.eval()


def read_config(model: str | Checkpoint, revision: str | None = None) -> PretrainedConfig:
    """The backbone's config, from the Hub or a folder.

    Raises:
        MedfmcError: there is none, or it asks for code from a repository.
    """
    checkpoint = find_checkpoint(model, revision)
    values = read_json(checkpoint.folder / CONFIG, checkpoint.name)
    if values.get("auto_map") and values.get("model_type") not in CONFIG_MAPPING:
        raise MedfmcError(
            f"{checkpoint.name} is not an architecture of transformers ({values.get('model_type')}) and brings its own code, but code "
            "from a repository is never run here. Use a checkpoint of a model that transformers supports."
        )
    if kernel := _named_kernel(values):
        raise MedfmcError(
            f"{CONFIG} of {checkpoint.name} asks for an attention kernel from the repository {kernel}, but code from a repository is never "
            f"run here. Remove attn_implementation from a local copy of {CONFIG}."
        )
    try:
        return AutoConfig.from_pretrained(str(checkpoint.folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each config class raises its own exceptions
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise MedfmcError(f"{CONFIG} of {checkpoint.name} is not a config that transformers can read ({reason}).") from error


def _named_kernel(values: dict) -> str | None:
    """The repository of kernels that a config names; transformers would fetch and run them if the library `kernels` is installed."""
    for key, value in values.items():
        if isinstance(value, dict) and (found := _named_kernel(value)):
            return found
        if str(key).endswith("attn_implementation"):
            named = value.values() if isinstance(value, dict) else [value]
            if found := next((str(name) for name in named if "/" in str(name)), None):
                return found
    return None


def _not_loaded(name: str, error: Exception) -> str:
    """Why weights could not be loaded."""
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        held = f" ({found[1]})" if found else ""
        return (
            f"the weights of {name} are a pickle that holds more than tensors{held} and could run code, so torch's weights_only loader "
            "refuses it. Use a safetensors checkpoint."
        )
    return f"{name} could not be loaded as an image classifier ({type(error).__name__}): {str(error).strip() or 'no reason given'}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def same_model(one: Checkpoint, other: Checkpoint, subset: Subset) -> bool:
    """Whether two checkpoints hold the same weights, in whatever files, and give the same logits for a random image."""
    models = []
    for checkpoint in (one, other):
        model = load_backbone(checkpoint, subset)
        init_head(model, torch.Generator().manual_seed(0))
        models.append(model)
    first, second = (model.state_dict() for model in models)
    if first.keys() != second.keys() or any(not torch.equal(value, second[name]) for name, value in first.items()):
        return False
    side = origin(models[0]).image_size
    if origin(models[1]).image_size != side:
        return False
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.equal(*(model(pixel_values=image).logits for model in models))


def image_size_of(config: PretrainedConfig) -> int:
    """Side, in pixels, of the square images a backbone was trained on; 224 if its config has none."""
    config = getattr(config, "vision_config", config)
    size = getattr(config, "image_size", None)
    if size is None:
        size = (getattr(config, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))
    return int(size[-1] if isinstance(size, (list, tuple)) else size)


def init_head(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Initialise the head: weights N(0, 0.02), biases zero, as transformers does for a new classifier.

    Args:
        model: model on any device. The weights are sampled on the CPU and copied, so that they are the same on all devices.
        generator: CPU generator; None for torch's global one.
    """
    for name in head_names(model):
        for layer in model.get_submodule(name).modules():
            if isinstance(layer, nn.Linear):
                with torch.no_grad():
                    layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0, 0.02, generator=generator))
                    if layer.bias is not None:
                        layer.bias.zero_()


def fit_head(model: PreTrainedModel, subset: Subset) -> None:
    """Replace the head of a loaded backbone by one for the classes of another subset, as `load_backbone` would have made it."""
    if origin(model).subset == subset.key:
        return
    for name in head_names(model):
        for inner, layer in list(model.get_submodule(name).named_modules()):
            if isinstance(layer, nn.Linear) and layer.out_features == model.config.num_labels:
                new = nn.Linear(layer.in_features, len(subset.classes), layer.bias is not None, layer.weight.device, layer.weight.dtype)
                model.set_submodule(f"{name}.{inner}".rstrip("."), new.train(layer.training))
    _name_classes(model.config, subset)
    model.num_labels = model.config.num_labels  # type: ignore[assignment]
    model.origin = replace(origin(model), subset=subset.key)  # type: ignore[assignment]


def _name_classes(config: PretrainedConfig, subset: Subset) -> None:
    config.num_labels = len(subset.classes)
    config.id2label = dict(enumerate(subset.classes))
    config.label2id = {name: index for index, name in enumerate(subset.classes)}
    config.problem_type = _PROBLEM[subset.task]


def _check_weights(model: str, network: nn.Module, report: dict) -> None:
    """The head may be new; a missing weight, or one of another shape, anywhere else means that the backbone is not the pretrained one."""
    heads = head_names(network)
    mismatched = {key[0] if isinstance(key, (tuple, list)) else key for key in report["mismatched_keys"]}
    absent = sorted(key for key in set(report["missing_keys"]) | mismatched if not key.startswith(tuple(f"{head}." for head in heads)))
    if absent:
        raise MedfmcError(
            f"{model} lacks {len(absent)} weights of a {type(network).__name__}, such as {', '.join(absent[:4])}; "
            "training would start from random weights. Check that config.json belongs to the weight files."
        )


def _interpolate_positions(network: nn.Module) -> None:
    """Ask for interpolated position embeddings on every call, if the architecture has that option."""

    def ask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {"interpolate_pos_encoding": True} | kwargs

    if vision_encoders.asks_for_interpolation(network):
        network.register_forward_pre_hook(ask, with_kwargs=True)


def check_images_fit(model: nn.Module, height: int, width: int) -> None:
    """Make sure that a loaded backbone takes the images that its image processor makes.

    Raises:
        MedfmcError: it does not; config and processor of a repository may disagree.
    """
    size = origin(model).image_size
    if (height, width) == (size, size):
        return
    if (why := _refusal(model, height, width)) is not None:
        raise MedfmcError(
            f"the image processor of {origin(model).model} makes images of {height} x {width} pixels, and the model takes {size} x {size} "
            f"({_first_line(why).rstrip('.')}): give --image-size {size}."
        ) from why


def _check_size(network: nn.Module, size: int) -> None:
    if (why := _refusal(network, size, size)) is not None:
        raise MedfmcError(f"{origin(network).model} does not support images of {size} x {size} pixels: {why}") from why


def _refusal(model: nn.Module, height: int, width: int) -> Exception | None:
    """What a model says to a blank image of that size; None if it takes it."""
    blank = torch.zeros(1, 3, height, width, device=next(model.parameters()).device)
    try:
        with torch.no_grad():
            model.eval()(pixel_values=blank)
    except (RuntimeError, ValueError, AssertionError) as error:
        return error
    return None


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence the report of new weights while loading: a new head is intended, and `_check_weights` reads the report itself."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
