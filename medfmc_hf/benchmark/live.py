"""The live table of a sweep: finished and remaining runs, and their scores. A terminal shows it in place, a log gets a line per run."""

import sys
import time
from collections import defaultdict
from collections.abc import Sequence

from .. import progress
from ..evaluation.experiments import SHOT_ORDER, Run, labels_of, shots_of
from ..evaluation.intervals import estimate
from ..evaluation.scored import run_names
from ..runs import RunRecord
from ..words import percent, plural, seed_kind, shots_words
from .grid_plan import Job


class Table:
    """Follows the records of a grid's jobs, whichever process writes them.

    Args:
        jobs: of the grid.
        shown: whether this process is the one that shows it.

    Attributes:
        names: by id, what to call a run; no two are alike.
    """

    def __init__(self, jobs: Sequence[Job], shown: bool = True) -> None:
        self.jobs, self.shown = jobs, shown
        self.records: dict[str, RunRecord] = {}
        self._written: dict[str, int] = {}
        runs = list(map(run_of, jobs))
        self._labels, self.names = labels_of(runs), run_names(runs)
        self._lines = 0
        self._begin, self._work = time.perf_counter(), 0.0
        self.refresh()
        self._before = set(self.records)

    def refresh(self) -> None:
        """Read new and changed records."""
        for job in self.jobs:
            written = job.written
            if written is not None and written != self._written.get(job.id):
                self._written[job.id] = written
                if (record := job.record) is not None:
                    self.records[job.id] = record

    def forget(self, job: Job) -> None:
        """Treat a job as not run until its record changes."""
        self.records.pop(job.id, None)
        self._before.discard(job.id)

    def count(self, status: str) -> int:
        return sum(record.status == status for record in self.records.values())

    def left(self) -> str:
        """Remaining time, such as `about 12 min`, from the runs since the start; empty before the first."""
        ran = sum(job.work for job in self.jobs if job.id in self.records and job.id not in self._before)
        rest = sum(job.work for job in self.jobs if job.id not in self.records)
        return f"about {duration((time.perf_counter() - self._begin) * rest / ran)}" if ran and rest else ""

    def headline(self) -> str:
        done, failed = self.count("finished"), self.count("failed")
        parts = [
            f"{done} of {len(self.jobs)} done",
            f"{failed} failed" * bool(failed),
            f"{len(self.jobs) - done - failed} left",
            self.left(),
        ]
        return ", ".join(part for part in parts if part)

    def rows(self) -> list[str]:
        """The table: primary metric / AUC on test in percent, mean over the seeds whose runs are finished, and how many runs these are."""
        present = {shots_of(job.config) for job in self.jobs}
        columns = [shots for shots in SHOT_ORDER if shots in present]
        lines: dict[tuple, dict] = defaultdict(lambda: defaultdict(list))
        for job in self.jobs:
            lines[job.config.subset, self._labels[job.id]][shots_of(job.config)].append(self.records.get(job.id))
        head = ["subset", "method", *(f"{shots_words(shots)}, {plural(seed_kind(shots))}" for shots in columns)]
        body = [[subset, label, *(_field(group.get(shots, [])) for shots in columns)] for (subset, label), group in sorted(lines.items())]
        widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
        return ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in [head, *body]]

    def show(self, finished: Job | None = None) -> None:
        """Redraw the table, or write a line about the finished run."""
        self.refresh()
        if not self.shown or progress.is_quiet():
            return
        if sys.stderr.isatty():
            lines = [self.headline(), *self.rows()]
            up = f"\x1b[{self._lines}F\x1b[J" if self._lines else ""
            print(up + "\n".join(lines), file=sys.stderr, flush=True)
            self._lines = len(lines)
        elif finished is not None:
            record = self.records[finished.id]
            came = (record.error or "").strip().splitlines()[-1] if record.status == "failed" else _numbers([record])
            progress.notify(f"{self.names[finished.id]} {record.status}: {came} | {self.headline()}")


def run_of(job: Job) -> Run:
    """The run that a job is, whether it has run or not, with all that its name is made of."""
    known = RunRecord(job.id, "finished", job.config.to_dict())
    if job.run is not None:
        known.data, known.backbone = job.run.data, {"fingerprint": job.run.fingerprint}
    return Run(known if job.run is not None else job.record or known)


def _field(records: list[RunRecord | None]) -> str:
    if not records:
        return ""
    finished = [record for record in records if record and record.status == "finished"]
    failed = sum(record is not None and record.status == "failed" for record in records)
    text = f"{_numbers(finished)} " if finished else ""
    return text + f"({len(finished)}/{len(records)}" + f", {failed} failed" * bool(failed) + ")"


def _numbers(records: list[RunRecord]) -> str:
    """Primary metric and AUC in percent, the mean over seeds."""
    seeds, none = [Run(record).seed for record in records], [None] * len(records)
    values = {metric: [record.scores["test"].get(metric) for record in records] for metric in (records[0].subset.metric, "auc")}
    return "/".join(percent(estimate(metric, own, seeds, none).mean) for metric, own in values.items())


def duration(seconds: float) -> str:
    """`42 s`, `12 min` or `1 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
