"""Which method works on which architecture: a table made by trying each pair on a tiny model.

    python -m medfmc_hf.adaptation.support                     prints the table
    python -m medfmc_hf.adaptation.support --readme README.md  puts it between its markers in a file

A pair works if the method trains (each weight it calls trainable gets a gradient, and the head is among them), gives the same logits
after saving and loading, and leaves the backbone as it was when it is taken off.
"""

import argparse
import re
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from .. import progress
from ..errors import MedfmcError
from ..files import write_text
from ..models import backbones
from ..subsets import subset_of
from . import adapt, train_free
from .heads import FrozenBackboneForImageClassification

BEGIN, END = "<!-- support table -->", "<!-- end -->"
WORKS = "✓"

_TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
_TINY_VIT = {**_TINY, "intermediate_size": 128}
_TINY_DINO = {**_TINY, "mlp_ratio": 2}
_TINY_SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 64, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}
_TINY_CONV = {"image_size": 32, "hidden_sizes": [64, 64], "depths": [1, 1]}

# name: transformers' type of model, and options of its config that make it small enough to build in a blink.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("vit", _TINY_VIT),
    "DeiT": ("deit", _TINY_VIT),
    "DINOv2": ("dinov2", _TINY_DINO),
    "DINOv2 + registers": ("dinov2_with_registers", _TINY_DINO),
    "DINOv3": ("dinov3_vit", {**_TINY_VIT, "num_register_tokens": 2}),
    "CLIP": ("clip_vision_model", _TINY_VIT),
    "SigLIP": ("siglip_vision_model", _TINY_VIT),
    "BEiT": ("beit", {**_TINY_VIT, "use_relative_position_bias": True}),
    "Swin": ("swin", _TINY_SWIN),
    "SwinV2": ("swinv2", _TINY_SWIN),
    "ConvNeXt": ("convnext", {**_TINY_CONV, "num_stages": 2}),
    "ResNet": ("resnet", {"embedding_size": 64, "hidden_sizes": [64, 64], "depths": [1, 1], "layer_type": "basic"}),
    "EfficientNet": ("efficientnet", {"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128}),
}

# Where a method's own defaults are for wide models.
_SMALL: dict[str, dict[str, Any]] = {
    "c3a": {"block_size": 32},
    "fourierft": {"n_frequency": 100},
    "gralora": {"r": 8},
    "miss": {"r": 8},
    "psoft": {"r": 8},
    "road": {"group_size": 32},
    "shira": {"r": 4},
    "vblora": {"vector_length": 32},
    "waveft": {"n_frequency": 100},
    "peft": {"config": {"peft_type": "LORA", "r": 4}},
}


def try_pair(method: str, backbone: Path) -> str:
    """`WORKS`, or why the method does not go with the backbone in this folder."""
    subset = subset_of("endo")
    torch.manual_seed(0)
    model: Any = backbones.load_backbone(str(backbone), subset)
    images = torch.randn(4, 3, model.origin.image_size, model.origin.image_size)
    if adapt.method_of(method).kind == "frozen":
        vectors = train_free.features(model, [images])
        targets = torch.eye(4, dtype=torch.int64).numpy()
        head = train_free.HEADS[method](vectors, targets, subset.task, 4, adapt.all_options(method, {}))
        return _saved_and_loaded(FrozenBackboneForImageClassification(model, head), images)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        adapted = adapt.adapt(model, method, _SMALL.get(method, {}), total_steps=10)
    except MedfmcError as error:
        return str(error)
    return _life(adapted, images, before)


def _life(adapted: nn.Module, images: torch.Tensor, before: dict[str, torch.Tensor]) -> str:
    """Train one step, save, load, and take the method off the backbone, whose weights were `before`: `WORKS`, or what went wrong."""
    adapted.train()(pixel_values=images).logits.square().sum().backward()
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    idle = [name for name, p in trained.items() if p.grad is None]
    if idle:
        return f"no gradient reaches {idle[0]}"
    torch.optim.SGD(trained.values(), lr=1e-3).step()
    if (again := _saved_and_loaded(adapted, images)) != WORKS:
        return again
    after = adapt.unload(adapted).state_dict()
    if before.keys() != after.keys() or any(not torch.equal(value, after[name]) for name, value in before.items()):
        return "the backbone is not what it was after taking the method off"
    return WORKS


def _saved_and_loaded(model: nn.Module, images: torch.Tensor) -> str:
    """`WORKS` if a model gives the same logits after saving and loading, or what went wrong."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        expected = model.eval()(pixel_values=images).logits
        adapt.save(model, folder)
        found = adapt.load(folder)(pixel_values=images).logits
    if not expected.isfinite().all():
        return "the logits are not finite after one step of training."
    if not torch.allclose(expected, found, atol=1e-5):
        return f"logits differ by {float((expected - found).abs().max()):.1g} after saving and loading"
    return WORKS


def try_pairs(methods: Iterable[str], architectures: Iterable[str]) -> dict[str, dict[str, str]]:
    """The outcome of each pair: `WORKS` or the reason why not, by method and architecture.

    Args:
        methods: names of methods.
        architectures: names of `ARCHITECTURES`.
    """
    cells: dict[str, dict[str, str]] = {method: {} for method in methods}
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for architecture in progress.bar(architectures, desc="architectures"):
            torch.manual_seed(0)
            kind, options = ARCHITECTURES[architecture]
            folder = Path(root) / architecture.replace(" ", "")
            transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **options)).save_pretrained(folder)
            for method, row in cells.items():
                row[architecture] = try_pair(method, folder)
    return cells


def table(cells: dict[str, dict[str, str]]) -> str:
    """The outcomes as a Markdown table; the reasons for what does not work stand under it."""
    architectures = list(next(iter(cells.values())))
    reasons: list[str] = []
    lines = ["| method | " + " | ".join(architectures) + " |", "|---" * (len(architectures) + 1) + "|"]
    for method, row in cells.items():
        shown = []
        for outcome in row.values():
            reason = _short(outcome)
            if outcome != WORKS and reason not in reasons:
                reasons.append(reason)
            shown.append(WORKS if outcome == WORKS else f"({reasons.index(reason) + 1})")
        lines.append(f"| `{method}` | " + " | ".join(shown) + " |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _short(reason: str) -> str:
    """The gist of an error: PEFT's own words differ with every layer."""
    return re.split(r" It says: | The block ", reason)[0].splitlines()[0]


def put(readme: Path, text: str) -> None:
    """Replace what stands between the markers of a file.

    Raises:
        MedfmcError: the file has no markers.
    """
    content = readme.read_text(encoding="utf-8")
    start, end = content.find(BEGIN), content.find(END, content.find(BEGIN))
    if start < 0 or end < 0:
        raise MedfmcError(f"{readme} has no place for the table; expected the lines {BEGIN} and {END}.")
    write_text(readme, content[: start + len(BEGIN)] + "\n" + text + "\n" + content[end:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", type=Path, help="file that holds the table between its markers")
    args = parser.parse_args()
    progress.set_quiet(True)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other
    text = table(try_pairs(adapt.METHODS, ARCHITECTURES))
    if args.readme:
        put(args.readme, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
