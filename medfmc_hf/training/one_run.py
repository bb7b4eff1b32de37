"""Adapts one backbone to one dataset config: the whole path of a run, from its config to its folder of files.

`train` is the path; the loop is in `loop.py`. What several runs can share is in `shared.py`, `cached_features.py` and `frozen_blocks.py`.
"""

from .. import libraries  # noqa: F401 - first, for it knows how to import them fast

# isort: split

import os
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from .. import model_card
from ..adaptation import adapt, train_free
from ..data import loading
from ..errors import MedfmcError
from ..evaluation.experiments import adaptation_of
from ..images import pixels
from ..models.image_processor import save_processor
from ..progress import notify
from ..runs import MethodOptions, Predictions, RunConfig, RunRecord, hashes_of, provenance, save_predictions
from ..runs.folders import is_finished, new_run, run_folder
from ..runs.launcher import check_launcher
from ..subsets import ConfigName, subset_of
from . import compiling, frozen_blocks
from .cached_features import CachedRows
from .loop import Loop, Stopwatch, make_accelerator, score, steps_per_epoch
from .shared import AcquiredBackbone, Shared

Split = tuple[ConfigName, str]  # a config and one of its splits


@dataclass(frozen=True)
class RunResult:
    """What a run's training and testing gave.

    Attributes:
        logits: of every scored split.
        history: of `Loop.fit`; empty where nothing was trained by gradient.
        compiled: whether the blocks ran through torch.compile.
    """

    logits: dict[str, np.ndarray]
    history: list[dict] = field(default_factory=list)
    compiled: bool = False


@dataclass
class Trained:
    """A run that was trained elsewhere.

    Attributes:
        values: the trained values by parameter name.
        history: as `Loop.fit` returns it.
        seconds: what its training took; of runs that were trained together, its share.
        cost: what else to say of the cost.
    """

    values: dict[str, torch.Tensor]
    history: list[dict]
    seconds: float
    cost: dict


def train(
    config: RunConfig,
    *,
    data: str | os.PathLike = "medfmc",
    out: str | os.PathLike = "runs",
    shared: Shared | None = None,
    accelerator: Accelerator | None = None,
    trained: Trained | None = None,
) -> tuple[Path, RunRecord]:
    """Adapt, score and save. A run that is already finished below `out` is returned as it is, not repeated.

    Args:
        config: what to run.
        data: folder that `medfmc build` made, or a dataset repository on the Hub.
        out: folder below which the run's folder is made.
        shared: pass one object to many calls to load data, images and the backbone once. It does not change a result.
        accelerator: made if None. With several processes, all of them call this function.
        trained: what `medfmc_hf.benchmark.grouped` made of this run beside others; it is tested and saved here.

    Returns:
        The run's folder and its record.

    Raises:
        MedfmcError: the data, the backbone or an option is not as it should be.
    """
    watch = Stopwatch()
    shared = shared or Shared(data)
    subset = subset_of(config.subset)
    check_launcher(config)
    config = replace(config, method_options=MethodOptions(adapt.resolve(config.method, config.method_options)))
    with watch("start"):
        accelerator = accelerator or make_accelerator(config)
        run_id = shared.identity(config)
        folder = run_folder(out, config, run_id)
        if is_finished(folder):
            notify(f"Already finished: {folder}")
            return folder, RunRecord.load(folder)
        splits = shared.splits(config.dataset_config)
        scored = scored_splits(config, shared)
        rows = {name: shared.splits(where)[split] for name, (where, split) in scored.items()}
        targets = {name: loading.targets_of(part, subset) for name, part in {"train": splits["train"], **rows}.items()}
        loop = Loop(config, subset, shared.processing(config), accelerator, watch)
        # What may fail is asked before the training, so that nothing after it can lose it.
        facts, checkpoint = loading.build_facts(shared.data, subset), shared.checkpoint(config)
        test_sha256 = loading.split_digest(splits["test"], subset)
        data = provenance.data(config, splits, shared.data_fingerprint(config.dataset_config), test_sha256, facts)
        changed, _ = config.changes(), checkpoint.content

    with shared.acquire(config) as acquired:
        work = by_gradient if adapt.method_of(config.method).kind == "gradient" else by_features
        outcome = work(loop, acquired, shared, scored, targets, trained)
        predictions = {
            name: Predictions(np.array(part["image_id"]), np.array(part["patient_id"]), targets[name], outcome.logits[name])
            for name, part in rows.items()
        }
        model = acquired.adapted or acquired.backbone
        record = RunRecord(
            id=run_id,
            status="finished",
            config=config.to_dict(),
            data=data,
            backbone=provenance.backbone(model, checkpoint),
            changed=changed,
            scores={name: score(p.targets, p.logits, subset) for name, p in predictions.items() if (p.targets >= 0).all()},
            history=outcome.history,
            cost=provenance.parameters(model)
            | provenance.machine(accelerator)
            | {"precision": config.dtype, "compiled": outcome.compiled}
            | (trained.cost if trained else {}),
            versions=provenance.versions(),
            finished_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        record.adaptation = adaptation_of(record)
        if accelerator.is_main_process:
            with new_run(folder) as part:
                adapter = adapt.save(model, part / "adapter")
                save_predictions(part, predictions)
                save_processor(loop.process, part / "adapter")
                record.files = hashes_of(part)
                record.cost |= {"adapter_bytes": sum(path.stat().st_size for path in adapter), "seconds": watch.total()}
                record.save(part)
            _describe(record, folder, predictions["test"])
    accelerator.wait_for_everyone()
    return folder, RunRecord.load(folder) if accelerator.is_main_process else record


def _describe(record: RunRecord, folder: Path, test: Predictions) -> None:
    """Write the model card of a run that is finished and on disk: what goes wrong here costs the card, not the run."""
    try:
        model_card.write_card(record, folder / "adapter", test)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        notify(f"the run is finished, but its model card could not be written ({type(error).__name__}: {reason}); please report this.")


def by_gradient(
    loop: Loop,
    acquired: AcquiredBackbone,
    shared: Shared,
    scored: dict[str, Split],
    targets: dict[str, np.ndarray],
    trained: Trained | None,
) -> RunResult:
    """Train the backbone of the run, and predict every scored split."""
    config, watch, train_split = loop.config, loop.watch, (loop.config.dataset_config, "train")
    with watch("start"):
        model = adapted(acquired, config, len(targets["train"])).to(loop.accelerator.device)
    with watch("data"):
        store = {name: shared.evaluation_pixels(*split, config) for name, split in scored.items()}
        views = pixels.TrainingPixels(
            shared.splits(train_split[0])["train"],
            loop.process,
            augmentation=config.augmentation,
            store=shared.images,
            device=loop.accelerator.device,
        )
    if trained is not None:
        watch.add("train", trained.seconds)
        with torch.no_grad():
            for name, value in trained.values.items():
                model.get_parameter(name).copy_(value)
        with watch("test"):
            logits = {name: loop.predict(model, part, f"{name} images") for name, part in store.items()}
        return RunResult(logits, trained.history)
    network = frozen_blocks.split(model, loop.process)
    if network is not model:
        support = shared.evaluation_pixels(*train_split, config) if config.augmentation == "none" else None
        with watch("frozen blocks"), loop.autocast():
            store, views = frozen_blocks.cache_outputs(network, shared, config, loop.accelerator.device, store, views, support)
    if isinstance(views, pixels.TrainingPixels):
        with watch("data"):
            views.precompute()
    blocks = adapt.blocks_of(model)[getattr(network, "length", 0) :]
    with watch("start"):
        is_compiled = compile_pays(loop, network, blocks, views, len(targets["train"]), shared)
    with compiling.compiled(blocks) if is_compiled else nullcontext():
        fitted = loop.fit(network, views, targets["train"], store.get("validation"), targets.get("validation"))
        logits = {} if fitted.validation_logits is None else {"validation": fitted.validation_logits}
        with watch("test"):
            logits |= {name: loop.predict(network, part, f"{name} images") for name, part in store.items() if name not in logits}
    return RunResult(logits, fitted.history, is_compiled)


def compile_pays(loop: Loop, network: torch.nn.Module, blocks: list, views, rows: int, shared: Shared) -> bool:
    """Whether the blocks are to be compiled: as the config says, or by a probe with a step of training that changes nothing."""
    config, device = loop.config, loop.accelerator.device
    if config.compile != "auto":
        return config.compile == "on"
    if device.type == "cpu" or loop.accelerator.num_processes > 1 or not blocks:
        return False
    batch = loop.ready(views.batch(range(min(rows, config.batch_size)), range(min(rows, config.batch_size))))
    trained = [p for p in network.parameters() if p.requires_grad]

    def step() -> None:
        with loop.autocast():
            logits = network.eval()(pixel_values=batch).logits
        gradients = torch.autograd.grad(logits.float().sum(), trained, allow_unused=True)
        next(g for g in gradients if g is not None).sum().item()  # waits for a GPU

    key = (
        "compile",
        config.model,
        config.revision,
        config.image_size,
        config.method,
        repr(config.method_options),
        config.dtype,
        len(batch),
    )
    steps = steps_per_epoch(config, rows) * config.epochs
    return compiling.pays(blocks, step, steps, lambda probe: shared.cached(key, probe))


def adapted(acquired: AcquiredBackbone, config: RunConfig, rows: int) -> torch.nn.Module:
    """Adapt the backbone of the run, with new weights that the run's seed alone decides."""
    set_seed(config.seed_of_training)
    steps = steps_per_epoch(config, rows) * config.epochs
    acquired.adapted = adapt.adapt(acquired.backbone, config.method, config.method_options, total_steps=steps)
    return acquired.adapted


def by_features(
    loop: Loop,
    acquired: AcquiredBackbone,
    shared: Shared,
    scored: dict[str, Split],
    targets: dict[str, np.ndarray],
    trained: Trained | None,
) -> RunResult:
    """Fit a head on features of the backbone as it is, and predict every scored split by it."""
    config, subset = loop.config, loop.subset
    splits = {"train": (config.dataset_config, "train"), **scored}
    with loop.watch("data"):
        store = {name: shared.evaluation_pixels(*split, config) for name, split in splits.items()}
    with loop.watch("features"):
        cached = frozen_features(loop, acquired.backbone, shared, list(store.values()))
        features = {name: part[:].numpy() for name, part in zip(store, cached)}
    with loop.watch("train"):
        together = np.concatenate([features[name] for name in scored])
        options = adapt.all_options(config.method, config.method_options)
        logits = train_free.HEADS[config.method](features["train"], targets["train"], together, subset.task, len(subset.classes), options)
    ends = np.cumsum([len(features[name]) for name in scored])[:-1]
    return RunResult(dict(zip(scored, np.split(logits, ends), strict=True)))


def frozen_features(loop: Loop, backbone: torch.nn.Module, shared: Shared, parts: list[pixels.EvaluationPixels]) -> list[CachedRows]:
    """What the head reads of every image of every part, computed now where it is not on disk."""
    device = loop.accelerator.device
    backbone.to(device)

    def network(batch: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(train_free.features(backbone, [batch]))

    with loop.autocast():
        return shared.cache_rows("features", network, parts, loop.config, device)


def scored_splits(config: RunConfig, shared: Shared) -> dict[str, Split]:
    """The splits a run predicts: test; validation where it selects by it; the challenge's images where asked."""
    name = config.dataset_config
    scored = {"test": (name, "test")}
    if config.select == "best":
        splits = shared.splits(name)
        if "validation" not in splits or len(splits["validation"]) == 0:
            raise MedfmcError(f"select: best needs a validation split and {name} has none; use select: last.")
        scored["validation"] = name, "validation"
    if config.predict_challenge:
        challenge = ConfigName(config.subset, variant="challenge")
        scored |= {f"challenge-{split}": (challenge, split) for split in shared.splits(challenge)}
    return scored
