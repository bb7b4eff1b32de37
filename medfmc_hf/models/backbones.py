"""Loads a backbone from the Hub or a folder, with a fresh classification head for a subset."""

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from ..errors import MedfmcError
from ..subsets import Subset
from . import towers
from .anatomy import head_names

_PROBLEM = {"single-label": "single_label_classification", "multi-label": "multi_label_classification"}


@dataclass(frozen=True)
class Origin:
    """Where a loaded backbone came from; `model.origin` of what `load_backbone` returns.

    Attributes:
        model: Hub id or local folder.
        revision: the commit on the Hub, or None for a local folder.
        image_size: side of the square it is fed, in pixels.
        subset: key of the subset its head is for.
    """

    model: str
    revision: str | None
    image_size: int
    subset: str


def load_backbone(model: str, subset: Subset, *, revision: str | None = None, image_size: int | None = None) -> PreTrainedModel:
    """Load pretrained weights under a fresh head with one output a class.

    The result maps `pixel_values`, float32 (B, 3, H, W), to an output whose `.logits` are (B, classes). Its head is drawn from
    torch's global random numbers: seed them, or call `medfmc_hf.models.adapt.reset_head`, for a head that can be repeated.

    Args:
        model: Hub id or local folder.
        subset: whose classes the head tells apart.
        revision: branch, tag or commit on the Hub.
        image_size: side of the square it will be fed, in pixels; None for the backbone's own. Position embeddings are interpolated
            where the architecture can.

    Raises:
        MedfmcError: there is no such model, it is no vision backbone, weights are missing from it, or it cannot take that image size.
    """
    config = read_config(model, revision)
    size = image_size or image_size_of(config)
    config.num_labels = len(subset.classes)
    config.id2label = dict(enumerate(subset.classes))
    config.label2id = {name: index for index, name in enumerate(subset.classes)}
    config.problem_type = _PROBLEM[subset.task]
    config.architectures = config.architectures or []  # the choice between DeiT's two classes stumbles over None
    loader = towers.loader_of(config)
    try:
        with _quiet_loading():
            network, report = loader.from_pretrained(
                model, config=config, revision=revision, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, ImportError) as error:  # ImportError: timm is an extra
        raise MedfmcError(f"{model} could not be loaded as an image classifier: {error}") from error
    if needed := towers.needed_inputs(network):
        raise MedfmcError(f"{model} cannot be used: a {type(network).__name__} needs {', '.join(needed)} besides the picture.")
    _check_weights(model, network, report)
    draw_head(network)
    network.origin = Origin(model, getattr(config, "_commit_hash", None), size, subset.key)
    if size != image_size_of(config):
        _interpolate_positions(network)
        _check_size(network, size)
    return network.eval()


def read_config(model: str, revision: str | None = None) -> PretrainedConfig:
    """The backbone's config, from the Hub or a folder.

    Raises:
        MedfmcError: there is none.
    """
    try:
        return AutoConfig.from_pretrained(model, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        where = "the folder" if Path(model).exists() else "the Hub (or its cache)"
        raise MedfmcError(
            f"there is no backbone {model!r} that transformers can read in {where}: {error}\n"
            "Give a Hub id such as google/vit-base-patch16-224-in21k, or a folder with config.json and model.safetensors."
        ) from error


def image_size_of(config: PretrainedConfig) -> int:
    """The side, in pixels, of the square images a backbone was trained on; 224 where its config does not say."""
    config = getattr(config, "vision_config", config)
    size = getattr(config, "image_size", None)
    if size is None:
        size = (getattr(config, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))
    return int(size[-1] if isinstance(size, (list, tuple)) else size)


def backbone_commit(model: str, revision: str | None = None) -> str | None:
    """The commit that a Hub id stands for now; None for a local folder."""
    return None if Path(model).is_dir() else getattr(read_config(model, revision), "_commit_hash", None)


def backbone_fingerprint(model: str, revision: str | None = None) -> str:
    """What tells two backbones apart: the commit on the Hub, or a SHA-256 over config.json and the weight files of a folder.

    Raises:
        MedfmcError: there is no such backbone, or its commit is unknown.
    """
    if not Path(model).is_dir():
        commit = backbone_commit(model, revision)
        if commit is None:
            raise MedfmcError(f"{model} has no commit that could be found; give a local folder or a Hub id.")
        return commit
    digest = hashlib.sha256()
    weights = [
        path for pattern in ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*") for path in Path(model).glob(pattern)
    ]
    if not weights:
        raise MedfmcError(f"{model} has no weight files; expected model.safetensors beside config.json.")
    for path in sorted([Path(model) / "config.json", *weights]):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def draw_head(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the head anew: weights N(0, 0.02), biases zero, as transformers does for a new classifier."""
    for name in head_names(model):
        for layer in model.get_submodule(name).modules():
            if isinstance(layer, nn.Linear):
                with torch.no_grad():
                    layer.weight.normal_(0, 0.02, generator=generator)
                    if layer.bias is not None:
                        layer.bias.zero_()


def _check_weights(model: str, network: nn.Module, report: dict) -> None:
    """The head may be new; a missing or ill-shaped weight anywhere else means that the backbone is not the pretrained one."""
    heads = head_names(network)
    mismatched = {key[0] if isinstance(key, (tuple, list)) else key for key in report["mismatched_keys"]}
    absent = sorted(key for key in set(report["missing_keys"]) | mismatched if not key.startswith(tuple(f"{head}." for head in heads)))
    if absent:
        raise MedfmcError(
            f"{model} lacks {len(absent)} weights of a {type(network).__name__}, such as {', '.join(absent[:4])}; "
            "training would start from random numbers. Check that config.json belongs to the weight files."
        )


def _interpolate_positions(network: nn.Module) -> None:
    """Ask for interpolated position embeddings on every call, where the architecture wants to be asked."""

    def ask(module, args, kwargs):
        return args, {"interpolate_pos_encoding": True} | kwargs

    if towers.asks_for_interpolation(network):
        network.register_forward_pre_hook(ask, with_kwargs=True)


def _check_size(network: nn.Module, size: int) -> None:
    try:
        with torch.no_grad():
            network.eval()(pixel_values=torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise MedfmcError(f"{network.origin.model} cannot take images of {size} x {size} pixels: {error}") from error


@contextmanager
def _quiet_loading():
    """Silence the report of new weights while loading: a new head is wanted here, and `_check_weights` reads the report itself."""
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
