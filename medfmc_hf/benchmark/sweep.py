"""Runs each job of a grid once, in any number of processes; finished runs stay and a failure does not stop the rest.

There is no scheduler. A process takes the first unfinished batch of jobs that no other process holds, by a lock on a file in the folder of
the runs; the system releases the lock when the process ends, however it ends. Processes on several machines need only share that folder.
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

from ..errors import MedfmcError
from ..progress import notify
from ..runs import RunRecord, provenance
from ..runs.folders import clear_remains, new_run
from ..training import one_run
from ..training.loop import make_accelerator
from ..training.resolved import ResolvedRun
from ..training.shared import Shared
from . import grouped
from .grid_plan import Job
from .live import Table

_POLL_SECONDS = 0.5  # between checks for batches that other processes hold


def sweep(
    jobs: Sequence[Job],
    shared: Shared,
    out: str | os.PathLike,
    *,
    retry_failed: bool = False,
    together: bool = False,
    shown: bool = True,
) -> Table:
    """Run every job that has no record yet, and return the table of all jobs.

    Args:
        jobs: jobs in the order of `plan`.
        shared: data, images and backbone of this process.
        out: folder of the runs that the jobs were planned for.
        retry_failed: whether to run failed jobs again.
        together: whether all processes work on one run at a time (DDP), instead of each on a different one.
        shown: whether this process shows the live table.
    """
    accelerator = make_accelerator()
    table = Table(jobs, shown)
    if retry_failed:
        for job in jobs:
            if job.id in table.records and table.records[job.id].status == "failed":
                table.forget(job)
    batches: dict[str, list[Job]] = {}
    for job in jobs:
        batches.setdefault(job.batch, []).append(job)
    retrying = {job.id for job in jobs if job.id not in table.records}
    runs = [job.run for job in jobs if job.id in retrying and job.run is not None]
    cuts_views = any(run.by_gradient and run.config.augmentation == "crop-flip" for run in runs)
    shared.trains_on = accelerator.device if cuts_views else None
    table.show()
    if together:
        _in_step(list(batches.values()), retrying, shared, table, accelerator)
    else:
        _by_locks(batches, retrying, shared, table, accelerator, Path(out) / ".locks")
    for job in jobs:
        clear_remains(job.folder)
    table.show()
    return table


def _in_step(batches: list[list[Job]], wanted: set[str], shared: Shared, table: Table, accelerator: Accelerator) -> None:
    """All processes go through the same jobs; the first process decides which are left."""
    decision = [[job.id for batch in batches for job in batch if job.id in wanted]]
    if accelerator.num_processes > 1:
        broadcast_object_list(decision)
    for batch in batches:
        _run_together([job for job in batch if job.id in decision[0]], shared, table, accelerator)


def _by_locks(
    batches: dict[str, list[Job]], wanted: set[str], shared: Shared, table: Table, accelerator: Accelerator, folder: Path
) -> None:
    """Take one free batch after another until none is left. The batch of a process that died is free again."""
    folder.mkdir(parents=True, exist_ok=True)
    before = {job.id: job.written for batch in batches.values() for job in batch}

    def is_left(job: Job) -> bool:
        """Whether no process has run it since: it has no record, or still the failed one that it will replace."""
        return job.id in wanted and job.written == before[job.id] and (job.record is None or job.record.status == "failed")

    left = dict(batches)
    while left:
        worked = False
        for name in list(left):
            try:
                with FileLock(folder / f"{_file_name(name)}.lock", timeout=0):
                    todo = [job for job in left.pop(name) if is_left(job)]
                    _run_together(todo, shared, table, accelerator)
                    worked = worked or bool(todo)
            except Timeout:
                continue
            if worked:
                break  # start again from the costliest
        if not worked and left:
            table.show()
            time.sleep(_POLL_SECONDS)


def _file_name(batch: str) -> str:
    return hashlib.sha256(batch.encode()).hexdigest()[:16]


def _run_together(jobs: list[Job], shared: Shared, table: Table, accelerator: Accelerator) -> None:
    by_features = [job.run for job in jobs if job.run is not None and not job.run.by_gradient]
    if len(by_features) > 1:
        try:
            _compute_features(by_features, shared)
        except Exception:  # each run will hit the same error and record it
            shared.release()
    trained = _train_together(jobs, shared, accelerator) if jobs and jobs[0].batch.startswith("group ") else {}
    for job in jobs:
        run_job(job, shared, accelerator, trained.get(job.id))
        table.show(job)


def _train_together(jobs: list[Job], shared: Shared, accelerator: Accelerator) -> dict[str, one_run.Trained]:
    """Train the runs of a group in one pass, or return nothing if that is not possible; then they are trained one by one."""
    runs = [job.run for job in jobs if job.run is not None]
    if len(runs) < 2 or accelerator.num_processes > 1:
        return {}
    try:
        trained = grouped.train_group(runs, shared, accelerator)
    except (MedfmcError, RuntimeError) as error:
        notify(f"{len(runs)} runs are trained one by one, not in one pass: {str(error).strip().splitlines()[0]}")
        free(shared)
        return {}
    return {} if trained is None else dict(zip((run.id for run in runs), trained))


def _compute_features(runs: list[ResolvedRun], shared: Shared) -> None:
    """Compute the features of all images of runs with one backbone, in full batches."""
    splits = dict.fromkeys(split for run in runs for split in run.splits)
    with shared.acquire(runs[0]) as backbone:
        one_run.frozen_features(runs[0], backbone, shared, [shared.evaluation_pixels(split, runs[0].processing) for split in splits])


def run_job(job: Job, shared: Shared, accelerator: Accelerator, trained: one_run.Trained | None = None) -> None:
    """Run a job. Errors are recorded in its run record; only Ctrl-C and the like are raised.

    With several processes on one run, unexpected errors are raised too, because the processes may be out of step.
    """
    try:
        if job.run is None:
            raise MedfmcError(str(job.problem))
        one_run.carry_out(job.run, shared, accelerator, job.folder.parents[1], trained=trained)
        return
    except MedfmcError as error:
        text = str(error)
    except Exception:
        if accelerator.num_processes > 1:
            raise
        text = traceback.format_exc()
    free(shared)
    if accelerator.is_main_process:
        with new_run(job.folder) as part:
            RunRecord(
                id=job.id,
                status="failed",
                config=job.config.to_dict(),
                data={"config": str(job.config.dataset_config)},
                cost=provenance.machine(accelerator),
                versions=provenance.versions(),
                error=text,
                finished_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            ).save(part)


def free(shared: Shared) -> None:
    """Release the backbone and the memory that a failed run may still hold."""
    shared.release()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
