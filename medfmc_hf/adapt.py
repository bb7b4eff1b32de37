"""Backbone and method name in, model with a trainable head out; and the way back: save, load, strip."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import nn

from .anatomy import Anatomy, anatomy_of, head_names, query_value
from .backbones import Origin, draw_head, load_backbone
from .errors import MedfmcError
from .files import atomic_path, write_json
from .subsets import subset_of

PLAIN_WEIGHTS, PLAIN_CONFIG = "trained.safetensors", "trained.json"
ORIGIN = "backbone.json"


@dataclass(frozen=True)
class Method:
    """A way to adapt a backbone.

    Attributes:
        name: as on the command line.
        summary: what it does, and its source.
        kind: `gradient` (trained by the loop) or `frozen` (a head of `medfmc_hf.frozen` on features computed once).
        options: the options it knows, with their defaults.
        build: (backbone, its anatomy, all options) -> the model to train; None where kind is `frozen`.
    """

    name: str
    summary: str
    kind: Literal["gradient", "frozen"]
    options: Mapping[str, Any] = field(default_factory=dict)
    build: Callable[[nn.Module, Anatomy, Mapping[str, Any]], nn.Module] | None = None


def _lora(model: nn.Module, anatomy: Anatomy, options: Mapping[str, Any]) -> nn.Module:
    config = LoraConfig(
        r=options["r"], lora_alpha=options["alpha"], lora_dropout=options["dropout"],
        target_modules=query_value(model, anatomy), modules_to_save=list(anatomy.heads),
    )  # fmt: skip
    return get_peft_model(model, config)


def _full(model: nn.Module, anatomy: Anatomy, options: Mapping[str, Any]) -> nn.Module:
    return model.requires_grad_(True)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("lora", "low-rank updates of the query and value projections (Hu et al. 2022)", "gradient",
               {"r": 8, "alpha": 16, "dropout": 0.0}, _lora),
        Method("full", "every weight of the backbone", "gradient", {}, _full),
        Method("linear", "logistic regression on frozen features (the paper's Baseline)", "frozen", {}),
    )
}  # fmt: skip


def method_of(name: str) -> Method:
    """The method called `name`.

    Raises:
        MedfmcError: there is none of that name.
    """
    if name not in METHODS:
        raise MedfmcError(f"there is no method {name!r}; known: {', '.join(METHODS)}.")
    return METHODS[name]


def all_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The given options over the method's defaults.

    Raises:
        MedfmcError: the method does not know one of them.
    """
    known = method_of(name).options
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise MedfmcError(f"method {name} has no option {', '.join(unknown)}; it knows {', '.join(known) or 'none'}.")
    return {**known, **options}


def adapt(model: nn.Module, method: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Prepare a backbone for training: put the method's weights in, let them and the head train, freeze the rest.

    Args:
        model: what `load_backbone` returned; changed in place.
        method: a name of `METHODS` whose kind is `gradient`.
        options: options of the method; the others keep their defaults.

    Returns:
        A `PeftModel`, or the model itself for methods that train weights the backbone has. Its output has `.logits`, (B, classes).

    Raises:
        MedfmcError: unknown method or option, or a method that makes no sense for this architecture.
    """
    chosen = method_of(method)
    if chosen.build is None:
        raise MedfmcError(f"{method} trains no network: compute features and call medfmc_hf.frozen.HEADS[{method!r}].")
    chosen_options = all_options(method, options or {})
    anatomy = anatomy_of(model)
    model.requires_grad_(False)
    adapted = chosen.build(model, anatomy, chosen_options)
    for name in anatomy.heads:
        if not isinstance(adapted, PeftModel):
            model.get_submodule(name).requires_grad_(True)
        if not any(p.requires_grad for p in model.get_submodule(name).parameters()):
            raise MedfmcError(f"the head {name} would stay frozen with {method}; this must not happen, please report it.")
    if not isinstance(adapted, PeftModel):
        adapted.pretrained = {name: p.detach().clone() for name, p in adapted.named_parameters() if p.requires_grad}
    return adapted


def reset_head(model: nn.Module, seed: int) -> None:
    """Draw the head of a backbone anew, so that several runs can share one loaded backbone.

    Args:
        model: a backbone without adapters.
        seed: the same seed draws the same head.
    """
    draw_head(model, torch.Generator().manual_seed(seed))


def strip(model: nn.Module) -> nn.Module:
    """Take an adaptation off again. Returns the backbone and its untrained head, bit for bit as they were before `adapt`."""
    if isinstance(model, PeftModel):
        originals = {
            name: part.original_module for name, part in model.get_base_model().named_modules() if isinstance(part, ModulesToSaveWrapper)
        }
        model = model.unload()
        for name, original in originals.items():  # PEFT leaves the trained copies in their place
            model.set_submodule(name, original)
    elif hasattr(model, "pretrained"):
        with torch.no_grad():
            for name, value in model.pretrained.items():
                model.get_parameter(name).copy_(value)
        del model.pretrained
    return model.requires_grad_(True).eval()


def save(model: nn.Module, folder: str | Path) -> list[Path]:
    """Write what was trained, and which backbone it belongs to.

    A PEFT method leaves PEFT's own files (`adapter_config.json`, `adapter_model.safetensors`), any other `trained.safetensors`.

    Returns:
        The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel):
        model.save_pretrained(folder)
    else:
        trained = {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}
        with atomic_path(folder / PLAIN_WEIGHTS) as temporary:
            save_file(trained, temporary, metadata={"format": "pt"})
    origin = model.origin
    write_json(
        folder / ORIGIN, {"model": origin.model, "revision": origin.revision, "image_size": origin.image_size, "subset": origin.subset}
    )
    return sorted(path for path in folder.iterdir() if path.is_file())


def load(folder: str | Path, *, model: str | None = None) -> nn.Module:
    """Load what `save` wrote, onto its backbone, ready to predict.

    Args:
        folder: the folder of `save`.
        model: where the backbone is now, if it moved.
    """
    folder = Path(folder)
    try:
        origin = Origin(**json.loads((folder / ORIGIN).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise MedfmcError(f"{folder} holds no saved adaptation: it has no {ORIGIN}.") from None
    backbone = load_backbone(model or origin.model, subset_of(origin.subset), revision=origin.revision, image_size=origin.image_size)
    if (folder / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(backbone, folder).eval()
    backbone.load_state_dict(load_file(folder / PLAIN_WEIGHTS), strict=False)
    return backbone.eval()
