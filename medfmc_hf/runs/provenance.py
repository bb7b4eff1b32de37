"""What a run record says of where its result came from: the rows, the machine and the library versions."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, cast

from ..subsets import ConfigName
from ..version import __version__
from .record import RunRecord

if TYPE_CHECKING:
    import datasets
    import torch
    from accelerate import Accelerator
    from torch import nn
    from transformers import PretrainedConfig

    from ..models.checkpoint import Checkpoint

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "scikit-learn", "numpy", "pillow")

PROTOCOLS = {
    "clean": "clean: repeated support rows removed, validation = pool minus support, test = every published image outside the pool",
    "official": "official: the challenge's lists as they are; support rows repeat and most of them are in validation too (chest, endo)",
    "transfer": "transfer: train_20 / val_20 of the official lists, test = every published image outside the pool",
}


_UNFIT = {"invented": "invented", "incomplete": "incomplete (built with --allow-missing)"}


def data(name: ConfigName, splits: "datasets.DatasetDict", fingerprint: str, test_sha256: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The `data` part of a record.

    Args:
        name: of the dataset config.
        splits: its rows.
        fingerprint: hash of its rows and images.
        test_sha256: and of those of its test split.
        facts: what the build says of the subset, see `medfmc_hf.data.loading.build_facts`.
    """
    return {
        "config": str(name),
        "fingerprint": fingerprint,
        "test_sha256": test_sha256,
        "protocol": PROTOCOLS[name.variant],
        "rows": {name: len(rows) for name, rows in splits.items()},
        "patients": {name: len(set(rows["patient_id"])) for name, rows in splits.items()},
        **facts,
    }


def marks(record: RunRecord) -> list[str]:
    """What sets the images of a run apart from the published ones, in words that follow "on images that are"; empty if nothing does.

    Runs with different marks are never pooled.
    """
    side = record.data.get("max_side")
    return unfit_marks(record) + ([f"shrunk to at most {side} pixels a side"] if side else [])


def unfit_marks(record: RunRecord) -> list[str]:
    """Of these the ones that keep a run off boards, and its scores out of results files, unless asked for."""
    return [words for key, words in _UNFIT.items() if record.data.get(key)]


def backbone(model: "nn.Module", checkpoint: "Checkpoint", fingerprint: str | None = None) -> dict[str, Any]:
    """The `backbone` part of a record.

    Args:
        model: what `medfmc_hf.models.backbones.load_backbone` returned, or its adaptation.
        checkpoint: the files it was loaded from.
        fingerprint: what counts of it in the identity of the run; None for that of the files.
    """
    from ..models.backbones import origin

    source = origin(model)
    return {
        "name": source.model,
        "revision": source.revision,
        "fingerprint": fingerprint or checkpoint.fingerprint,
        "sha256": checkpoint.content,
        "architecture": cast("PretrainedConfig", model.config).model_type,
        "image_size": source.image_size,
        "pool": source.pool,
    }


def parameters(model: "nn.Module") -> dict[str, int]:
    """How many numbers are trained or fitted, and how many the logits depend on."""
    unused = tuple(f"{name}." for name in getattr(model, "unused_parts", ()))
    counts = [(p.numel(), p.requires_grad) for name, p in model.named_parameters() if not name.startswith(unused)]
    return {"trainable_parameters": sum(n for n, trained in counts if trained), "total_parameters": sum(n for n, _ in counts)}


def machine(accelerator: "Accelerator") -> dict[str, Any]:
    """Device, processes and the process's peak memory in bytes (of the GPU where there is one, else resident)."""
    import torch

    on_gpu = accelerator.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(accelerator.device) if on_gpu else _peak_resident()
    return {
        "device": device_name(accelerator.device),
        "threads": torch.get_num_threads(),
        "processes": accelerator.num_processes,
        "peak_memory_bytes": peak,
    }


def device_name(device: "torch.device") -> str:
    """Kind and name of a device, such as `cuda: NVIDIA H100 80GB HBM3`."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{device.type}: {name}"


def _peak_resident() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    """Python, this package and the libraries that decide results."""
    found = {"python": platform.python_version(), "medfmc_hf": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
