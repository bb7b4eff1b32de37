"""The adaptation methods by name: PEFT's, ours, the paper's baselines, and what each can be told."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_type_hints

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils.peft_types import PeftType
from torch import nn

from ..adapter_files import OUR_PEFT_TYPES, PEFT_CONFIG
from ..errors import MedfmcError
from ..hints import checked
from ..models.structure import Structure, inside_attention, inside_mlp, mlp_output, norm_layers, query_value
from ..tuners.bottleneck import BottleneckConfig, find_places, targets_of
from .inject import inject

Build = Callable[[nn.Module, Structure, Mapping[str, Any]], nn.Module]


@dataclass(frozen=True)
class Method:
    """A way to adapt a backbone.

    Attributes:
        options: the options it knows, with their defaults.
        build: (backbone with every weight frozen, its structure, all options) -> the model to train; None for a head on frozen features.
        peft_type: the `PeftType` whose fields the options are; None for other methods, and for `peft`, which can be any.
        said: the options that a config always says, at their default too; None for all. The others, fields of PEFT's that may be more in
            its next version, it says where they are not at their default.
    """

    options: Mapping[str, Any]
    build: Build | None = None
    peft_type: str | None = None
    said: tuple[str, ...] | None = None

    @property
    def kind(self) -> Literal["gradient", "frozen"]:
        """`gradient` (trained by the loop) or `frozen` (a head of `medfmc_hf.adaptation.train_free` on features computed once)."""
        return "frozen" if self.build is None else "gradient"


_BOOKKEEPING = {  # what a PEFT config says of itself, and not of the method
    "task_type",
    "peft_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "runtime_config",
}


def _mlp_ends(model: nn.Module, structure: Structure) -> list[str]:
    return [f"{block}.{end}" for block in structure.blocks if (end := mlp_output(model.get_submodule(block)))]


# What the option `targets` may say. The papers of (IA)^3 and LN tuning name layers of their own, and other layers would be another method.
_TARGETS: dict[str, Callable[[nn.Module, Structure], list[str]]] = {
    "query-value": query_value,
    "attention": inside_attention,
    "mlp": inside_mlp,
    "all": lambda model, structure: list(dict.fromkeys([*inside_attention(model, structure), *inside_mlp(model, structure)])),
    "keys-values-mlp": lambda model, structure: [
        *inside_attention(model, structure, parts=("key", "value")),
        *_mlp_ends(model, structure),
    ],
    "norms": lambda model, structure: norm_layers(model),
}
_DEFAULT_TARGETS = {"IA3": "keys-values-mlp", "LN_TUNING": "norms"}


def _peft(kind: str, **own: Any) -> Method:
    """The method of a `PeftType`, such as VERA; `own` are defaults in place of PEFT's."""
    return Method(_peft_options(kind) | own, partial(_build_peft, kind), kind, tuple(own))


def _peft_options(kind: str) -> dict[str, Any]:
    """The options of a PEFT method with their defaults.

    These are the fields of its config that a user may choose, `blocks` (adapt the last so many; None for all) and, where the tuner does
    not know where to go, `targets` (a name of `_TARGETS`).
    """
    fields = {
        f.name: f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        for f in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)])
        if f.init and f.name not in _BOOKKEEPING
    }
    targets = {} if kind in OUR_PEFT_TYPES else {"targets": _DEFAULT_TARGETS.get(kind, "query-value")}
    return {**targets, **fields, "blocks": None}


def _build_peft(kind: str, model: nn.Module, structure: Structure, options: Mapping[str, Any]) -> nn.Module:
    """Adapt with a PEFT method; modules to adapt and the head are filled in, since PEFT does not know them for vision models."""
    fields = {name: value for name, value in options.items() if name not in ("targets", "blocks")}
    last = _last_blocks(structure, options["blocks"])
    if fields.get("target_modules") is None:
        fields["target_modules"] = _modules_to_adapt(kind, model, structure, options, last)
    elif last:
        raise MedfmcError("blocks and target_modules both say where; give one of them.")
    fields["modules_to_save"] = list(dict.fromkeys([*(fields.get("modules_to_save") or ()), *structure.heads]))
    if "feedforward_modules" in fields and fields["feedforward_modules"] is None:
        fields["feedforward_modules"] = [name for name in _mlp_ends(model, structure) if name in fields["target_modules"]]
    return inject(model, PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)], fields)


def _modules_to_adapt(
    kind: str, model: nn.Module, structure: Structure, options: Mapping[str, Any], last: tuple[str, ...]
) -> list[str] | None:
    """Names of the modules that a PEFT method adapts, of the `last` blocks if any are named; None where its tuner finds them."""
    if kind in OUR_PEFT_TYPES and not last:
        return None
    if kind == "VPT":
        return list(last)
    if kind == "BOTTLENECK":
        return targets_of(model, find_places(model, last), BottleneckConfig(style=options["style"]).style)
    chosen = options["targets"]
    if chosen not in _TARGETS:
        raise MedfmcError(f"targets is one of {', '.join(_TARGETS)}; got {chosen!r}. For modules by name give target_modules.")
    names = _TARGETS[chosen](model, structure)
    names = [name for name in names if not last or name.startswith(tuple(f"{block}." for block in last))]
    _ = [model.get_submodule(name) for name in names]  # PEFT passes over names that are not there
    return names


def _last_blocks(structure: Structure, count: int | None) -> tuple[str, ...]:
    """The names of the last blocks; none where `count` is None."""
    if count is None:
        return ()
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(structure.blocks):
        raise MedfmcError(f"blocks is a whole number from 1 to {len(structure.blocks)} for this backbone; got {count!r}.")
    return structure.blocks[-count:]


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
    given = _config_of_peft(options["config"] or {})
    kind = given["peft_type"].upper()
    return _build_peft(kind, model, structure, {name: given.get(name, default) for name, default in _peft_options(kind).items()})


def _has_short_form(kind: str, config_cls: type[PeftConfig]) -> bool:
    """Whether a PEFT method puts weights into modules and trains a head beside them, as prompt learning for language models does not.

    Poly wants the number of a task with each image, and Shadow a decoder. LoRA and the tuners of ours have names of their own.
    """
    fields = {f.name for f in dataclasses.fields(config_cls)}
    return {"target_modules", "modules_to_save"} <= fields and kind not in ("POLY", "SHADOW", "LORA", *OUR_PEFT_TYPES)


_OWN = {
    "prototype": Method({"temperature": 10.0}),
    "linear": Method({"C": 1.0}),
    "knn": Method({"k": 10, "temperature": 10.0}),
    "linear-sgd": Method({}, _head_only),
    "full": Method({}, _full),
    "partial": Method({"blocks": 1}, _partial),
    "bitfit": Method({}, _bitfit),
    "layernorm": Method({}, _layernorm),
    "lora": _peft("LORA", r=8, lora_alpha=16),
    "dora": _peft("LORA", r=8, lora_alpha=16, use_dora=True),
    "vpt": _peft("VPT", num_prompts=8, deep=True),
    "vpt-shallow": _peft("VPT", num_prompts=8, deep=False),
    "adaptformer": _peft("BOTTLENECK", style="adaptformer", bottleneck_dim=64),
    "houlsby": _peft("BOTTLENECK", style="houlsby", bottleneck_dim=64),
    "pfeiffer": _peft("BOTTLENECK", style="pfeiffer", bottleneck_dim=64),
    "peft": Method({"config": None}, _from_config),
}
# A PEFT type by its name in lower case is short for method peft with that type.
METHODS: dict[str, Method] = _OWN | {
    kind.lower().replace("_", "-"): _peft(kind)
    for kind, config_cls in sorted(PEFT_TYPE_TO_CONFIG_MAPPING.items())
    if _has_short_form(kind, config_cls)
}


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
        MedfmcError: as `resolve` does.
    """
    return {**method_of(name).options, **resolve(name, options)}


def in_one_form(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say what a method is, the same whether defaults were written out or not: see `Method.said`.

    Raises:
        MedfmcError: as `resolve` does.
    """
    method = method_of(name)
    said = method.options if method.said is None else method.said
    found = {option: value for option, value in resolve(name, options).items() if repr(value) != repr(method.options[option])}
    return {option: method.options[option] for option in said} | found


def resolve(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The given options as their types have them, files replaced by their content, so that they say what a run is wherever it runs.

    Raises:
        MedfmcError: an unknown method or option, a value of another type than its option or out of its range, or a file that is not there.
    """
    method = method_of(name)
    unknown = sorted(set(options) - set(method.options))
    if unknown:
        raise MedfmcError(f"method {name} has no option {', '.join(unknown)}; it knows {', '.join(method.options) or 'none'}.")
    options = _checked(f"of method {name}", options, method.peft_type)
    if options.get("config") is not None:
        options["config"] = _config_of_peft(options["config"])
    return options


_HINTS: dict[str, tuple[Any, dict[str, float]]] = {
    "temperature": (float, {"above": 0}),
    "C": (float, {"above": 0}),
    "k": (int, {"low": 1}),
    "blocks": (int | None, {"low": 1}),
    "targets": (str, {}),
    "config": (Mapping[str, Any] | str | Path | None, {}),
}


def _checked(whose: str, options: Mapping[str, Any], peft_type: str | None) -> dict[str, Any]:
    """Options of a method as their type hints have them: those of `_HINTS`, and the fields of the config of a PEFT type."""
    hints = _HINTS if peft_type is None else {name: (hint, {}) for name, hint in _fields_of(peft_type).items()} | _HINTS
    return {name: checked(f"option {name} {whose}", value, *hints[name]) for name, value in options.items()}


@cache
def _fields_of(peft_type: str) -> dict[str, Any]:
    """The type hints of the config of a PEFT type; a grid asks for them with every run."""
    return get_type_hints(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(peft_type)])


def _config_of_peft(config: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """What an adapter_config.json, its folder or its content says of a method, and of which."""
    if isinstance(config, (str, Path)):
        path = Path(config)
        path = path / PEFT_CONFIG if path.is_dir() else path
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise MedfmcError(f"there is no {path}; expected an adapter_config.json.") from None
        except (OSError, ValueError) as error:
            raise MedfmcError(f"{path} is not JSON: {error}.") from None
        if not isinstance(config, Mapping):
            raise MedfmcError(f"{path} holds no mapping of names to values; expected an adapter_config.json.")
    kind = str(config.get("peft_type", "")).upper()
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise MedfmcError(
            "method peft needs the option `config`: the content of an adapter_config.json or its path, "
            f"with a peft_type that PEFT knows; got {kind or 'none'!r}."
        )
    said = {name: value for name, value in config.items() if name not in _BOOKKEEPING}
    known = _peft_options(kind)
    unknown = [name for name, value in said.items() if name not in known and value]  # what newer versions write is off, or unheeded
    if unknown:
        raise MedfmcError(f"PEFT's {kind} has no option {', '.join(unknown)} in this version; it knows {', '.join(known)}.")
    values = _checked(f"of {kind}", {name: said[name] for name in said if name in known}, kind)
    return {"peft_type": kind, **{name: value for name, value in values.items() if repr(value) != repr(known[name])}}
