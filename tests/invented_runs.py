"""Invented runs for tests of whatever reads run folders: the real files of `medfmc_hf.runs`, honest scores of seeded random predictions.

Every run of a subset is tested on the same invented rows. A method's skill grows with the shots and wavers with the seed, so boards,
curves and comparisons have something to show. The numbers say nothing of medicine.
"""

import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from medfmc_hf.evaluation.experiments import adaptation_of
from medfmc_hf.runs import Predictions, RunConfig, RunRecord, identity, save_predictions
from medfmc_hf.runs.folders import run_folder
from medfmc_hf.scoring import score
from medfmc_hf.subsets import Subset, subset_of

NASTY = "<b>_new|50%$&#{}~^\\"  # a name whose characters mean something to Markdown, HTML and LaTeX
TRAINABLE = {"linear": 3_076, "vpt-deep": 95_236, "lora": 297_988, "bottleneck": 1_192_708, "full": 85_801_732}
SKILL = {"linear": 0.5, "vpt-deep": 0.7, "lora": 0.8, "bottleneck": 0.85, "full": 0.3}


def generator_of(*words: object) -> np.random.Generator:
    """A generator that depends on the words alone, so that the same arguments invent the same run in every process."""
    return np.random.default_rng(zlib.crc32(repr(words).encode()))


def invent_rows(subset: Subset, rows: int, patients: int | None = None, split: str = "test") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image ids, patient ids and targets of a test set.

    Args:
        subset: its classes come as often as in MedFMC, at least once each where there are rows enough.
        rows: images.
        patients: how many ids they share; None for the subset's own ratio. Where an image is a patient, it has no effect.
        split: part of the names, so that splits are disjoint.
    """
    rng = generator_of("rows", subset.key, rows, patients, split)
    groups = min(patients or max(2, rows * subset.patients // subset.images), rows)
    group = np.sort(np.concatenate([np.arange(groups), rng.integers(0, groups, rows - groups)]))
    mark = {"test": 1, "validation": 2}.get(split, 3)
    name = {
        "colon": lambda row: f"invented-{mark}{group[row]:05d}-lv1-p{row:04d}",
        "endo": lambda row: f"invented_{mark}_{group[row]:07d}_{row:06d}",  # the study is the first 18 characters
        "neojaundice": lambda row: f"{mark}{group[row]:03d}-{row}",
    }.get(subset.key, lambda row: f"invented-{split}-{row:06d}")
    ids = np.array([name(row) for row in range(rows)])
    frequency = np.array(subset.counts) / subset.images
    if subset.multilabel:
        targets = (rng.random((rows, len(subset.classes))) < frequency).astype(np.int64)
        for column in range(min(len(subset.classes), rows)):
            targets[column, column] = 1
    else:
        targets = rng.choice(len(subset.classes), rows, p=frequency / frequency.sum())
        targets[: len(subset.classes)] = np.arange(len(subset.classes))[:rows]
    return ids, np.array([subset.patient_id(image_id) for image_id in ids]), targets


def invent_predictions(config: RunConfig, rows: int = 80, patients: int | None = None, split: str = "test") -> Predictions:
    """Predictions of a model that knows a little; how little depends on the config alone."""
    subset = subset_of(config.subset)
    ids, patient_ids, targets = invent_rows(subset, rows, patients, split)
    rng = generator_of("logits", sorted(config.to_dict().items()), split)
    shots = config.dataset_config.shots or 20
    skill = SKILL.get(config.method, 0.6) * (0.4 + 0.35 * np.log10(1 + shots)) + rng.normal(0, 0.08)
    truth = targets if targets.ndim == 2 else np.eye(len(subset.classes), dtype=np.int64)[targets]
    logits = 2 * skill * truth + rng.normal(size=truth.shape) - 1
    return Predictions(ids, patient_ids, targets, logits.astype(np.float32))


def invent_run(
    root: str | Path,
    config: RunConfig | None = None,
    *,
    rows: int = 80,
    patients: int | None = None,
    status: str = "finished",
    error: str = "out of memory: an invented failure",
    predictions: bool = True,
    **options: Any,
) -> Path:
    """Write the folder of one run below `root` and return it.

    Args:
        root: folder of runs.
        config: what was run; made from `options` if None.
        rows: test images.
        patients: test patients; None for the subset's own ratio.
        status: `finished` or `failed`. A failed run has an error and neither scores nor predictions.
        error: what a failed run says.
        predictions: False leaves `predictions.parquet` out, as a record that was copied alone.
        options: of `RunConfig`.
    """
    config = config or RunConfig.from_dict(options)
    subset, name = subset_of(config.subset), str(config.dataset_config)
    fingerprint = f"{zlib.crc32(repr((name, rows, patients)).encode()):08x}"
    local = Path(config.model).is_absolute()
    backbone = (hashlib.sha256 if local else hashlib.sha1)(config.model.encode()).hexdigest()  # of a folder, or a commit on the Hub
    record = RunRecord(id=identity(config, fingerprint, backbone), status=status, config=config.to_dict())
    folder = run_folder(root, config, record.id)
    record.finished_at = f"2026-01-{1 + config.seed:02d}T12:00:00+00:00"
    if status == "failed":
        record.error = error
        record.save(folder)
        return folder

    parts = {split: invent_predictions(config, rows, patients, split) for split in ("test", "validation")[: 1 + (config.select == "best")]}
    trained = TRAINABLE.get(config.method, 100_000)
    shots = config.dataset_config.shots or 200
    train_rows = shots * len(subset.classes)
    seconds = round(4 + 0.002 * train_rows * config.epochs + generator_of("seconds", record.id).random(), 3)
    record.data = {
        "config": name,
        "fingerprint": fingerprint,
        "protocol": f"{config.protocol}: invented rows",
        "rows": {"train": train_rows, "validation": 10 * train_rows, "test": rows},
        "patients": {"train": train_rows, "validation": train_rows, "test": len(set(parts["test"].patient_ids))},
    }
    side = config.image_size or 224
    record.backbone = {
        "name": config.model,
        "fingerprint": backbone,
        "revision": None if local else backbone,
        "architecture": "vit",
        "image_size": side,
    }
    record.scores = {split: score(p.targets, p.probabilities, task=subset.task, classes=subset.classes) for split, p in parts.items()}
    record.history = [{"epoch": epoch, "loss": 1 / epoch, "learning_rate": config.learning_rate} for epoch in range(1, config.epochs + 1)]
    record.cost = {
        "trainable_parameters": trained,
        "total_parameters": 85_801_732 + (trained if config.method != "full" else 0),
        "adapter_bytes": 4 * trained,
        "peak_memory_bytes": 1_200_000_000 + 16 * trained,
        "device": "cpu: invented",
        "processes": 1,
        "seconds": {"start": 1.0, "data": 1.0, "train": round(seconds - 4, 3), "test": 2.0, "total": seconds},
    }
    record.adaptation = adaptation_of(record)
    record.versions = {"python": "3.11.0", "medfmc_hf": "0.1.0", "torch": "2.13.0"}
    if predictions:
        save_predictions(folder, parts)
    record.save(folder)
    return folder


def invent_runs(
    root: str | Path,
    *,
    methods: Iterable[str] = ("linear", "lora", "vpt-deep"),
    subsets: Iterable[str] = ("chest", "colon", "endo"),
    shots: Iterable[int | None] = (1, 5, 10),
    seeds: Iterable[int] = (0, 1, 2, 3, 4),
    rows: int = 80,
    **options: Any,
) -> list[Path]:
    """Write a whole grid of runs below `root`; the folders in the order of the grid. `options` go to every `invent_run`."""
    return [
        invent_run(root, rows=rows, method=method, subset=subset, shots=shot, seed=seed, **options)
        for method in methods
        for subset in subsets
        for shot in shots
        for seed in seeds
    ]
