"""The board: what a folder of runs amounts to, as plain data that every table, plot and page of the report is made from."""

import dataclasses
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MedfmcError
from ..evaluation.compare import FEW, Seeds, means_of_common
from ..evaluation.experiments import SHOT_ORDER, Adaptation, Experiment, Run, group, read_run
from ..evaluation.intervals import by_key
from ..evaluation.jackknife import Jackknife
from ..evaluation.statistics import holm
from ..progress import bar
from ..runs import RunRecord
from ..runs.folders import find_runs
from ..runs.provenance import unfit_marks
from ..subsets import SEEDS, SHOTS, SUBSETS
from ..words import METRICS, ONE_SUPPORT_SET, plural
from .references import references
from .results import Result, result_of

BOARD_SCHEMA = 3  # 1: rows were called settings, and seeds draws; 2: results were called cells

Roots = str | os.PathLike | list  # folders of runs, run folders, or both


@dataclass(frozen=True)
class ColumnComparison:
    """All pairs of adaptations on one subset, number of shots and metric, on the same test rows and the same seeds.

    Attributes:
        subset: subset key.
        shots: column.
        metric: what is compared.
        adaptations: keys of those compared.
        pairs: for each pair `a`, `b` (places in `adaptations`), `difference` (a minus b, mean over the common seeds), `low`, `high` and `p`
            (over test patients, see `Jackknife.difference`), `p_holm` (corrected over the pairs of this comparison), `seeds` (the common
            ones), `wins` and `losses` (seeds in which a is better, or worse).
    """

    subset: str
    shots: str
    metric: str
    adaptations: tuple[str, ...]
    pairs: tuple[dict, ...]


@dataclass
class Board:
    """Everything the report shows.

    Attributes:
        adaptations: rows.
        results: one for each adaptation, subset and shots with a finished run.
        comparisons: paired, between the adaptations of a subset and number of shots.
        references: published numbers and chance, for the subsets on the board; values in fractions.
        gaps: seeds of the grid (of the split, or of the training where there is one split) that have no finished run: `adaptation`,
            `subset`, `shots`, `seeds`.
        absent: subsets without any run.
        failed: failed runs: `id`, `adaptation`, `subset`, `shots`, `seed`, `seed_words` (what it is a seed of), `error`, `finished_at`.
        left_out: ids of runs that another run of the same seed replaced.
        notes: what the board cannot show or left out, in words.
        counts: `finished` and `failed` runs.
        intervals: whether test intervals and comparisons were asked for.
        until: when the last run finished; the report holds no other time, so that the same runs give the same bytes.
    """

    adaptations: list[Adaptation] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    comparisons: list[ColumnComparison] = field(default_factory=list)
    references: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"finished": 0, "failed": 0})
    intervals: bool = True
    until: str = ""

    @property
    def subsets(self) -> list[str]:
        """Subsets with a finished run, in the order of MedFMC."""
        present = {result.subset for result in self.results}
        return [key for key in SUBSETS if key in present]

    def shots_of(self, subset: str) -> list[str]:
        """The columns of a subset."""
        present = {result.shots for result in self.results if result.subset == subset}
        return [shots for shots in SHOT_ORDER if shots in present]

    def result(self, adaptation: str, subset: str, shots: str) -> Result | None:
        return next((c for c in self.results if (c.adaptation, c.subset, c.shots) == (adaptation, subset, shots)), None)

    def to_json(self) -> dict[str, Any]:
        """The board as JSON values, with the words that a page needs."""
        about = {
            key: {"name": s.name, "title": s.title, "metric": s.metric, "classes": list(s.classes), "group": s.group}
            for key, s in SUBSETS.items()
        }
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {name: [dataclasses.asdict(item) for item in values[name]] for name in ("adaptations", "results", "comparisons")}
        return {"schema": BOARD_SCHEMA, "metric_names": METRICS, "shot_order": list(SHOT_ORDER), "subsets": about, **values}


def make_board(roots: Roots, *, intervals: bool = True, all_data: bool = False) -> Board:
    """Read runs and work out the board.

    Args:
        roots: folders of runs, run folders, or both.
        intervals: whether to work out test intervals and comparisons.
        all_data: show runs on invented or incomplete data, too.

    Raises:
        MedfmcError: there is no run below `roots`, or a record cannot be read.
    """
    board = Board(intervals=intervals)
    runs = _read(roots, board.notes, all_data)
    if not runs:
        if board.notes:
            raise MedfmcError("\n".join([f"nothing below {_names(roots)} can be shown.", *board.notes[:5]]))
        raise MedfmcError(
            f"there is no run below {_names(roots)}; expected folders with a run.json, as `medfmc benchmark` and the recipes write them."
        )
    board.adaptations, experiments = group(runs)
    experiments.sort(key=lambda e: (list(SUBSETS).index(e.subset.key), SHOT_ORDER.index(e.shots)))
    jackknives = _jackknives([run for e in experiments for run in e.runs], intervals, board.notes)
    labels = {adaptation.key: adaptation.label for adaptation in board.adaptations}
    order = {key: number for number, key in enumerate(labels)}
    for experiment in sorted(experiments, key=lambda e: order[e.adaptation]):
        if experiment.runs:
            board.results.append(result_of(experiment, jackknives))
        for run in experiment.replaced:
            board.left_out.append(run.record.id)
            board.notes.append(
                f"{labels[experiment.adaptation]}, {run.record.run_config.dataset_config}: run {run.record.id} is not shown, for another "
                "run of the same seed, with other training rows or predictions, finished later."
            )
        board.failed += [
            {"id": run.record.id, "adaptation": experiment.adaptation, "subset": experiment.subset.key, "shots": experiment.shots,
             "seed": run.seed, "seed_words": run.seed_words, "error": run.record.error or "no reason recorded",
             "finished_at": run.record.finished_at}
            for run in experiment.failed
        ]  # fmt: skip
    board.failed.sort(key=lambda f: (f["subset"], SHOT_ORDER.index(f["shots"]), f["adaptation"], f["seed"], f["id"]))
    board.comparisons = _compare(experiments, jackknives)
    board.references = references(board.results)
    board.gaps, board.absent = _gaps(board)
    board.counts = {status: sum(run.record.status == status for run in runs) for status in ("finished", "failed")}
    board.until = max((run.record.finished_at for run in runs), default="")
    few = {result.subset: result.test_patients for result in board.results if result.test_patients and result.test_patients < FEW}
    for subset, patients in few.items() if intervals else ():
        words = f"test intervals from {patients} different {plural(SUBSETS[subset].group)} are too narrow."
        board.notes.append(f"{SUBSETS[subset].name}: {words}")
    if not intervals:
        board.notes.append("Test intervals and paired comparisons were not asked for (--replicates 0).")
    return board


def _names(roots: Roots) -> str:
    return ", ".join(map(str, [roots] if isinstance(roots, (str, os.PathLike)) else roots))


def _read(roots: Roots, notes: list[str], all_data: bool) -> list[Run]:
    """The runs to show, in the order of their ids; of one run found twice, the finished or the first copy."""
    left_out: list[str] = []
    copies = list(find_runs(roots, left_out))
    notes += [f"1 of {len(left_out)} records that were left out: {reason}" for reason in left_out]
    found: dict[str, tuple[Path, RunRecord]] = {}
    for folder, record in copies:
        if record.id not in found or (found[record.id][1].status == "failed" and record.status == "finished"):
            found[record.id] = folder, record
    repeated = sum(count > 1 for count in Counter(record.id for _, record in copies).values())
    if repeated:
        notes.append(f"{repeated} {plural('run', repeated)} found in several folders, counted once.")
    unfit: dict[str, list[str]] = defaultdict(list)
    for key, (_, record) in found.items():
        if not all_data and (words := " and ".join(unfit_marks(record))):
            unfit[words].append(key)
    notes += [f"Left out, for their images are {words}: {_some(ids)}; --all-data shows them." for words, ids in sorted(unfit.items())]
    shown = []
    for key in sorted(found.keys() - set().union(*unfit.values())):
        folder, record = found[key]
        if record.status == "finished" and not record.scores.get("test"):
            notes.append(f"Run {key} finished without test scores and is not shown.")
        else:
            shown.append(read_run(folder, record))
    return shown


def _some(ids: list[str]) -> str:
    shown = ", ".join(ids[:3])
    return f"{len(ids)} {plural('run', len(ids))}: {shown}" + (" and others" if len(ids) > 3 else "")


def _jackknives(runs: list[Run], intervals: bool, notes: list[str]) -> dict[str, Jackknife]:
    """By id, the jackknives of the runs whose predictions the report can make use of; none without `intervals`."""
    found: dict[str, Jackknife] = {}
    problems: dict[str, list[str]] = defaultdict(list)
    for run in bar(runs, desc="test intervals", unit="run"):
        if (intervals or run.test is None) and run.no_jackknife:
            problems[run.no_jackknife].append(run.record.id)
        elif intervals and run.jackknife:
            found[run.record.id] = run.jackknife
    notes += [f"No test interval and no paired comparison: {words} ({_some(ids)})." for words, ids in problems.items()]
    return found


def _compare(experiments: list[Experiment], jackknives: Mapping[str, Jackknife]) -> list[ColumnComparison]:
    """The experiments of each column pair by pair: those that were tested on the same rows and have seeds in common."""
    columns: dict[tuple[str, str, str], list[tuple[str, Seeds]]] = defaultdict(list)
    for experiment in experiments:
        known = {(run.seed, run.training_seed): jackknives[run.record.id] for run in experiment.runs if run.record.id in jackknives}
        if known:
            columns[experiment.subset.key, experiment.shots, experiment.traits["test_rows"]].append((experiment.adaptation, known))
    result = []
    for (subset, shots, _), members in columns.items():
        adaptations = tuple(adaptation for adaptation, _ in members)
        for metric in (SUBSETS[subset].metric, "auc", "score"):
            pairs = [
                pair | {"a": a, "b": b}
                for (a, (_, left)), (b, (_, right)) in itertools.combinations(enumerate(members), 2)
                if (pair := _pair(metric, left, right)) is not None
            ]
            if pairs:
                corrected = tuple(pair | {"p_holm": p} for pair, p in zip(pairs, holm([pair["p"] for pair in pairs])))
                result.append(ColumnComparison(subset, shots, metric, adaptations, corrected))
    return result


def _pair(metric: str, left: Seeds, right: Seeds) -> dict[str, Any] | None:
    """The difference on the seeds that both have; None where there are none, or it is undefined."""
    means = means_of_common(left, right)
    if means is None:
        return None
    found = (means[0] - means[1]).difference(metric)
    if not np.isfinite(found.value + found.p):
        return None
    common = sorted(left.keys() & right.keys())
    changes = by_key((left[key].point[metric] - right[key].point[metric] for key in common), (split for split, _ in common))
    wins, losses = (sum(sign * sum(own) > 0 for own in changes.values()) for sign in (1, -1))
    return {"difference": found.value, "low": found.low, "high": found.high, "p": found.p, "seeds": sorted(changes), "wins": wins,
            "losses": losses}  # fmt: skip


def _gaps(board: Board) -> tuple[list[dict[str, Any]], list[str]]:
    """Seeds of the benchmark that have no finished run, for the subsets that have any; and the subsets that have none."""
    have = {(c.adaptation, c.subset, c.shots): set(c.training_seeds if c.shots in ONE_SUPPORT_SET else c.seeds) for c in board.results}
    started = {*have, *((f["adaptation"], f["subset"], f["shots"]) for f in board.failed)}
    subsets = [key for key in SUBSETS if any(place[1] == key for place in started)]
    gaps = []
    for adaptation in board.adaptations:
        wanted = {shots for key, _, shots in started if key == adaptation.key}
        if adaptation.protocol != "transfer" and wanted != {"pool"}:
            wanted |= set(map(str, SHOTS))
        shots = [shot for shot in SHOT_ORDER if shot in wanted]
        for subset in subsets:
            if adaptation.protocol != "clean" and not SUBSETS[subset].challenge:
                continue
            for shot in shots:
                missing = sorted(set(SEEDS) - have.get((adaptation.key, subset, shot), set()))
                if missing:
                    gaps.append({"adaptation": adaptation.key, "subset": subset, "shots": shot, "seeds": missing})
    return gaps, [key for key in SUBSETS if key not in subsets]
