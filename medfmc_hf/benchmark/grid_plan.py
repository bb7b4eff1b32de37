"""What a grid amounts to: its cells, what each costs, which of them share work, and how long and how large it all will be."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..adaptation import adapt, train_free
from ..errors import MedfmcError
from ..images.pixels import decode
from ..images.rows import PictureRows
from ..images.store import PixelStore
from ..images.views import VIEWS
from ..progress import bar
from ..runs import MethodOptions, RunConfig, RunRecord, identity
from ..runs.folders import record_in, run_folder
from ..subsets import subset_of
from ..training import frozen_blocks, one_run
from ..training.loop import make_accelerator
from ..training.shared import Loan, Shared
from . import grouped

STEP = {"full": 3.0, "linear-sgd": 1.0, "partial": 1.4}  # a training step in forward passes, as benchmarks/ measures them
_OTHER_STEP = 2.2  # every method that reaches back to the first block with few parameters


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        config: what it runs.
        id: its identity.
        folder: where its files go.
        unit: cells of the same unit share most of their work and go to the same process.
        work: what it costs, in forward passes of one picture; cells of a unit count what they share once, in the first of them.
        problem: why it cannot start, or None.
    """

    config: RunConfig
    id: str
    folder: Path
    unit: str
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


def plan(configs: Sequence[RunConfig], shared: Shared, out: str | Path, *, group: int = 1) -> list[Cell]:
    """The cells of a grid, those that share work next to each other, the costliest unit first.

    Args:
        configs: of all runs.
        shared: data and fingerprints. A config, or a backbone, that cannot be had makes a cell with a problem.
        out: folder of the runs.
        group: how many alike runs are trained in one pass, which makes them one unit.

    Raises:
        MedfmcError: a method, or an option of it, is unknown.
    """
    for config in configs:
        adapt.all_options(config.method, config.method_options)
    seen: dict[str, set] = defaultdict(set)
    cells = [_cell(config, shared, Path(out), seen) for config in bar(configs, desc="planning", unit="run")]
    units: dict[str, list[Cell]] = defaultdict(list)
    alike: dict[tuple, list[Cell]] = defaultdict(list)
    for cell in {cell.id: cell for cell in cells}.values():
        if group > 1 and not cell.problem and grouped.can_group(cell.config):
            alike[grouped.group_key(cell.config)].append(cell)
        else:
            units[cell.unit].append(cell)
    for members in alike.values():
        members.sort(key=lambda cell: -cell.work)  # runs of one length together
        for start in range(0, len(members), group):
            unit = "group " + members[start].id
            units[unit] = [replace(cell, unit=unit) for cell in members[start : start + group]]
    ordered = sorted(units.values(), key=lambda unit: (unit[0].config.model, -sum(cell.work for cell in unit)))
    return [cell for unit in ordered for cell in unit]


def _cell(config: RunConfig, shared: Shared, out: Path, seen: dict[str, set]) -> Cell:
    config = replace(config, method_options=MethodOptions(adapt.resolve(config.method, config.method_options)))
    try:
        run_id = shared.identity(config)
        scored = one_run.scored_splits(config, shared)
    except MedfmcError as error:
        run_id = identity(config, "unknown", config.model)
        return Cell(config, run_id, run_folder(out, config, run_id), run_id, problem=str(error))
    folder = run_folder(out, config, run_id)
    setting = f"{shared.backbone_fingerprint(config)} {config.image_size} {config.dtype} {config.subset}"
    test = sum(len(shared.splits(name)[split]) for name, split in scored.values())
    train = len(shared.splits(config.dataset_config)["train"])
    if adapt.method_of(config.method).kind == "frozen":
        unit = f"features {setting}"
        splits = {(config.dataset_config, "train"), *scored.values()}
        images = {image for name, split in splits for image in shared.splits(name)[split]["image_id"]}
        new = images - seen[unit]
        seen[unit] |= new
        return Cell(config, run_id, folder, unit, float(len(new)))
    validation = len(shared.splits(config.dataset_config)["validation"]) if config.select == "best" else 0
    has_trunk = grouped.has_trunk(config)
    step = STEP.get(config.method, STEP["partial"] if has_trunk else _OTHER_STEP)
    unit = run_id
    if has_trunk:
        options = sorted(adapt.all_options(config.method, config.method_options).items())
        unit = (
            f"trunk-{shared.backbone_fingerprint(config)[:16]}-{config.image_size}-{config.dtype}-{config.subset}-{config.method}{options}"
        )
    return Cell(config, run_id, folder, unit, config.epochs * (train * step + validation) + test)


@dataclass(frozen=True)
class Estimate:
    """What is left of a grid: seconds of decoding and of computing on this machine, and bytes on disk."""

    decode_seconds: float
    compute_seconds: float
    disk_bytes: int


def estimate(cells: Sequence[Cell], shared: Shared) -> Estimate:
    """Time a forward pass of each backbone and a decode of each subset, and multiply.

    Args:
        cells: that are to run.
        shared: the data and the caches.
    """
    compute, disk, forward = 0.0, 0, {}
    sizes: dict[tuple, tuple[int, str, int]] = {}
    kept: dict[tuple, set] = defaultdict(set)  # which rows a store of features or trunk outputs will hold
    for cell in cells:
        config = cell.config
        backbone = config.model, config.revision, config.image_size, config.dtype
        setting = *backbone, config.subset, config.method, repr(config.method_options)
        if setting not in sizes:
            with shared.lend(config) as loan:
                if backbone not in forward:
                    forward[backbone] = _forward_seconds(loan.backbone, shared, config)
                sizes[setting] = _sizes(loan, shared, config)
        adapter_bytes, what, row_bytes = sizes[setting]
        disk += adapter_bytes
        compute += cell.work * forward[backbone]
        if row_bytes:
            kept[(*backbone, config.subset, what, row_bytes)] |= _kept_rows(config, shared)
    decode_seconds, pixel_bytes = _pictures(cells, shared)
    kept_bytes = sum(row_bytes * len(rows) for (*_, row_bytes), rows in kept.items())
    return Estimate(decode_seconds, compute, disk + pixel_bytes + kept_bytes)


def _sizes(loan: Loan, shared: Shared, config: RunConfig) -> tuple[int, str, int]:
    """Bytes of a run's weights; what is kept on disk of each picture, `features` or a trunk of some length; and bytes of that."""
    process = shared.processing(config)
    blank = torch.zeros(1, 3, process.height, process.width, device=next(loan.backbone.parameters()).device)
    if adapt.method_of(config.method).kind == "frozen":
        return 0, "features", train_free.features(loan.backbone, [blank]).nbytes
    model = one_run.adapted(loan, config, len(shared.splits(config.dataset_config)["train"]))
    weights = sum(4 * p.numel() for p in model.parameters() if p.requires_grad)
    network = frozen_blocks.cut(model, process)
    if network is model:
        return weights, "", 0
    return weights, f"trunk{network.length}", 4 * network.trunk(blank).numel()


def _kept_rows(config: RunConfig, shared: Shared) -> set[tuple]:
    """Which pictures, and which of their fixed views, go through a frozen part of the backbone once."""
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
    """Seconds of one picture in a batch of four, the better of two."""
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


def _pictures(cells: Sequence[Cell], shared: Shared) -> tuple[float, int]:
    """Seconds and bytes that the pictures cost which no store holds yet."""
    wanted: dict[tuple, dict] = defaultdict(dict)
    for cell in cells:
        process = shared.processing(cell.config)
        splits = {(cell.config.dataset_config, "train"), *one_run.scored_splits(cell.config, shared).values()}
        for name, split in splits:
            rows = shared.once(("rows", name, split), lambda name=name, split=split: PictureRows(shared.splits(name)[split]))
            for row, picture in enumerate(rows.identities):
                wanted[cell.config.subset, process][picture] = rows, row
    seconds, size = 0.0, 0
    for (subset, process), pictures in wanted.items():
        store = PixelStore(shared.root, subset_of(subset).key, process.geometry, process.height, process.width)
        new = [place for picture, place in pictures.items() if picture not in store.where]
        if new:
            begin, few = time.perf_counter(), new[:: max(1, len(new) // 4)][:4]
            depth = max(decode(rows.source(row)).ndim for rows, row in few)
            seconds += (time.perf_counter() - begin) / len(few) * len(new)
            size += len(new) * process.height * process.width * (3 if depth == 3 else 1)
    return seconds, size
