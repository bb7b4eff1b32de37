"""Adapts one backbone to one dataset config: the whole path of a run, from its config to its folder of files.

`train` is the path: it resolves the config to a `ResolvedRun` (`resolved.py`), which `carry_out` trains and tests by the loop in `loop.py`.
What several runs can share is in `shared.py`, `cached_features.py` and `frozen_blocks.py`.
"""

from .. import libraries  # noqa: F401 - first: it imports them the fast way

# isort: split

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from transformers import PreTrainedModel

from .. import model_card
from ..adaptation import adapt, train_free
from ..adaptation.heads import FrozenBackboneForImageClassification, Head
from ..evaluation.experiments import adaptation_of
from ..images import pixels
from ..models.backbones import origin
from ..models.image_processor import save_processor
from ..progress import notify
from ..runs import Predictions, RunConfig, RunRecord, hashes_of, provenance, save_predictions
from ..runs.folders import is_finished, new_run, run_folder
from . import compiling, frozen_blocks
from .cached_features import CachedRows
from .loop import Loop, Stopwatch, Views, make_accelerator, score
from .resolved import ResolvedRun
from .shared import Shared


@dataclass(frozen=True)
class RunResult:
    """What a run's training and testing gave.

    Attributes:
        logits: of every scored split.
        history: of `Loop.fit`; empty where nothing was trained by gradient.
        compiled: whether the blocks ran through torch.compile.
        head: that was fitted to features; None where the model was trained by gradient.
    """

    logits: dict[str, np.ndarray]
    history: list[dict[str, Any]] = field(default_factory=list)
    compiled: bool = False
    head: Head | None = None


@dataclass(frozen=True)
class Trained:
    """A run that was trained elsewhere.

    Attributes:
        values: the trained values by parameter name.
        history: as `Loop.fit` returns it.
        seconds: what it took so far, by stage; of runs that were trained together, its share.
        cost: what else to say of the cost.
    """

    values: dict[str, torch.Tensor]
    history: list[dict[str, Any]]
    seconds: dict[str, float]
    cost: dict[str, Any]


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
        shared: pass one object to many calls to load data, images and the backbone once. It does not change a result.
        accelerator: made if None. With several processes, all of them call this function.

    Returns:
        The run's folder and its record.

    Raises:
        MedfmcError: the data, the backbone or an option is not as it should be.
    """
    watch, shared = Stopwatch(), shared or Shared(data)
    with watch("start"):
        accelerator = accelerator or make_accelerator()
        run = shared.resolve(config)
    return carry_out(run, shared, accelerator, out, watch=watch)


def carry_out(
    run: ResolvedRun,
    shared: Shared,
    accelerator: Accelerator,
    out: str | os.PathLike,
    *,
    trained: Trained | None = None,
    watch: Stopwatch | None = None,
) -> tuple[Path, RunRecord]:
    """`train` for a run that is resolved.

    Args:
        run: the run.
        shared: what it was resolved with.
        accelerator: of this process.
        out: folder below which the run's folder is made.
        trained: what `medfmc_hf.benchmark.grouped` made of this run beside others; it is tested and saved here.
        watch: counts the seconds so far.
    """
    watch, folder = watch or Stopwatch(), run_folder(out, run.config, run.id)
    if is_finished(folder):
        notify(f"Already finished: {folder}")
        return folder, RunRecord.load(folder)
    with watch("start"):  # what may fail is asked before the training, so that nothing after it can lose it
        _ = run.checkpoint.content
    with shared.acquire(run) as backbone, adapted(backbone, run) as model:
        loop = Loop(run, accelerator, watch)
        if not run.by_gradient:
            result = by_features(loop, model, shared)
        elif trained is None:
            result = by_gradient(loop, model, shared)
        else:
            result = _of_group(loop, model, shared, trained)
        if result.head is not None:
            model = FrozenBackboneForImageClassification(cast(PreTrainedModel, model), result.head)
        predictions = {
            name: Predictions(np.array(part.rows["image_id"]), np.array(part.rows["patient_id"]), part.targets, result.logits[name])
            for name, part in run.scored.items()
        }
        record = RunRecord(
            id=run.id,
            status="finished",
            config=run.config.to_dict(),
            data=dict(run.data),
            backbone=provenance.backbone(model, run.checkpoint, run.fingerprint),
            changed=run.changed,
            scores={name: score(part.targets, result.logits[name], run.subset) for name, part in run.scored.items() if part.is_labelled},
            history=result.history,
            cost=provenance.parameters(model)
            | provenance.machine(accelerator)
            | {"precision": run.config.dtype, "compiled": result.compiled}
            | (trained.cost if trained else {}),
            versions=provenance.versions(),
            finished_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        record.adaptation = adaptation_of(record)
        if accelerator.is_main_process:
            with new_run(folder) as part:
                adapter = adapt.save(model, part / "adapter")
                save_predictions(part, predictions)
                save_processor(run.processing, part / "adapter")
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


@contextmanager
def adapted(backbone: nn.Module, run: ResolvedRun) -> Iterator[nn.Module]:
    """The backbone adapted by the run's method, with new weights that its training seed alone decides; as it is for a train-free method."""
    if not run.by_gradient:
        yield backbone
        return
    set_seed(run.config.seed_of_training)
    steps = run.steps_per_epoch * run.config.epochs
    with adapt.adapted(backbone, run.config.method, run.config.method_options, total_steps=steps) as model:
        yield model.to(run.device)


def by_gradient(loop: Loop, model: nn.Module, shared: Shared) -> RunResult:
    """Train an adapted model, and predict every scored split."""
    run, watch = loop.run, loop.watch
    with watch("data"):
        pixels_of, whole_views = evaluation_pixels(run, shared), shared.training_pixels(run)
    with watch("frozen blocks"), run.autocast():
        network, images, views = frozen_blocks.cache_outputs(model, run, shared, pixels_of, whole_views)
    with watch("data"):
        views.precompute()
    blocks = adapt.blocks_of(model)[getattr(network, "length", 0) :]
    with compiling.compiled_where_it_pays(blocks, lambda: _idle_step(loop, network, views), run, shared) as is_compiled:
        fitted = loop.fit(network, views, images.get("validation"))
        logits = {} if fitted.validation_logits is None else {"validation": fitted.validation_logits}
        with watch("test"):
            logits |= {name: loop.predict(network, part, f"{name} images") for name, part in images.items() if name not in logits}
    return RunResult(logits, fitted.history, is_compiled)


def _idle_step(loop: Loop, network: nn.Module, views: Views) -> None:
    """A step of training that changes nothing."""
    rows = range(min(len(loop.run.train), loop.run.config.batch_size))
    batch = loop.ready(views.batch(rows, rows))
    trained = [p for p in network.parameters() if p.requires_grad]
    with loop.run.autocast():
        logits = network.eval()(pixel_values=batch).logits
    gradients = torch.autograd.grad(logits.float().sum(), trained, allow_unused=True)
    next(g for g in gradients if g is not None).sum().item()  # waits for a GPU


def _of_group(loop: Loop, model: nn.Module, shared: Shared, trained: Trained) -> RunResult:
    """Put the values of a run that was trained elsewhere into its model, and predict every scored split."""
    for stage, seconds in trained.seconds.items():
        loop.watch.add(stage, seconds)
    with loop.watch("data"):
        images = evaluation_pixels(loop.run, shared)
    with torch.no_grad():
        for name, value in trained.values.items():
            model.get_parameter(name).copy_(value)
    with loop.watch("test"):
        return RunResult({name: loop.predict(model, part, f"{name} images") for name, part in images.items()}, trained.history)


def by_features(loop: Loop, backbone: nn.Module, shared: Shared) -> RunResult:
    """Fit a head on features of the backbone as it is, and predict every scored split by it."""
    run, config = loop.run, loop.run.config
    with loop.watch("data"):
        images = [shared.evaluation_pixels(split, run.processing) for split in run.splits]
    with loop.watch("features"):
        support, *scored = (part[:].numpy() for part in frozen_features(run, backbone, shared, images))
    with loop.watch("train"):
        together = np.concatenate(scored)
        options = adapt.all_options(config.method, config.method_options)
        head = train_free.HEADS[config.method](support, run.train.targets, run.subset.task, len(run.subset.classes), options)
    with loop.watch("test"), torch.no_grad():
        logits = head(torch.from_numpy(together)).numpy()
    ends = np.cumsum([len(split) for split in run.scored.values()])[:-1]
    return RunResult(dict(zip(run.scored, np.split(logits, ends), strict=True)), head=head)


def frozen_features(run: ResolvedRun, backbone: nn.Module, shared: Shared, parts: Sequence[pixels.EvaluationPixels]) -> list[CachedRows]:
    """What the head reads of every image of every part, computed now where it is not on disk."""

    def network(batch: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(train_free.features(backbone, [batch]))

    with run.autocast():
        return shared.cache_rows("features", network, parts, run, origin(backbone).pool)


def evaluation_pixels(run: ResolvedRun, shared: Shared) -> dict[str, pixels.EvaluationPixels]:
    """The images of every scored split."""
    return {name: shared.evaluation_pixels(split, run.processing) for name, split in run.scored.items()}
