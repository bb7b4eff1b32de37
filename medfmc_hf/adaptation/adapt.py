"""Backbone and method name in, model with a trainable head out; and the way back: save, load, unload."""

import json
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..adapter_files import HEAD, ORIGIN, PEFT_CONFIG, PEFT_WEIGHTS, TRAINED, WHOLE
from ..errors import MedfmcError
from ..files import atomic_path, write_json
from ..models.backbones import Origin, init_head, is_stock, load_backbone, load_whole, quiet_loading
from ..models.checkpoint import CONFIG, Checkpoint, broken_weights
from ..models.structure import structure_of
from ..subsets import subset_of
from .heads import FrozenBackboneForImageClassification, load_head, save_head
from .inject import probe, remove_layers
from .methods import METHODS, Method, all_options, in_one_form, method_of, resolve

__all__ = [
    "METHODS",
    "Method",
    "acts_after_steps",
    "adapt",
    "adapted",
    "after_step",
    "all_options",
    "blocks_of",
    "in_one_form",
    "load",
    "method_of",
    "origin_of",
    "reset_head",
    "resolve",
    "save",
    "unload",
]

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_NEARLY_ALL = 0.9  # of the numbers of a model; some never reach the logits and stay as they are
MODEL_TYPE = "medfmc_hf.classifiers"  # in config.json; named for the module whose import makes transformers know it
PRETRAINED = "pretrained"  # attribute of a model whose own weights train: what they were before, by name


def adapt(model: nn.Module, method: str, options: Mapping[str, Any] | None = None, *, total_steps: int | None = None) -> nn.Module:
    """Prepare a backbone for training: put the method's weights in, let them and the head train, freeze the rest.

    New weights are drawn from torch's global random numbers.

    Args:
        model: what `load_backbone` returned; changed in place.
        method: a name of `METHODS` whose kind is `gradient`.
        options: options of the method; the others keep their defaults.
        total_steps: optimiser steps of the training to come, which AdaLoRA plans by.

    Returns:
        A `PeftModel`, or the model itself for methods that train weights the backbone has. Its output has `.logits`, (B, classes).

    Raises:
        MedfmcError: unknown method or option, or a method that makes no sense for this architecture.
    """
    chosen = method_of(method)
    if chosen.build is None:
        raise MedfmcError(
            f"{method} trains no network: compute features and fit medfmc_hf.adaptation.train_free.HEADS[{method!r}] to them."
        )
    chosen_options = all_options(method, options or {})
    if "total_step" in chosen_options and chosen_options["total_step"] is None:
        if total_steps is None:
            raise MedfmcError(f"{method} plans its training: give adapt(..., total_steps=optimiser steps of the whole run).")
        chosen_options["total_step"] = total_steps
    structure = structure_of(model)
    model.requires_grad_(False)
    adapted = chosen.build(model, structure, chosen_options)
    if isinstance(adapted, PeftModel):
        _hold_batch_norm(model)
    else:
        for name in structure.heads:
            model.get_submodule(name).requires_grad_(True)
        _freeze_unused(model)
        if method != "full":
            _hold_batch_norm(model)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        vars(model)[PRETRAINED] = {name: value.detach().clone() for name, value in (trained | _moving_statistics(model)).items()}
    for name in structure.heads:
        if not any(p.requires_grad for p in model.get_submodule(name).parameters()):
            raise MedfmcError(f"the head {name} would stay frozen with {method} and these options.")
    return adapted


@contextmanager
def adapted(
    model: nn.Module, method: str, options: Mapping[str, Any] | None = None, *, total_steps: int | None = None
) -> Iterator[nn.Module]:
    """`adapt` for the length of a block, and `unload` at its end. After a block that raised, the backbone has to be loaded again."""
    result = adapt(model, method, options, total_steps=total_steps)
    yield result
    unload(result)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The residual blocks of an adapted model in order, each with what the method put around it."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return [base.get_submodule(name) for name in structure_of(base).blocks]


def acts_after_steps(model: nn.Module) -> bool:
    """Whether the method has something to do after each optimiser step."""
    return isinstance(model, PeftModel) and hasattr(model.base_model, "update_and_allocate")


def after_step(model: nn.Module, step: int) -> None:
    """What some methods do after each optimiser step: AdaLoRA moves its ranks.

    Args:
        model: the adapted model, unwrapped.
        step: number of the step, from 1.
    """
    if acts_after_steps(model):
        cast(Any, model).base_model.update_and_allocate(step)


def reset_head(model: nn.Module, seed: int) -> None:
    """Draw the head of a backbone anew, so that several runs can share one loaded backbone.

    Args:
        model: a backbone without adapters.
        seed: the same seed draws the same head.
    """
    init_head(model, torch.Generator().manual_seed(seed))


def unload(model: nn.Module) -> nn.Module:
    """Take an adaptation off again. Returns the backbone and its untrained head, bit for bit as they were before `adapt`."""
    if isinstance(model, PeftModel):
        model = model.get_base_model()
        remove_layers(model)  # PEFT's own unload leaves the trained head in its place
    values = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, value in vars(model).pop(PRETRAINED, {}).items():
            values[name].copy_(value)
    for part in model.modules():
        if isinstance(part, BATCH_NORM):
            part.__dict__.pop("train", None)
    return model.requires_grad_(True).eval()


def save(model: nn.Module, folder: str | Path) -> list[Path]:
    """Write what was trained, and which backbone it belongs to.

    A PEFT method leaves PEFT's own files (`adapter_config.json`, `adapter_model.safetensors`), a head on a frozen backbone
    `head.safetensors`, and anything else `trained.safetensors`. The latter two come with a `config.json` of a type that transformers
    knows once `medfmc_hf.classifiers` is imported. Where nearly all weights were trained and transformers' own class makes the same
    logits of them, all are saved as it saves them (`model.safetensors`), so that it loads them by itself.

    Returns:
        The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), save_embedding_layers=False)
        _sort_names(folder / PEFT_CONFIG)
    elif _is_whole(model):
        with quiet_loading():
            cast(Any, model).save_pretrained(str(folder))
    else:
        _save_beside_backbone(model, folder)
    write_json(folder / ORIGIN, vars(model.origin))
    return sorted(path for path in folder.iterdir() if path.is_file())


def _save_beside_backbone(model: nn.Module, folder: Path) -> None:
    """Write what was fitted or trained, and a config of a type that `medfmc_hf.classifiers` puts back on the backbone."""
    if isinstance(model, FrozenBackboneForImageClassification):
        save_head(model.head, folder)
    elif PRETRAINED in vars(model):
        values = dict(model.named_parameters()) | dict(model.named_buffers())
        trained = {name: values[name].detach().contiguous() for name in vars(model)[PRETRAINED]}
        with atomic_path(folder / TRAINED) as temporary:
            save_file(trained, temporary, metadata={"format": "pt"})
    config = cast(Any, model).config
    classes = {name: getattr(config, name) for name in ("id2label", "label2id", "problem_type")}
    write_json(folder / CONFIG, {"model_type": MODEL_TYPE, **classes})


def _is_whole(model: nn.Module) -> bool:
    """Whether what was trained is nearly all that there is, of a model that transformers loads by itself."""
    trained = sum(value.numel() for value in vars(model).get(PRETRAINED, {}).values())
    return trained >= _NEARLY_ALL * sum(p.numel() for p in model.parameters()) and is_stock(model)


def _sort_names(path: Path) -> None:
    """PEFT writes sets of module names in whatever order they have in this process; the same run must leave the same bytes."""
    config = json.loads(path.read_text(encoding="utf-8"))
    named = {name: sorted(value) for name, value in config.items() if name.endswith(("_modules", "_to_save")) and isinstance(value, list)}
    write_json(path, config | named)


def origin_of(folder: str | Path) -> Origin:
    """Which backbone a saved adaptation belongs to.

    Raises:
        MedfmcError: the folder holds none.
    """
    path = Path(folder) / ORIGIN
    try:
        return Origin(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise MedfmcError(f"{folder} holds no saved adaptation: it has no {ORIGIN}.") from None
    except (OSError, ValueError, TypeError) as error:
        raise MedfmcError(f"{path} does not say which backbone was adapted ({error}); it was not written by medfmc_hf.") from None


def load(folder: str | Path, *, model: str | Checkpoint | None = None) -> nn.Module:
    """Load what `save` wrote, onto its backbone, ready to predict.

    Args:
        folder: the folder of `save`.
        model: where the backbone is now, if it moved.

    Raises:
        MedfmcError: the folder holds no adaptation, or one of another backbone.
    """
    folder, origin = Path(folder), origin_of(folder)
    is_peft = (folder / PEFT_CONFIG).is_file()
    found = next((folder / name for name in (WHOLE, HEAD, TRAINED) if (folder / name).is_file()), None)
    weights = folder / PEFT_WEIGHTS if is_peft else found
    if weights is None:
        raise MedfmcError(
            f"{folder} holds no weights. Older versions of medfmc_hf did not save the heads of train-free methods: run it again, or use "
            "its predictions.parquet."
        )
    if weights.is_file() and weights.name != HEAD and (problem := broken_weights(weights)):
        raise MedfmcError(f"{weights} {problem}.")
    if weights.name == WHOLE:
        return load_whole(folder, origin)
    backbone: Any = load_backbone(
        model or origin.model, subset_of(origin.subset), revision=origin.revision, image_size=origin.image_size, pool=origin.pool
    )
    if weights.name == HEAD:
        return FrozenBackboneForImageClassification(backbone, load_head(folder)).eval()
    try:
        if is_peft:
            return PeftModel.from_pretrained(backbone, folder).eval()
        report = backbone.load_state_dict(load_file(weights), strict=False)
    except (RuntimeError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise MedfmcError(f"{folder} does not fit {backbone.origin.model}: {error}") from error
    if report.unexpected_keys:
        raise MedfmcError(f"{folder} does not fit {backbone.origin.model}, which has no {', '.join(report.unexpected_keys[:3])}.")
    return backbone.eval()


def _freeze_unused(model: nn.Module) -> None:
    """Freeze what does not reach the logits (mask tokens, CLIP's last norm): DDP waits for gradients that never come."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter, gradient in zip(trained, torch.autograd.grad(probe(model).sum(), trained, allow_unused=True)):
        parameter.requires_grad_(gradient is not None)


def _hold_batch_norm(model: nn.Module) -> None:
    """Keep batch normalisation at its pretrained statistics: they belong to the frozen backbone and no adapter file holds them."""
    for part in model.modules():
        if isinstance(part, BATCH_NORM):
            part.__dict__["train"] = types.MethodType(_stay_in_eval, part)
            part.eval()


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(module, False)


def _moving_statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    """The statistics of batch normalisation that training will move."""
    moving = [name for name, part in model.named_modules() if isinstance(part, BATCH_NORM) and "train" not in part.__dict__]
    return {f"{name}.{key}": value for name in moving for key, value in model.get_submodule(name).named_buffers()}
