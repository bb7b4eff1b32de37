"""Run folders with real adapters: the records are invented, the models are small, random and untrained, and load like trained ones."""

from pathlib import Path

import torch
from invented_runs import invent_run

from medfmc_hf import model_card
from medfmc_hf.adaptation import adapt, train_free
from medfmc_hf.adaptation.heads import FrozenBackboneForImageClassification
from medfmc_hf.models import backbones
from medfmc_hf.models.checkpoint import find_checkpoint
from medfmc_hf.models.image_processor import processing_of, save_processor
from medfmc_hf.runs import RunConfig, RunRecord, hashes_of, load_predictions, provenance
from medfmc_hf.runs.recipes import recipe_of
from medfmc_hf.subsets import subset_of


def with_head(backbone, method: str, key: str) -> FrozenBackboneForImageClassification:
    """The backbone with a head on its features of random images, of which each shows one class."""
    subset, size = subset_of(key), backbone.origin.image_size
    support = train_free.features(backbone, [torch.randn(2 * len(subset.classes), 3, size, size)])
    targets = torch.eye(len(subset.classes), dtype=torch.int64).repeat(2, 1)
    labels = targets if subset.multilabel else targets.argmax(1)
    return FrozenBackboneForImageClassification(
        backbone, train_free.HEADS[method](support, labels.numpy(), subset.task, len(subset.classes), {})
    ).eval()


def adapted_run(root: Path, backbone: Path, *, method: str = "lora", subset: str = "endo", seed: int = 0, rows: int = 60) -> Path:
    """Write the folder of one run below `root`, as `medfmc_hf.training.one_run.train` does, and return it."""
    config = RunConfig.from_dict(recipe_of(method) | {"subset": subset, "shots": 5, "seed": seed, "model": str(backbone), "epochs": 2})
    folder = invent_run(root, config, rows=rows)
    record = RunRecord.load(folder)
    torch.manual_seed(seed)
    model = backbones.load_backbone(str(backbone), subset_of(subset))
    if method in train_free.HEADS:
        model = with_head(model, method, subset)
    else:
        model = adapt.adapt(model, method, config.method_options)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))  # LoRA starts at zero, which would hide a lost adapter
    files = adapt.save(model, folder / "adapter")
    record.cost["adapter_bytes"] = sum(file.stat().st_size for file in files)
    record.backbone |= provenance.backbone(model, find_checkpoint(backbone))
    save_processor(processing_of(str(backbone)), folder / "adapter")
    record.files = hashes_of(folder)
    record.save(folder)
    model_card.write_card(record, folder / "adapter", load_predictions(folder))
    return folder
