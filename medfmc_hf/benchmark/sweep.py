"""Runs the cells of a grid: each once, in any number of processes, so that nothing finished is lost and no failure stops the rest.

There is no scheduler. A process takes the first unit of cells that is not finished and that no other process holds, by a lock on a file
in the folder of the runs; the system lets go of the lock when the process ends, however it ends. Processes on several machines need
nothing but that folder in common.
"""

import gc
import hashlib
import os
import time
import traceback
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from ..adaptation import adapt
from ..errors import MedfmcError
from ..progress import say
from ..runs import RunRecord, provenance
from ..runs.folders import clear_remains, new_run
from ..training import one_run
from ..training.loop import Loop, Stopwatch, make_accelerator
from ..training.shared import Shared
from . import grouped
from .grid_plan import Cell
from .live import Table

_PATIENCE = 0.5  # seconds between looks at what other processes hold


def sweep(
    cells: Sequence[Cell],
    shared: Shared,
    out: str | os.PathLike,
    *,
    retry_failed: bool = False,
    together: bool = False,
    shown: bool = True,
) -> Table:
    """Run every cell that has no record yet, and give the table of all of them.

    Args:
        cells: as `plan` orders them.
        shared: data, pictures and backbone of this process.
        out: folder of the runs, the one the cells were planned for.
        retry_failed: run failed cells again.
        together: all processes work on each run (DDP), instead of each on its own.
        shown: whether this process shows the live table.
    """
    accelerator = make_accelerator(cells[0].config)
    table = Table(cells, shown)
    if retry_failed:
        for cell in cells:
            if cell.id in table.records and table.records[cell.id].status == "failed":
                table.forget(cell)
    units: dict[str, list[Cell]] = {}
    for cell in cells:
        units.setdefault(cell.unit, []).append(cell)
    retrying = {cell.id for cell in cells if cell.id not in table.records}
    cuts_views = [cell for cell in cells if cell.id in retrying and not cell.problem and cell.config.augmentation == "crop-flip"]
    trains = any(adapt.method_of(cell.config.method).kind == "gradient" for cell in cuts_views)
    shared.trains_on = accelerator.device if trains else None
    table.show()
    if together:
        _in_step(list(units.values()), retrying, shared, table, accelerator)
    else:
        _by_claims(units, retrying, shared, table, accelerator, Path(out) / ".claims")
    for cell in cells:
        clear_remains(cell.folder)
    table.show()
    return table


def _in_step(units: list[list[Cell]], wanted: set[str], shared: Shared, table: Table, accelerator: Accelerator) -> None:
    """All processes go through the same cells; the first decides which are left."""
    decision = [[cell.id for unit in units for cell in unit if cell.id in wanted]]
    if accelerator.num_processes > 1:
        broadcast_object_list(decision)
    for unit in units:
        _run_unit([cell for cell in unit if cell.id in decision[0]], shared, table, accelerator)


def _by_claims(
    units: dict[str, list[Cell]], wanted: set[str], shared: Shared, table: Table, accelerator: Accelerator, folder: Path
) -> None:
    """Take one unit after another that nobody holds, until none is left. What a process that died held is taken by the next."""
    folder.mkdir(parents=True, exist_ok=True)
    before = {cell.id: cell.written for unit in units.values() for cell in unit}

    def is_left(cell: Cell) -> bool:
        """Whether no process has run it since: its record, if there was one, is the one that is to be replaced."""
        return cell.id in wanted and cell.written == before[cell.id] and (cell.record is None or cell.record.status == "failed")

    left = dict(units)
    while left:
        worked = False
        for name in list(left):
            try:
                with FileLock(folder / f"{_file_name(name)}.lock", timeout=0):
                    todo = [cell for cell in left.pop(name) if is_left(cell)]
                    _run_unit(todo, shared, table, accelerator)
                    worked = worked or bool(todo)
            except Timeout:
                continue
            if worked:
                break  # from the costliest again
        if not worked and left:
            table.show()
            time.sleep(_PATIENCE)


def _file_name(unit: str) -> str:
    return hashlib.sha256(unit.encode()).hexdigest()[:16]


def _run_unit(cells: list[Cell], shared: Shared, table: Table, accelerator: Accelerator) -> None:
    frozen = [cell for cell in cells if not cell.problem and adapt.method_of(cell.config.method).kind == "frozen"]
    if len(frozen) > 1:
        try:
            _compute_features(frozen, shared, accelerator)
        except Exception:  # each run meets the same trouble and records it
            shared.let_go()
    trained = _train_together(cells, shared, accelerator) if cells and cells[0].unit.startswith("group ") else {}
    for cell in cells:
        run_cell(cell, shared, accelerator, trained.get(cell.id))
        table.show(cell)


def _train_together(cells: list[Cell], shared: Shared, accelerator: Accelerator) -> dict[str, one_run.Trained]:
    """Train the runs of a group in one pass. Whatever stands against it, they are trained one by one instead."""
    if len(cells) < 2 or accelerator.num_processes > 1:
        return {}
    try:
        trained = grouped.train_group([cell.config for cell in cells], shared, accelerator)
    except (MedfmcError, RuntimeError) as error:
        say(f"{len(cells)} runs are trained one by one, not in one pass: {str(error).strip().splitlines()[0]}")
        free(shared)
        return {}
    return {} if trained is None else dict(zip((cell.id for cell in cells), trained))


def _compute_features(cells: list[Cell], shared: Shared, accelerator: Accelerator) -> None:
    """Features of all the pictures of some cells at once, in full batches."""
    config = cells[0].config
    splits = {}
    for cell in cells:
        own = {(cell.config.dataset_config, "train"): None} | dict.fromkeys(one_run.scored_splits(cell.config, shared).values())
        splits |= own
    loop = Loop(config, None, shared.processing(config), accelerator, Stopwatch())
    with shared.lend(config) as loan:
        one_run.frozen_features(loop, loan.backbone, shared, [shared.evaluation_pixels(*split, config) for split in splits])


def run_cell(cell: Cell, shared: Shared, accelerator: Accelerator, trained: one_run.Trained | None = None) -> None:
    """Run a cell. What goes wrong becomes its record; only Ctrl-C and the like go through.

    With several processes on one run, an error that is not the user's goes through too: the processes may have parted.
    """
    try:
        if cell.problem:
            raise MedfmcError(cell.problem)
        extra = {} if trained is None else {"trained": trained}
        one_run.train(cell.config, out=cell.folder.parents[1], shared=shared, accelerator=accelerator, **extra)
        return
    except MedfmcError as error:
        text = str(error)
    except Exception:
        if accelerator.num_processes > 1:
            raise
        text = traceback.format_exc()
    free(shared)
    if accelerator.is_main_process:
        with new_run(cell.folder) as part:
            RunRecord(
                id=cell.id,
                status="failed",
                config=cell.config.to_dict(),
                data={"config": str(cell.config.dataset_config)},
                cost=provenance.machine(accelerator),
                versions=provenance.versions(),
                error=text,
                finished_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            ).save(part)


def free(shared: Shared) -> None:
    """Let go of the backbone and of what a failed run may still hold."""
    shared.let_go()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
