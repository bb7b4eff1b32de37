"""Adapts one backbone to one dataset config: the whole path of a run, from its config to its folder of files.

`train` is the path, `fit` is the loop. Losses, methods, pixels and scores have files of their own.
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from . import adapt, backbones, cards, frozen, losses, provenance, scoring
from .data import loading, pixels, processing
from .errors import MedfmcError
from .progress import bar, say
from .runs import Predictions, RunConfig, RunRecord, identity, probabilities_of, run_folder, save_predictions
from .subsets import ConfigName, Subset, subset_of

EVALUATION_BATCH = 64  # pictures; it changes speed and memory, not results


@dataclass
class Shared:
    """What the runs of one process can share: the data folder, its loaded configs, and the pictures.

    Attributes:
        data: folder of a build, or a dataset repository on the Hub.
        cache: folder of the pixel cache; None for the user's.
        pictures: decoded training pictures, within a budget of memory.
    """

    data: str | os.PathLike = "medfmc"
    cache: Path | None = None
    pictures: pixels.PictureStore = field(default_factory=pixels.PictureStore)
    _splits: dict = field(default_factory=dict)

    def splits(self, name: ConfigName):
        """The `DatasetDict` of a config, loaded once."""
        if name not in self._splits:
            self._splits[name] = loading.load_splits(self.data, name)
        return self._splits[name]


class Stopwatch:
    """Wall seconds by stage of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begin = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begin

    def total(self) -> dict[str, float]:
        return {k: round(v, 3) for k, v in (self.seconds | {"total": time.perf_counter() - self._begin}).items()}


def train(
    config: RunConfig,
    *,
    data: str | os.PathLike = "medfmc",
    out: str | os.PathLike = "runs",
    shared: Shared | None = None,
    accelerator: Accelerator | None = None,
) -> tuple[Path, RunRecord]:
    """Adapt, score and save. A run that is already finished below `out` is returned as it is, not repeated.

    Args:
        config: what to run.
        data: folder that `medfmc build` made, or a dataset repository on the Hub.
        out: folder below which the run's folder is made.
        shared: pass one object to many calls to load data and pictures once.
        accelerator: made from the config if None. With several processes, all of them call this function.

    Returns:
        The run's folder and its record.

    Raises:
        MedfmcError: the data, the backbone or an option is not as it should be.
    """
    watch = Stopwatch()
    shared = shared or Shared(data)
    subset = subset_of(config.subset)
    method = adapt.method_of(config.method)
    if config.loss not in losses.LOSSES:
        raise MedfmcError(f"loss is one of {', '.join(losses.LOSSES)}; got {config.loss!r}.")
    with watch("start"):
        accelerator = accelerator or make_accelerator(config)
        splits = shared.splits(config.dataset_config)
        fingerprints = loading.fingerprint(splits, subset), backbones.backbone_fingerprint(config.model, config.revision)
        run_id = identity(config, *fingerprints)
        folder = run_folder(out, config, run_id)
        if (folder / "run.json").is_file() and RunRecord.load(folder).status == "finished":
            say(f"Already finished: {folder}")
            return folder, RunRecord.load(folder)
        set_seed(config.seed)
        model = backbones.load_backbone(config.model, subset, revision=config.revision, image_size=config.image_size)
        process = processing.processing_of(config.model, revision=config.revision, image_size=config.image_size)
        if method.kind == "gradient":
            model = adapt.adapt(model, config.method, config.method_options)

    scored = scored_splits(config, splits, shared)
    targets = {name: loading.targets_of(rows, subset) for name, rows in {"train": splits["train"], **scored}.items()}
    with watch("data"), accelerator.main_process_first():
        store = {
            name: pixels.evaluation_pixels(rows, process, cache=shared.cache, subset=subset, progress=f"{config.subset} {name} pictures")
            for name, rows in scored.items()
        }
    if method.kind == "gradient":
        views = pixels.TrainingPixels(
            splits["train"], process, augmentation=config.augmentation, store=shared.pictures, device=accelerator.device
        )
        loop = Loop(config, subset, process, accelerator, watch)
        history = loop.fit(model, views, targets["train"], store.get("validation"), targets.get("validation"))
        with watch("test"):
            logits = {name: loop.predict(model, part, f"{name} pictures") for name, part in store.items()}
    else:
        with watch("data"), accelerator.main_process_first():
            support = pixels.evaluation_pixels(splits["train"], process, cache=shared.cache, subset=subset, progress="training pictures")
        history = []
        with watch("test"):
            features = {
                name: frozen_features(model, part, process, accelerator, name) for name, part in {"train": support, **store}.items()
            }
        with watch("train"):
            logits = frozen_logits(config, subset, features, targets["train"])

    predictions = {
        name: Predictions(np.array(rows["image_id"]), np.array(rows["patient_id"]), targets[name], logits[name])
        for name, rows in scored.items()
    }
    record = RunRecord(
        id=run_id,
        status="finished",
        config=config.to_dict(),
        data=provenance.data(config, splits, fingerprints[0]),
        backbone=provenance.backbone(model) | {"fingerprint": fingerprints[1]},
        scores={name: score(p.targets, p.logits, subset) for name, p in predictions.items() if (p.targets >= 0).all()},
        history=history,
        cost=provenance.parameters(model) | provenance.machine(accelerator),
        versions=provenance.versions(),
        finished_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    if accelerator.is_main_process:
        adapter = adapt.save(accelerator.unwrap_model(model), folder / "adapter")
        save_predictions(folder, predictions)
        record.cost |= {"adapter_bytes": sum(path.stat().st_size for path in adapter), "seconds": watch.total()}
        cards.write_card(record, folder / "adapter")
        record.save(folder)
    accelerator.wait_for_everyone()
    return folder, record


@dataclass
class Loop:
    """The Accelerate loop of one run: `fit` trains, `predict` scores."""

    config: RunConfig
    subset: Subset
    process: processing.Processing
    accelerator: Accelerator
    watch: Stopwatch

    def fit(self, model, views, targets, validation=None, validation_targets=None) -> list[dict]:
        """Train `model` in place, and put back its best epoch where the config selects by validation.

        Args:
            model: with `.logits` in its output; only parameters that require a gradient are trained.
            views: `TrainingPixels` of the support set, n pictures.
            targets: integers, (n,) or (n, classes).
            validation: `EvaluationPixels`, or None for fixed epochs.
            validation_targets: their labels.

        Returns:
            One dict per epoch: `epoch`, `loss`, `learning_rate`, and `validation` where it was scored.
        """
        config, accelerator = self.config, self.accelerator
        loss_of = losses.LOSSES[config.loss](self.subset.task, targets)
        labels = torch.as_tensor(targets)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = make_optimizer(config, trained)
        wrapped, optimizer = accelerator.prepare(model, optimizer)
        steps = math.ceil(len(targets) / config.batch_size)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + accelerator.process_index)
        rank, world = accelerator.process_index, accelerator.num_processes
        history, best = [], None

        for epoch in bar(range(config.epochs), desc="training", unit="epoch", hidden=not accelerator.is_main_process):
            wrapped.train()
            order = epoch_order(targets, config.sampling, config.seed, epoch)
            total = torch.zeros((), device=accelerator.device)
            with self.watch("train"):
                for step, rows in enumerate(order.split(config.batch_size)):
                    rate = config.learning_rate * lr_factor(config, epoch * steps + step, steps)
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    mine = rows[rank::world]
                    share = len(mine) * world / len(rows)  # so that the mean over processes is the mean over the batch
                    mine = mine if len(mine) else rows[:1]
                    batch = processing.normalise(views.batch(mine, generator), self.process, device=accelerator.device)
                    with accelerator.autocast():
                        logits = wrapped(pixel_values=batch).logits
                    loss = loss_of(logits.float(), labels[mine].to(accelerator.device)) * share
                    accelerator.backward(loss)
                    if config.gradient_clip:
                        accelerator.clip_grad_norm_(trained, config.gradient_clip)
                    optimizer.step()
                    optimizer.zero_grad()
                    total += loss.detach() * len(rows)
            mean_loss = accelerator.reduce(total, "mean").item() / len(targets)
            if not math.isfinite(mean_loss):
                raise MedfmcError(f"the loss became {mean_loss} in epoch {epoch + 1}; lower the learning rate, {config.learning_rate}.")
            history.append({"epoch": epoch + 1, "loss": mean_loss, "learning_rate": rate})
            if validation is not None:
                with self.watch("validation"):
                    result = score(validation_targets, self.predict(wrapped, validation), self.subset)
                history[-1]["validation"] = {k: result[k] for k in (self.subset.metric, "auc", "score")}
                if best is None or result["score"] > best[0] or math.isnan(best[0]):
                    best = result["score"], [p.detach().clone() for p in trained]
        if best is not None:
            with torch.no_grad():
                for parameter, value in zip(trained, best[1], strict=True):
                    parameter.copy_(value)
        return history

    @torch.no_grad()
    def predict(self, model, pictures, progress: str | None = None) -> np.ndarray:
        """Logits of n stored pictures: float32, (n, classes), the same in every process."""
        accelerator = self.accelerator
        model.eval().to(accelerator.device)
        rank, world = accelerator.process_index, accelerator.num_processes
        n = len(pictures)
        mine = torch.arange(math.ceil(n / world)) * world + rank
        mine = mine.clamp(max=n - 1)  # every process predicts equally many; the repeats are cut off below
        parts = []
        for rows in bar(mine.split(EVALUATION_BATCH), desc=progress, hidden=not (progress and accelerator.is_main_process)):
            batch = processing.normalise(pictures[rows], self.process, device=accelerator.device)
            with accelerator.autocast():
                parts.append(model(pixel_values=batch).logits.float())
        gathered = accelerator.gather(torch.cat(parts)).reshape(world, len(mine), -1)
        return gathered.transpose(0, 1).reshape(world * len(mine), -1)[:n].cpu().numpy()


def lr_factor(config: RunConfig, step: int, steps_per_epoch: int) -> float:
    """Learning rate at an optimiser step, as a fraction of the peak.

    The schedule runs over the whole run and the warm-up ramp multiplies it, as mmcv does; so a warm-up as long as the run, which
    the official Swin recipe has, never reaches the peak.
    """
    done = step / max(config.epochs * steps_per_epoch, 1)
    curve = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[config.schedule]
    if config.schedule != "constant":
        curve = config.final_lr_fraction + (1 - config.final_lr_fraction) * curve
    warmup_steps = config.warmup_epochs * steps_per_epoch
    return curve * (min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0)


def epoch_order(targets: np.ndarray, sampling: str, seed: int, epoch: int) -> torch.Tensor:
    """The rows of one epoch in the order they are seen: int64, (n,). `balanced` draws n rows with replacement."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    if sampling == "balanced":
        return torch.multinomial(torch.as_tensor(losses.balanced_weights(targets)), len(targets), replacement=True, generator=generator)
    return torch.randperm(len(targets), generator=generator)


def make_optimizer(config: RunConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum 0.9."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, momentum=0.9)


def make_accelerator(config: RunConfig) -> Accelerator:
    """An Accelerator of the config's dtype; `auto` takes bfloat16 where a probe finds its matrix product faster than float32's."""
    dtype = config.dtype
    if dtype == "auto":
        dtype = "bfloat16" if bfloat16_is_faster() else "float32"
    return Accelerator(mixed_precision="bf16" if dtype == "bfloat16" else "no")


def bfloat16_is_faster(size: int = 1024, rounds: int = 3) -> bool:
    """Whether a bfloat16 matrix product beats float32 on this device: many processors emulate it and are slower."""
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(size, size, dtype=dtype, device=device)
        times = []
        for _ in range(rounds + 1):  # the first is a warm-up
            begin = time.perf_counter()
            (matrix @ matrix)[0, 0].item()
            times.append(time.perf_counter() - begin)
        return min(times[1:])

    return seconds(torch.bfloat16) < seconds(torch.float32)


def scored_splits(config: RunConfig, splits, shared: Shared) -> dict:
    """The splits a run predicts: test; validation where it selects by it; the challenge's pictures where asked."""
    scored = {"test": splits["test"]}
    if config.select == "best":
        if "validation" not in splits or len(splits["validation"]) == 0:
            raise MedfmcError(f"select: best needs a validation split and {config.dataset_config} has none; use select: last.")
        scored["validation"] = splits["validation"]
    if config.predict_challenge:
        challenge = shared.splits(ConfigName(config.subset, variant="challenge"))
        scored |= {f"challenge-{name}": rows for name, rows in challenge.items()}
    return scored


def frozen_features(model, pictures, process, accelerator: Accelerator, name: str) -> np.ndarray:
    """What the head of a frozen backbone reads of n stored pictures: float32, (n, dim)."""
    model.to(accelerator.device)
    rows = bar(torch.arange(len(pictures)).split(EVALUATION_BATCH), desc=f"{name} features")
    return frozen.features(model, (processing.normalise(pictures[part], process, device=accelerator.device) for part in rows))


def frozen_logits(config: RunConfig, subset: Subset, features: dict[str, np.ndarray], train_targets: np.ndarray) -> dict[str, np.ndarray]:
    """Fit a train-free head on the features of `train` and apply it to those of every other split."""
    names = [name for name in features if name != "train"]
    together = np.concatenate([features[name] for name in names])
    options = adapt.all_options(config.method, config.method_options)
    logits = frozen.HEADS[config.method](features["train"], train_targets, together, subset.task, len(subset.classes), options)
    ends = np.cumsum([len(features[name]) for name in names])[:-1]
    return dict(zip(names, np.split(logits, ends), strict=True))


def score(targets: np.ndarray, logits: np.ndarray, subset: Subset) -> dict:
    """`medfm_score` of one split's probabilities, as the record keeps it."""
    return scoring.score(targets, probabilities_of(logits, multilabel=subset.multilabel), task=subset.task, classes=subset.classes)
