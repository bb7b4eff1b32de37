"""The plan of a grid: its jobs, their cost, which of them share work, and a forecast of time and disk space."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..adaptation import adapt, train_free
from ..errors import MedfmcError
from ..images.rows import ImageRows
from ..images.store import PixelStore
from ..images.views import VIEWS
from ..progress import bar, notify
from ..runs import RunConfig, RunRecord, identity
from ..runs.folders import record_in, run_folder
from ..runs.launcher import check_launcher
from ..training import frozen_blocks, one_run
from ..training.resolved import ResolvedRun
from ..training.shared import Shared
from . import grouped

STEP = {"full": 3.0, "linear-sgd": 1.0, "partial": 1.4}  # cost of a training step in forward passes, measured by benchmarks/
_OTHER_STEP = 2.2  # methods that train few parameters and backpropagate to the first block


@dataclass(frozen=True)
class Job:
    """One run of a grid.

    Attributes:
        config: config of the run.
        id: id of the run.
        folder: folder of the run.
        batch: name of its batch; jobs of one batch share most of their work and go to the same process.
        work: cost in forward passes of one image; work shared by a batch is counted in its first job.
        run: resolved config; None if resolving failed.
        problem: why it cannot start, or None.
    """

    config: RunConfig
    id: str
    folder: Path
    batch: str
    work: float = 0.0
    run: ResolvedRun | None = None
    problem: str | None = None

    @property
    def record(self) -> RunRecord | None:
        """The record of the run; None if there is none that can be read."""
        return None if self.written is None else record_in(self.folder)

    @property
    def written(self) -> int | None:
        """Modification time of its record (ns), or None if it has none."""
        path = self.folder / "run.json"
        return path.stat().st_mtime_ns if path.is_file() else None


def plan(configs: Sequence[RunConfig], shared: Shared, out: str | Path, *, group: int = 1) -> list[Job]:
    """Plan the jobs of a grid: jobs that share work are adjacent, and the costliest batch comes first.

    Args:
        configs: configs of all runs.
        shared: data and fingerprints. If a config's data or backbone is not available, its job has a problem.
        out: folder of the runs.
        group: maximum number of similar runs trained in one pass, which makes them one batch.

    Raises:
        MedfmcError: a method or one of its options is unknown, a file that it names does not exist, or the settings of `accelerate launch`
            contradict a config.
    """
    for config in configs:  # such a mistake stops the grid instead of being recorded as a failed run
        check_launcher(config)
        adapt.resolve(config.method, config.method_options)
    seen: dict[str, set] = defaultdict(set)
    jobs = [_job(config, shared, Path(out), seen) for config in bar(configs, desc="planning", unit="run")]
    batches: dict[str, list[Job]] = defaultdict(list)
    alike: dict[tuple, list[Job]] = defaultdict(list)
    distinct = {job.id: job for job in jobs}
    if len(distinct) < len(jobs):
        notify(f"{len(jobs) - len(distinct)} of {len(jobs)} runs are duplicates and are skipped.")
    for job in distinct.values():
        if group > 1 and not job.problem and grouped.can_group(job.config):
            alike[grouped.group_key(job.config)].append(job)
        else:
            batches[job.batch].append(job)
    for members in alike.values():
        members.sort(key=lambda job: -job.work)  # runs of similar length together
        for start in range(0, len(members), group):
            batch = "group " + members[start].id
            batches[batch] = [replace(job, batch=batch) for job in members[start : start + group]]
    ordered = sorted(batches.values(), key=lambda batch: (batch[0].config.model, -sum(job.work for job in batch)))
    return [job for batch in ordered for job in batch]


def _job(config: RunConfig, shared: Shared, out: Path, seen: dict[str, set[bytes]]) -> Job:
    try:
        run = shared.resolve(config)
    except MedfmcError as error:
        run_id = identity(config, "unknown", config.model)
        return Job(config, run_id, run_folder(out, config, run_id), run_id, problem=str(error))
    config, folder = run.config, run_folder(out, run.config, run.id)
    sharers = f"{run.fingerprint} {config.image_size} {config.dtype} {config.subset}"
    test = sum(map(len, run.scored.values()))
    if not run.by_gradient:
        batch = f"features {sharers}"
        images = {image for split in run.splits for image in split.rows["image_id"]}
        new = images - seen[batch]
        seen[batch] |= new
        return Job(config, run.id, folder, batch, float(len(new)), run)
    validation = len(run.scored["validation"]) if "validation" in run.scored else 0
    has_frozen_blocks = grouped.has_frozen_blocks(config)
    step = STEP.get(config.method, STEP["partial"] if has_frozen_blocks else _OTHER_STEP)
    batch = run.id
    if has_frozen_blocks:
        options = sorted(adapt.all_options(config.method, config.method_options).items())
        batch = f"frozen {sharers} {config.method} {options}"
    return Job(config, run.id, folder, batch, config.epochs * (len(run.train) * step + validation) + test, run)


@dataclass(frozen=True)
class Forecast:
    """The remaining cost of a grid: seconds of decoding and of computing on this machine, and bytes on disk."""

    decode_seconds: float
    compute_seconds: float
    disk_bytes: int


def forecast(jobs: Sequence[Job], shared: Shared) -> Forecast:
    """Time a forward pass of each backbone and a decode of each subset, and extrapolate.

    Args:
        jobs: jobs to run.
        shared: data and caches.
    """
    compute, disk = 0.0, 0
    forward: dict[tuple, float] = {}
    sizes: dict[tuple, tuple[int, str, int]] = {}
    cached: dict[tuple, set] = defaultdict(set)  # rows that each cache of features or outputs of frozen blocks will hold
    for job in jobs:
        if (run := job.run) is None:
            continue
        config = run.config
        backbone = config.model, config.revision, config.image_size, config.dtype
        adapter = *backbone, config.subset, config.method, repr(config.method_options)
        if adapter not in sizes:
            with shared.acquire(run) as model:
                if backbone not in forward:
                    forward[backbone] = _forward_seconds(model, run)
                sizes[adapter] = _sizes(model, run)
        adapter_bytes, what, row_bytes = sizes[adapter]
        disk += adapter_bytes
        compute += job.work * forward[backbone]
        if row_bytes:
            store = (*backbone, config.subset, what, row_bytes)
            cached[store] |= _cached_rows(run)
    decode_seconds, pixel_bytes = _images([job.run for job in jobs if job.run is not None], shared)
    cached_bytes = sum(row_bytes * len(rows) for (*_, row_bytes), rows in cached.items())
    return Forecast(decode_seconds, compute, disk + pixel_bytes + cached_bytes)


def _sizes(backbone: nn.Module, run: ResolvedRun) -> tuple[int, str, int]:
    """Bytes of a run's weights; what is cached on disk per image (features, or outputs of so many frozen blocks); and its bytes."""
    blank = torch.zeros(1, 3, run.processing.height, run.processing.width, device=run.device)
    if not run.by_gradient:
        return 0, "features", train_free.features(backbone, [blank]).nbytes
    with one_run.adapted(backbone, run) as model:
        weights = sum(4 * p.numel() for p in model.parameters() if p.requires_grad)
        network = frozen_blocks.split(model, run.processing)
        if not isinstance(network, frozen_blocks.SplitNetwork):
            return weights, "", 0
        return weights, f"frozen{network.length}", 4 * network.frozen(blank).numel()


def _cached_rows(run: ResolvedRun) -> set[tuple[str, int | str]]:
    """The images, whole or as fixed views, for which outputs of the frozen part of the backbone are cached."""
    rows: set[tuple[str, int | str]] = {(image, "whole") for split in run.scored.values() for image in split.rows["image_id"]}
    support = run.train.rows["image_id"]
    if run.by_gradient and run.config.augmentation == "fixed-views":
        rows |= {(image, view) for image in support for view in range(VIEWS)}
    elif run.config.augmentation == "none" or not run.by_gradient:
        rows |= {(image, "whole") for image in support}
    return rows


def _forward_seconds(backbone: nn.Module, run: ResolvedRun) -> float:
    """Seconds per image in a batch of four, the better of two."""
    size, times = 4, []
    batch = torch.rand(size, 3, run.processing.height, run.processing.width, device=run.device)
    with torch.inference_mode():
        for _ in range(3):
            begin = time.perf_counter()
            backbone(pixel_values=batch).logits.sum().item()
            times.append(time.perf_counter() - begin)
    return min(times[1:]) / size


def _images(runs: Sequence[ResolvedRun], shared: Shared) -> tuple[float, int]:
    """Seconds and bytes for the images that no store holds yet."""
    wanted: dict[tuple, dict] = defaultdict(dict)
    for run in runs:
        for split in run.splits:
            rows = shared.cached(("rows", split), partial(ImageRows, split.rows, run.processing.grey))
            for row, image in enumerate(rows.identities):
                wanted[run.subset.key, run.processing][image] = rows, row
    seconds, size = 0.0, 0
    for (subset, process), images in wanted.items():
        store = PixelStore(shared.root, subset, process.geometry, process.height, process.width)
        new = [place for image, place in images.items() if image not in store.where]
        if new:
            begin, few = time.perf_counter(), new[:: max(1, len(new) // 4)][:4]
            depth = max(rows.decode(row).ndim for rows, row in few)
            seconds += (time.perf_counter() - begin) / len(few) * len(new)
            size += len(new) * process.height * process.width * (3 if depth == 3 else 1)
    return seconds, size
