"""Heads that are fitted to cached features of a frozen backbone: what they compute, their file, and a classifier of backbone and head."""

import copy
import json
import threading
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import normalize
from transformers import AutoModelForImageClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from ..adapter_files import HEAD
from ..errors import MedfmcError
from ..files import atomic_path
from ..models.structure import head_names

FAR = 30.0  # the logit of a class that support rows show never or always; its probability is 1e-13 or 1 minus that


class LinearHead(nn.Module):
    """Logits that are linear in the L2-normalised features.

    Args:
        weight: (classes, dim).
        bias: (classes,).
    """

    kind = "linear"

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())

    @property
    def options(self) -> dict[str, Any]:
        """What the file holds besides the tensors."""
        return {}

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, dim) to logits, (B, classes), float32."""
        return normalize(features.float(), dim=1) @ self.weight.float().T + self.bias.float()


class NeighbourHead(nn.Module):
    """Vote of the k nearest support rows by cosine, weighted by exp(temperature * cosine); the logit is the vote's log odds.

    One imagined neighbour as far as the nearest can be from deciding, spread as the support set is, votes too, so that no vote is
    unanimous. A class that the support set does not show has the logit -30.

    Args:
        vectors: L2-normalised features of the support set, (n, dim).
        members: which classes each row is of, (n, classes) of zeros and ones.
        k: how many neighbours vote.
        temperature: factor on cosines.
        multi_label: whether the log odds are those of each class by itself.
    """

    kind = "neighbours"

    def __init__(self, vectors: torch.Tensor, members: torch.Tensor, k: int, temperature: float, multi_label: bool) -> None:
        super().__init__()
        self.vectors, self.members = nn.Parameter(vectors.float()), nn.Parameter(members.float())
        self.k, self.temperature, self.multi_label = k, temperature, multi_label

    @property
    def options(self) -> dict[str, Any]:
        """What the file holds besides the tensors."""
        return {"k": self.k, "temperature": self.temperature, "multi_label": self.multi_label}

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, dim) to logits, (B, classes), float32."""
        members = self.members.float()
        cosines = normalize(features.float(), dim=1) @ self.vectors.float().T
        k = min(self.k, len(self.vectors))
        nearest, rows = cosines.topk(k, dim=1)
        weights = torch.exp(self.temperature * (nearest - 1))
        share = (weights[:, :, None] * members[rows]).sum(dim=1) / weights.sum(dim=1, keepdim=True)
        share = (k * share + members.mean(dim=0)) / (k + 1)
        logits = share.clip(1e-12).log()
        if self.multi_label:
            logits = logits - (1 - share).clip(1e-12).log()
        return logits.masked_fill(~members.any(dim=0), -FAR)


Head = LinearHead | NeighbourHead


def save_head(head: Head, folder: Path) -> None:
    """Write `head.safetensors` into a folder."""
    metadata = {"head": json.dumps({"kind": head.kind} | head.options)}  # one entry: several would come in any order, and hash in any way
    tensors = {name: value.detach().cpu().contiguous() for name, value in head.named_parameters()}
    with atomic_path(folder / HEAD) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_head(folder: Path) -> Head:
    """Read what `save_head` wrote.

    Raises:
        MedfmcError: the file is damaged, or of a kind that this version does not know.
    """
    path = folder / HEAD
    try:
        with safe_open(path, "pt") as file:
            says = json.loads((file.metadata() or {})["head"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        if says.get("kind") == LinearHead.kind:
            return LinearHead(tensors["weight"], tensors["bias"])
        if says.get("kind") == NeighbourHead.kind:
            return NeighbourHead(tensors["vectors"], tensors["members"], says["k"], says["temperature"], says["multi_label"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise MedfmcError(f"{path} cannot be read as a head ({error}); it is damaged, or was not written by medfmc_hf.") from None
    raise MedfmcError(f"{path} holds a head of the kind {says.get('kind')!r}; this version knows linear and neighbours.")


def features_of(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """The vector that the head of a backbone reads of each image: (B, dim), in the precision of the network.

    Args:
        model: what `load_backbone` returned.
        pixel_values: (B, 3, H, W), on the model's device.
    """
    read: list[torch.Tensor] = []
    caller = threading.get_ident()

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if threading.get_ident() == caller:  # a server may answer several requests with one model
            read.append(inputs[0].flatten(1))

    hook = model.get_submodule(head_names(model)[0]).register_forward_pre_hook(keep)
    try:
        model(pixel_values=pixel_values)
    finally:
        hook.remove()
    return read[0]


class FrozenBackboneConfig(PretrainedConfig):
    """Stands for the class below in transformers' list of image classifiers, by whose names its pipelines go."""

    model_type = "medfmc_hf.frozen_backbone"


class FrozenBackboneForImageClassification(PreTrainedModel):
    """A backbone as it was pretrained, and a head that was fitted to its features.

    Args:
        backbone: what `load_backbone` returned. Its weights are frozen here, and its own head takes no part.
        head: see `medfmc_hf.adaptation.train_free.HEADS`.
    """

    config_class = FrozenBackboneConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True  # this class itself attends to nothing
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, backbone: PreTrainedModel, head: Head) -> None:
        super().__init__(copy.deepcopy(backbone.config))
        self.backbone, self.head = backbone.requires_grad_(False), head
        self.origin = cast(Any, backbone).origin

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> ImageClassifierOutput:
        features = features_of(self.backbone, pixel_values)
        with torch.autocast(features.device.type, enabled=False):  # heads are fitted and applied in float32
            return ImageClassifierOutput(logits=self.head(features))

    def save_pretrained(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: what transformers would write, its own class would load with new random weights."""
        raise MedfmcError(
            "a head on a frozen backbone cannot be saved by transformers. Its files are in the `adapter` folder of its run; copy that, or "
            "publish it by medfmc push model."
        )

    @property
    def unused_parts(self) -> tuple[str, ...]:
        """Names of the layers that the logits do not depend on."""
        return tuple(f"backbone.{name}" for name in head_names(self.backbone))


AutoModelForImageClassification.register(FrozenBackboneConfig, FrozenBackboneForImageClassification, exist_ok=True)
