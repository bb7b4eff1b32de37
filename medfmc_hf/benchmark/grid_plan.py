"""What a grid amounts to: its jobs, what each costs, which of them share work, and how long and how large it all will be."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..adaptation import adapt, train_free
from ..errors import MedfmcError
from ..images.pixels import decode
from ..images.rows import ImageRows
from ..images.store import PixelStore
from ..images.views import VIEWS
from ..progress import bar
from ..runs import MethodOptions, RunConfig, RunRecord, identity
from ..runs.folders import record_in, run_folder
from ..subsets import subset_of
from ..training import frozen_blocks, one_run
from ..training.loop import make_accelerator
from ..training.shared import AcquiredBackbone, Shared
from . import grouped

STEP = {"full": 3.0, "linear-sgd": 1.0, "partial": 1.4}  # a training step in forward passes, as benchmarks/ measures them
_OTHER_STEP = 2.2  # every method that reaches back to the first block with few parameters


@dataclass(frozen=True)
class Job:
    """One run of a grid.

    Attributes:
        config: what it runs.
        id: its identity.
        folder: where its files go.
        batch: jobs of one batch share most of their work and go to the same process.
        work: what it costs, in forward passes of one image; jobs of a batch count what they share once, in the first of them.
        problem: why it cannot start, or None.
    """

    config: RunConfig
    id: str
    folder: Path
    batch: str
    work: float = 0.0
    problem: str | None = None

    @property
    def record(self) -> RunRecord | None:
        """The record it has left so far; None where there is none that can be read."""
        return None if self.written is None else record_in(self.folder)

    @property
    def written(self) -> int | None:
        """When its record was written (ns), or None if it has none."""
        path = self.folder / "run.json"
        return path.stat().st_mtime_ns if path.is_file() else None


def plan(configs: Sequence[RunConfig], shared: Shared, out: str | Path, *, group: int = 1) -> list[Job]:
    """The jobs of a grid, those that share work next to each other, the costliest batch first.

    Args:
        configs: of all runs.
        shared: data and fingerprints. A config, or a backbone, that cannot be had makes a job with a problem.
        out: folder of the runs.
        group: how many alike runs are trained in one pass, which makes them one batch.

    Raises:
        MedfmcError: a method, or an option of it, is unknown.
    """
    for config in configs:
        adapt.all_options(config.method, config.method_options)
    seen: dict[str, set] = defaultdict(set)
    jobs = [_job(config, shared, Path(out), seen) for config in bar(configs, desc="planning", unit="run")]
    batches: dict[str, list[Job]] = defaultdict(list)
    alike: dict[tuple, list[Job]] = defaultdict(list)
    for job in {job.id: job for job in jobs}.values():
        if group > 1 and not job.problem and grouped.can_group(job.config):
            alike[grouped.group_key(job.config)].append(job)
        else:
            batches[job.batch].append(job)
    for members in alike.values():
        members.sort(key=lambda job: -job.work)  # runs of one length together
        for start in range(0, len(members), group):
            batch = "group " + members[start].id
            batches[batch] = [replace(job, batch=batch) for job in members[start : start + group]]
    ordered = sorted(batches.values(), key=lambda batch: (batch[0].config.model, -sum(job.work for job in batch)))
    return [job for batch in ordered for job in batch]


def _job(config: RunConfig, shared: Shared, out: Path, seen: dict[str, set]) -> Job:
    config = replace(config, method_options=MethodOptions(adapt.resolve(config.method, config.method_options)))
    try:
        run_id = shared.identity(config)
        scored = one_run.scored_splits(config, shared)
    except MedfmcError as error:
        run_id = identity(config, "unknown", config.model)
        return Job(config, run_id, run_folder(out, config, run_id), run_id, problem=str(error))
    folder = run_folder(out, config, run_id)
    setting = f"{shared.backbone_fingerprint(config)} {config.image_size} {config.dtype} {config.subset}"
    test = sum(len(shared.splits(name)[split]) for name, split in scored.values())
    train = len(shared.splits(config.dataset_config)["train"])
    if adapt.method_of(config.method).kind == "frozen":
        batch = f"features {setting}"
        splits = {(config.dataset_config, "train"), *scored.values()}
        images = {image for name, split in splits for image in shared.splits(name)[split]["image_id"]}
        new = images - seen[batch]
        seen[batch] |= new
        return Job(config, run_id, folder, batch, float(len(new)))
    validation = len(shared.splits(config.dataset_config)["validation"]) if config.select == "best" else 0
    has_frozen_blocks = grouped.has_frozen_blocks(config)
    step = STEP.get(config.method, STEP["partial"] if has_frozen_blocks else _OTHER_STEP)
    batch = run_id
    if has_frozen_blocks:
        options = sorted(adapt.all_options(config.method, config.method_options).items())
        batch = (
            f"frozen-{shared.backbone_fingerprint(config)[:16]}-{config.image_size}-{config.dtype}-{config.subset}-{config.method}{options}"
        )
    return Job(config, run_id, folder, batch, config.epochs * (train * step + validation) + test)


@dataclass(frozen=True)
class Forecast:
    """What is left of a grid: seconds of decoding and of computing on this machine, and bytes on disk."""

    decode_seconds: float
    compute_seconds: float
    disk_bytes: int


def forecast(jobs: Sequence[Job], shared: Shared) -> Forecast:
    """Time a forward pass of each backbone and a decode of each subset, and multiply.

    Args:
        jobs: that are to run.
        shared: the data and the caches.
    """
    compute, disk, forward = 0.0, 0, {}
    sizes: dict[tuple, tuple[int, str, int]] = {}
    cached: dict[tuple, set] = defaultdict(set)  # which rows a store of features or outputs of frozen blocks will hold
    for job in jobs:
        config = job.config
        backbone = config.model, config.revision, config.image_size, config.dtype
        setting = *backbone, config.subset, config.method, repr(config.method_options)
        if setting not in sizes:
            with shared.acquire(config) as acquired:
                if backbone not in forward:
                    forward[backbone] = _forward_seconds(acquired.backbone, shared, config)
                sizes[setting] = _sizes(acquired, shared, config)
        adapter_bytes, what, row_bytes = sizes[setting]
        disk += adapter_bytes
        compute += job.work * forward[backbone]
        if row_bytes:
            cached[(*backbone, config.subset, what, row_bytes)] |= _cached_rows(config, shared)
    decode_seconds, pixel_bytes = _images(jobs, shared)
    kept_bytes = sum(row_bytes * len(rows) for (*_, row_bytes), rows in cached.items())
    return Forecast(decode_seconds, compute, disk + pixel_bytes + kept_bytes)


def _sizes(acquired: AcquiredBackbone, shared: Shared, config: RunConfig) -> tuple[int, str, int]:
    """Bytes of a run's weights; what is cached on disk of each image, `features` or outputs of so many frozen blocks; and bytes of that."""
    process = shared.processing(config)
    blank = torch.zeros(1, 3, process.height, process.width, device=next(acquired.backbone.parameters()).device)
    if adapt.method_of(config.method).kind == "frozen":
        return 0, "features", train_free.features(acquired.backbone, [blank]).nbytes
    model = one_run.adapted(acquired, config, len(shared.splits(config.dataset_config)["train"]))
    weights = sum(4 * p.numel() for p in model.parameters() if p.requires_grad)
    network = frozen_blocks.split(model, process)
    if network is model:
        return weights, "", 0
    return weights, f"frozen{network.length}", 4 * network.frozen(blank).numel()


def _cached_rows(config: RunConfig, shared: Shared) -> set[tuple]:
    """Which images, and which of their fixed views, go through a frozen part of the backbone once."""
    rows = set()
    for name, split in one_run.scored_splits(config, shared).values():
        rows |= {(image, "whole") for image in shared.splits(name)[split]["image_id"]}
    support = shared.splits(config.dataset_config)["train"]["image_id"]
    if config.augmentation == "fixed-views" and adapt.method_of(config.method).kind == "gradient":
        rows |= {(image, view) for image in support for view in range(VIEWS)}
    elif config.augmentation == "none" or adapt.method_of(config.method).kind == "frozen":
        rows |= {(image, "whole") for image in support}
    return rows


def _forward_seconds(backbone: torch.nn.Module, shared: Shared, config: RunConfig) -> float:
    """Seconds of one image in a batch of four, the better of two."""
    device = make_accelerator(config).device
    process, size = shared.processing(config), 4
    batch, times = torch.rand(size, 3, process.height, process.width, device=device), []
    backbone.to(device)
    with torch.inference_mode():
        for _ in range(3):
            begin = time.perf_counter()
            backbone(pixel_values=batch).logits.sum().item()
            times.append(time.perf_counter() - begin)
    return min(times[1:]) / size


def _images(jobs: Sequence[Job], shared: Shared) -> tuple[float, int]:
    """Seconds and bytes that the images cost which no store holds yet."""
    wanted: dict[tuple, dict] = defaultdict(dict)
    for job in jobs:
        process = shared.processing(job.config)
        splits = {(job.config.dataset_config, "train"), *one_run.scored_splits(job.config, shared).values()}
        for name, split in splits:
            rows = shared.cached(("rows", name, split), lambda name=name, split=split: ImageRows(shared.splits(name)[split]))
            for row, image in enumerate(rows.identities):
                wanted[job.config.subset, process][image] = rows, row
    seconds, size = 0.0, 0
    for (subset, process), images in wanted.items():
        store = PixelStore(shared.root, subset_of(subset).key, process.geometry, process.height, process.width)
        new = [place for image, place in images.items() if image not in store.where]
        if new:
            begin, few = time.perf_counter(), new[:: max(1, len(new) // 4)][:4]
            depth = max(decode(rows.source(row)).ndim for rows, row in few)
            seconds += (time.perf_counter() - begin) / len(few) * len(new)
            size += len(new) * process.height * process.width * (3 if depth == 3 else 1)
    return seconds, size
