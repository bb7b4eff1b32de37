"""The adaptation methods by name: PEFT's, ours, the paper's baselines, and what each can be told."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import peft
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn

from ..errors import MedfmcError
from ..models.structure import Structure, inside_attention, inside_mlp, mlp_output, norm_layers, query_value
from ..tuners import BottleneckConfig, VptConfig
from .inject import inject

Build = Callable[[nn.Module, Structure, Mapping[str, Any]], nn.Module]


@dataclass(frozen=True)
class Method:
    """A way to adapt a backbone.

    Attributes:
        name: as on the command line.
        summary: what it does, and its source.
        kind: `gradient` (trained by the loop) or `frozen` (a head of `medfmc_hf.adaptation.train_free` on features computed once).
        options: the options it knows, with their defaults.
        build: (backbone with every weight frozen, its structure, all options) -> the model to train; None where kind is `frozen`.
    """

    name: str
    summary: str
    kind: Literal["gradient", "frozen"]
    options: Mapping[str, Any] = field(default_factory=dict)
    build: Build | None = None


# PEFT's methods that no vision backbone can run: prompt learning needs inputs_embeds (see vpt), two need a language model's attention or
# vocabulary, and three need task ids, trained adapters or a decoder.
_NOT_FOR_VISION = {
    "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE",
    "ADAPTION_PROMPT", "TRAINABLE_TOKENS",
    "POLY", "XLORA", "SHADOW",
}  # fmt: skip

_SUMMARIES = {
    "ADALORA": "LoRA that moves rank to where it helps (Zhang et al. 2023)",
    "BOFT": "butterfly orthogonal rotations of the weights (Liu et al. 2024)",
    "C3A": "circular convolutions added to the weights (Chen et al. 2024)",
    "DELORA": "LoRA with direction and strength apart (Bini et al. 2025)",
    "FOURIERFT": "weight updates from a few Fourier coefficients (Gao et al. 2024)",
    "HRA": "Householder reflections of the weights (Yuan et al. 2024)",
    "IA3": "learned factors on keys, values and the MLP (Liu et al. 2022)",
    "LN_TUNING": "normalisation layers, kept as an adapter (Zhao et al. 2023)",
    "LOHA": "Hadamard products of low ranks (Hyeon-Woo et al. 2022)",
    "LOKR": "Kronecker products of low ranks (Yeh et al. 2024)",
    "OFT": "orthogonal rotations of the weights (Qiu et al. 2023)",
    "RANDLORA": "full-rank updates from random bases (Albert et al. 2025)",
    "ROAD": "rotations in the plane (Liao and Monz 2024)",
    "SHIRA": "a sparse part of the weights (Bhardwaj et al. 2024)",
    "VERA": "shared random low ranks with learned factors (Kopiczko et al. 2024)",
}
_BOOKKEEPING = {
    "task_type",
    "peft_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "runtime_config",
}
_TARGETS = {
    "query-value": query_value,
    "attention": inside_attention,
    "mlp": inside_mlp,
    "all": lambda model, structure: [*dict.fromkeys([*inside_attention(model, structure), *inside_mlp(model, structure)])],
}


def _peft_options(config_cls: type[peft.PeftConfig], own: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a PEFT config that a user may choose, with their defaults, ours in place of PEFT's; and `blocks`, the last so many."""
    defaults = {
        f.name: f.default if f.default is not dataclasses.MISSING else f.default_factory()
        for f in dataclasses.fields(config_cls)
        if f.name not in _BOOKKEEPING and f.init
    }
    return {**defaults, **own, "blocks": None}


def _peft(config_cls: type[peft.PeftConfig], targets: str | None = "query-value") -> Build:
    """A builder for a PEFT method: fills in targets and head, which PEFT does not know for vision models."""
    takes = {f.name for f in dataclasses.fields(config_cls)}

    def build(model: nn.Module, structure: Structure, options: Mapping[str, Any]) -> nn.Module:
        options = dict(options)
        chosen, last = options.pop("targets", targets), _last_blocks(structure, options.pop("blocks", None))
        if last and options.get("target_modules") is not None:
            raise MedfmcError("blocks and target_modules both say where; give one of them.")
        if last and chosen is None:  # prompts and bottlenecks name blocks themselves
            options["target_modules"] = list(last)
        if options.get("target_modules") is None and chosen is not None:
            if chosen not in _TARGETS:
                raise MedfmcError(f"targets is one of {', '.join(_TARGETS)}; got {chosen!r}. For modules by name give target_modules.")
            names = _TARGETS[chosen](model, structure)
            options["target_modules"] = [name for name in names if not last or name.startswith(tuple(f"{block}." for block in last))]
            _ = [model.get_submodule(name) for name in options["target_modules"]]  # PEFT passes over names that are not there
        if not options.get("modules_to_save"):
            options["modules_to_save"] = list(structure.heads)
        options["modules_to_save"] = list(dict.fromkeys([*options["modules_to_save"], *structure.heads]))
        if "feedforward_modules" in takes and options.get("feedforward_modules") is None:
            options["feedforward_modules"] = [name for name in options["target_modules"] if _ends_mlp(model, structure, name)]
        return inject(model, lambda: config_cls(**options))

    return build


def _last_blocks(structure: Structure, count: int | None) -> tuple[str, ...]:
    """The names of the last blocks; none where `count` is None."""
    if count is None:
        return ()
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(structure.blocks):
        raise MedfmcError(f"blocks is a whole number from 1 to {len(structure.blocks)} for this backbone; got {count!r}.")
    return structure.blocks[-count:]


def _ends_mlp(model: nn.Module, structure: Structure, name: str) -> bool:
    return any(name == f"{block}.{mlp_output(model.get_submodule(block))}" for block in structure.blocks)


def _ia3_targets(model: nn.Module, structure: Structure) -> list[str]:
    """Keys, values and the input of the MLP's last layer, as the paper has it."""
    ends = [f"{block}.{end}" for block in structure.blocks if (end := mlp_output(model.get_submodule(block)))]
    return [*inside_attention(model, structure, parts=("key", "value")), *ends]


_TARGETS["keys-values-mlp"] = _ia3_targets
_TARGETS["norms"] = lambda model, structure: norm_layers(model)


def _full(model: nn.Module, structure: Structure, options: Mapping[str, Any]) -> nn.Module:
    return model.requires_grad_(True)


def _partial(model: nn.Module, structure: Structure, options: Mapping[str, Any]) -> nn.Module:
    names = [name for name, _ in model.named_parameters()]
    first = next(i for i, name in enumerate(names) if name.startswith(f"{_last_blocks(structure, options['blocks'])[0]}."))
    for name in names[first:]:  # parameters are named in the order of the network, so this takes the norm after the blocks along
        model.get_parameter(name).requires_grad_(True)
    return model


def _bitfit(model: nn.Module, structure: Structure, options: Mapping[str, Any]) -> nn.Module:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.rpartition(".")[2] == "bias")
    return model


def _layernorm(model: nn.Module, structure: Structure, options: Mapping[str, Any]) -> nn.Module:
    for name in norm_layers(model):
        model.get_submodule(name).requires_grad_(True)
    return model


def _head_only(model: nn.Module, structure: Structure, options: Mapping[str, Any]) -> nn.Module:
    return model


def _from_config(model: nn.Module, structure: Structure, options: Mapping[str, Any]) -> nn.Module:
    """Any PEFT method from the content of an adapter_config.json."""
    given = dict(options["config"] or {})
    kind = str(given.pop("peft_type", "")).upper()
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise MedfmcError(
            "method peft needs the option `config`: the content of an adapter_config.json or its path, "
            f"with a peft_type that PEFT knows; got {kind or 'none'!r}."
        )
    config_cls = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    known = {f.name for f in dataclasses.fields(config_cls) if f.init}
    chosen = {key: value for key, value in given.items() if key in known - _BOOKKEEPING}
    return _peft(config_cls)(model, structure, chosen)


def _lora_like(name: str, summary: str, **own) -> Method:
    options = {"targets": "query-value", **_peft_options(peft.LoraConfig, {"r": 8, "lora_alpha": 16, **own})}
    return Method(name, summary, "gradient", options, _peft(peft.LoraConfig))


def _other_peft_methods() -> list[Method]:
    methods = []
    for kind, config_cls in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        kind = getattr(kind, "value", kind)
        if kind in _NOT_FOR_VISION | {"LORA", "VPT", "BOTTLENECK"}:
            continue
        targets = {"IA3": "keys-values-mlp", "LN_TUNING": "norms"}.get(kind, "query-value")
        summary = _SUMMARIES.get(kind, f"PEFT's {config_cls.__name__.removesuffix('Config')}")
        options = {"targets": targets, **_peft_options(config_cls, {})}
        methods.append(Method(kind.lower().replace("_", "-"), summary, "gradient", options, _peft(config_cls, targets)))
    return sorted(methods, key=lambda method: method.name)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("prototype", "cosine to class means of frozen features (the paper's Meta-Baseline)", "frozen", {"temperature": 10.0}),
        Method("linear", "logistic regression on frozen features (the paper's Baseline)", "frozen", {"C": 1.0}),
        Method("knn", "vote of the nearest neighbours by cosine of frozen features", "frozen", {"k": 10, "temperature": 10.0}),
        Method("linear-sgd", "the head alone, by gradient descent with augmentation", "gradient", {}, _head_only),
        Method("full", "every weight of the backbone", "gradient", {}, _full),
        Method("partial", "the last blocks and the head (what the challenge's winner built on)", "gradient", {"blocks": 1}, _partial),
        Method("bitfit", "every bias (Ben Zaken et al. 2022)", "gradient", {}, _bitfit),
        Method("layernorm", "every normalisation layer", "gradient", {}, _layernorm),
        _lora_like("lora", "low-rank updates of query and value projections (Hu et al. 2022)"),
        _lora_like("dora", "LoRA of direction, with a learned magnitude (Liu et al. 2024)", use_dora=True),
        Method("vpt", "visual prompt tuning, deep (Jia et al. 2022)", "gradient", _peft_options(VptConfig, {}), _peft(VptConfig, None)),
        Method("vpt-shallow", "visual prompt tuning, prompts before the first block (Jia et al. 2022)", "gradient",
               _peft_options(VptConfig, {"deep": False}), _peft(VptConfig, None)),
        Method("adaptformer", "bottleneck adapters beside the MLP (Chen et al. 2022)", "gradient",
               _peft_options(BottleneckConfig, {"style": "adaptformer"}), _peft(BottleneckConfig, None)),
        Method("houlsby", "bottleneck adapters after attention and MLP (Houlsby et al. 2019)", "gradient",
               _peft_options(BottleneckConfig, {"style": "houlsby"}), _peft(BottleneckConfig, None)),
        Method("pfeiffer", "bottleneck adapters after the MLP (Pfeiffer et al. 2021)", "gradient",
               _peft_options(BottleneckConfig, {"style": "pfeiffer"}), _peft(BottleneckConfig, None)),
        Method("peft", "any PEFT method, from an adapter_config.json", "gradient", {"config": None}, _from_config),
        *_other_peft_methods(),
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


def resolve(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The given options with files replaced by their content, so that they say what a run is wherever it runs.

    Raises:
        MedfmcError: unknown method or option, or a file that is not there.
    """
    all_options(name, options)
    options = dict(options)
    if name == "peft" and isinstance(options.get("config"), (str, Path)):
        path = Path(options["config"])
        path = path / "adapter_config.json" if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise MedfmcError(f"there is no {path}; expected an adapter_config.json.") from None
        except json.JSONDecodeError as error:
            raise MedfmcError(f"{path} is not JSON: {error}.") from None
        options["config"] = {key: value for key, value in content.items() if key == "peft_type" or key not in _BOOKKEEPING}
    return options
