"""Finds the parts of a vision backbone (blocks, attention, MLP, head) by its model structure, not by its name."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ..errors import MedfmcError

Family = Literal["tokens", "windows", "convolutional"]

_QUERY, _KEY, _VALUE = r"q|query|q_proj|to_q|q_lin", r"k|key|k_proj|to_k|k_lin", r"v|value|v_proj|to_v|v_lin"
_FUSED = r"qkv|in_proj|qkv_proj"


@dataclass(frozen=True)
class Structure:
    """The parts of an image classifier, as module names.

    Attributes:
        family: `tokens` (global attention over one sequence), `windows` (attention inside windows, Swin) or `convolutional`.
        blocks: residual blocks of all stages, in order.
        heads: Linear layers that give the logits; always trained. Usually one, two for distilled DeiT.
    """

    family: Family
    blocks: tuple[str, ...]
    heads: tuple[str, ...]


def structure_of(model: nn.Module, head_needed: bool = True) -> Structure:
    """Find the parts of an image classifier.

    Args:
        model: classifier without adapters.
        head_needed: whether a model without a classification head is an error; if not, its `heads` are empty.

    Raises:
        MedfmcError: its structure is unknown; the message says what was looked for.
    """
    blocks = _block_names(model)
    if not blocks:
        raise MedfmcError(
            f"no blocks were found in {type(model).__name__}: looked for a ModuleList or Sequential of at least one module, all of one "
            "class and with children (transformer or residual blocks), directly or inside stages."
        )
    modules = dict(model.named_modules())
    attentions = [attention_of(modules[name]) for name in blocks]
    if all(attention is None for attention in attentions):
        family: Family = "convolutional"
    elif any(_is_windowed(part) for name in blocks for part in modules[name].modules()):
        family = "windows"
    else:
        family = "tokens"
    return Structure(family, blocks, head_names(model, blocks) if head_needed else ())


def head_names(model: nn.Module, blocks: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """The names of the layers that map features to logits.

    They are the Linear layers outside the module that holds the blocks with one output per class.

    Raises:
        MedfmcError: the classifier has none.
    """
    blocks = blocks or _block_names(model)
    body = blocks[0].split(".")[0] if blocks else None
    classes = getattr(getattr(model, "config", None), "num_labels", None)
    beside = [(name, part) for name, part in model.named_modules() if name.split(".")[0] != body]
    heads = tuple(name for name, part in beside if isinstance(part, nn.Linear) and part.out_features == classes)
    timm_model: Any = getattr(model, "timm_model", None)
    if not heads and hasattr(timm_model, "get_classifier"):
        classifier = timm_model.get_classifier()
        heads = tuple(name for name, part in model.named_modules() if part is classifier)
    if not heads:
        raise MedfmcError(
            f"no classification head was found in {type(model).__name__}: looked outside the module that holds the blocks for a Linear "
            f"layer with {classes} outputs. medfmc_hf.models.backbones.load_backbone gives a head to a backbone that has none."
        )
    return heads


def attention_of(block: nn.Module) -> nn.Module | None:
    """The module inside a block that holds the query, key and value projections; None for a convolutional block."""
    name = _attention_name(block)
    return None if name is None else block.get_submodule(name)


def query_value(model: nn.Module, structure: Structure) -> list[str]:
    """Names of the query and value projections (or of the fused one) of every block; of a convolutional block, its dense layers."""
    return inside_attention(model, structure, ("query", "value"))


def inside_attention(model: nn.Module, structure: Structure, parts: tuple[str, ...] = ("query", "key", "value", "output")) -> list[str]:
    """Names of the given projections of every block's attention, or of the fused one.

    A convolutional block has no attention: its dense layers are taken instead.
    """
    patterns = {"query": _QUERY, "key": _KEY, "value": _VALUE}
    names = []
    for block_name in structure.blocks:
        block = model.get_submodule(block_name)
        attention_name = _attention_name(block)
        if attention_name is None:
            names += dense_layers(model, block_name)
            continue
        attention = block.get_submodule(attention_name)
        where = ".".join(filter(None, (block_name, attention_name)))
        fused = _projection(attention, _FUSED)
        inputs = [part for part in parts if part in patterns]
        names += [f"{where}.{fused}"] if fused and inputs else [f"{where}.{_projection(attention, patterns[part])}" for part in inputs]
        if "output" in parts and (output := attention_output(block)):
            names.append(f"{block_name}.{output}")
    return names


def inside_mlp(model: nn.Module, structure: Structure) -> list[str]:
    """Names of the dense layers of every block outside its attention."""
    names: list[str] = []
    for block in structure.blocks:
        branch = _attention_branch(model.get_submodule(block))
        attention = () if branch is None else dense_layers(model, f"{block}.{branch}")
        names += [name for name in dense_layers(model, block) if name not in attention]
    return names


def dense_layers(model: nn.Module, block_name: str) -> list[str]:
    """Names of every Linear layer and every ungrouped convolution of a block."""
    return [
        f"{block_name}.{name}"
        for name, part in model.get_submodule(block_name).named_modules()
        if isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.groups == 1)
    ]


def has_class_token(model: nn.Module) -> bool:
    """Whether the first token of the sequence is a class token."""
    return any(name.rpartition(".")[2] in ("cls_token", "class_token", "class_embedding") for name, _ in model.named_parameters())


def patch_pixels(model: nn.Module) -> int:
    """Number of values in one patch: channels times height times width of the first convolution's kernel."""
    convolution = next((part for part in model.modules() if isinstance(part, nn.Conv2d)), None)
    return 3 * 16 * 16 if convolution is None else convolution.weight[0].numel()


def block_width(block: nn.Module) -> int:
    """Width of the tokens of a transformer block: the input features of its attention."""
    linears = ((name.rpartition(".")[2], part) for name, part in block.named_modules() if isinstance(part, nn.Linear))
    return next(part.in_features for name, part in linears if re.fullmatch(f"{_QUERY}|{_FUSED}", name))


def attention_output(block: nn.Module) -> str | None:
    """Name, inside the block, of the last Linear layer of its attention; None without attention."""
    branch = _attention_branch(block)
    if branch is None:
        return None
    inputs = "|".join((_QUERY, _KEY, _VALUE, _FUSED))
    linears = [name for name, part in block.get_submodule(branch).named_modules() if isinstance(part, nn.Linear)]
    outputs = [name for name in linears if not re.fullmatch(inputs, name.rpartition(".")[2]) and "bias" not in name]
    return f"{branch}.{outputs[-1]}" if outputs else None


def mlp_output(block: nn.Module) -> str | None:
    """Name, inside the block, of the last Linear layer of its MLP; None if it has no MLP."""
    branch = _attention_branch(block)
    linears = [name for name, part in block.named_modules() if isinstance(part, nn.Linear) and name.split(".")[0] != branch]
    return linears[-1] if len(linears) >= 2 else None


def mlp_module(block: nn.Module) -> str | None:
    """Name, inside the block, of the one module that is its whole MLP; None if the MLP's layers are separate modules of the block."""
    last = mlp_output(block)
    while last and (last := last.rpartition(".")[0]):
        if sum(isinstance(part, nn.Linear) for part in block.get_submodule(last).modules()) >= 2:
            return last
    return None


def norm_layers(model: nn.Module) -> list[str]:
    """Names of all normalisation layers that have weights."""
    return [
        name
        for name, part in model.named_modules()
        if "norm" in type(part).__name__.lower() and isinstance(getattr(part, "weight", None), nn.Parameter) and part.weight.ndim == 1
    ]


def _block_names(model: nn.Module) -> tuple[str, ...]:
    lists = {name: part for name, part in model.named_modules() if _is_list_of_alike(part)}
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if not outermost:
        return ()
    sizes = {name: sum(p.numel() for p in lists[name].parameters()) for name in outermost}
    parent = max(sizes, key=lambda name: sizes[name]).rpartition(".")[0]
    names = []
    for name in outermost:  # the stages of a timm ResNet are separate children of one module
        if name.rpartition(".")[0] == parent:
            names += _unfold(name, lists[name])
    return tuple(names)


def _unfold(name: str, part: nn.Module) -> list[str]:
    """The blocks of a list: its elements, or if these are stages, the elements of their lists."""
    names = []
    for key, element in part.named_children():
        inner = [("", element)] if isinstance(element, (nn.ModuleList, nn.Sequential)) else list(element.named_children())
        inner = [(child, module) for child, module in inner if _is_list_of_alike(module)]
        if inner:
            names += [
                f"{name}.{key}{'.' if child else ''}{child}.{index}" for child, module in inner for index, _ in module.named_children()
            ]
        else:
            names.append(f"{name}.{key}")
    return names


def _is_list_of_alike(part: nn.Module) -> bool:
    if not isinstance(part, (nn.ModuleList, nn.Sequential)) or len(part) == 0:
        return False
    kinds = {type(getattr(element, "base_layer", element)) for element in part}  # PEFT may have wrapped some of them
    return len(kinds) == 1 and all(any(True for _ in element.children()) for element in part)


def _attention_name(block: nn.Module) -> str | None:
    """Name, inside the block, of the module with the query, key and value projections; None for a convolutional block."""
    parts = block.named_modules()
    return next(
        (name for name, part in parts if _projection(part, _FUSED) or (_projection(part, _QUERY) and _projection(part, _VALUE))), None
    )


def _attention_branch(block: nn.Module) -> str | None:
    """Name of the block's child that is or holds its attention; None for a convolutional block."""
    name = _attention_name(block)
    return None if name is None else name.split(".")[0]


def _projection(part: nn.Module, pattern: str) -> str | None:
    return next((name for name, child in part.named_children() if isinstance(child, nn.Linear) and re.fullmatch(pattern, name)), None)


def _is_windowed(part: nn.Module) -> bool:
    return isinstance(getattr(part, "window_size", None), (int, tuple, list)) and hasattr(part, "shift_size")
