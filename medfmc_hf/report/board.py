"""The board: what a folder of runs amounts to, as plain data that every table, plot and page of the report is made from."""

import dataclasses
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MedfmcError
from ..evaluation.bootstrap import Bootstrap, bootstrap
from ..evaluation.compare import FEW
from ..progress import bar
from ..runs import RunRecord, load_predictions
from ..runs.folders import find_runs
from ..runs.provenance import unfit_marks
from ..subsets import SEEDS, SHOTS, SUBSETS
from .references import references
from .settings import Run, Setting, group, test_key
from .uncertainty import Comparison, Estimate, compare, estimate, slim

BOARD_SCHEMA = 1
REPLICATES = 250  # give a standard error to 5 %
AGREEMENT = 1e-6  # between a record's scores and those of its predictions: float32 sums aside, they are the same
METRIC_NAMES = {"accuracy": "Accuracy", "map": "mAP", "auc": "AUC", "score": "Mean of both"}
SHOT_ORDER = (*map(str, SHOTS), "pool", "train_20")


@dataclass(frozen=True)
class Cell:
    """The runs of one setting on one subset and number of shots: its draws.

    Attributes:
        setting: key of the `Setting`.
        subset: subset key.
        shots: one of `SHOT_ORDER`.
        seeds: of the draws that finished.
        runs: their ids, in the order of `seeds`.
        test_rows: pictures of the test set; None where the records do not say.
        test_patients: patients of it.
        metrics: by metric, an `Estimate` in fractions.
        per_class: by class, the mean over draws of `auc` and `ap` or `recall`, and `positives`; None where undefined.
        cost: `trainable_parameters`, `adapter_bytes`, `peak_memory_bytes`, `seconds` (means over draws) and `devices`.
    """

    setting: str
    subset: str
    shots: str
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    test_rows: int | None
    test_patients: int | None
    metrics: dict[str, Estimate]
    per_class: dict[str, dict[str, float | None]]
    cost: dict[str, Any]


@dataclass
class Board:
    """Everything the report shows.

    Attributes:
        settings: rows.
        cells: one for each setting, subset and shots with a finished run.
        comparisons: paired, between the settings of a subset and number of shots.
        references: published numbers and chance, for the subsets on the board; values in fractions.
        gaps: draws of the grid that have no finished run: `setting`, `subset`, `shots`, `seeds`.
        absent: subsets without any run.
        failed: failed runs: `id`, `setting`, `subset`, `shots`, `seed`, `error`, `finished_at`.
        left_out: ids of runs that another run of the same draw replaced.
        notes: what the board cannot show or left out, in words.
        counts: `finished` and `failed` runs.
        replicates: of the bootstrap; 0 for none.
        until: when the last run finished; the report holds no other time, so that the same runs give the same bytes.
    """

    settings: list[Setting] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    references: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    replicates: int = 0
    until: str = ""

    @property
    def subsets(self) -> list[str]:
        """Subsets with a finished run, in the order of MedFMC."""
        present = {cell.subset for cell in self.cells}
        return [key for key in SUBSETS if key in present]

    def shots_of(self, subset: str) -> list[str]:
        """The columns of a subset."""
        present = {cell.shots for cell in self.cells if cell.subset == subset}
        return [shots for shots in SHOT_ORDER if shots in present]

    def cell(self, setting: str, subset: str, shots: str) -> Cell | None:
        return next((c for c in self.cells if (c.setting, c.subset, c.shots) == (setting, subset, shots)), None)

    def to_json(self) -> dict[str, Any]:
        """The board as JSON values, with the words that a page needs."""
        about = {
            key: {"name": s.name, "title": s.title, "metric": s.metric, "classes": list(s.classes), "group": s.group}
            for key, s in SUBSETS.items()
        }
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {name: [dataclasses.asdict(item) for item in values[name]] for name in ("settings", "cells", "comparisons")}
        return {"schema": BOARD_SCHEMA, "metric_names": METRIC_NAMES, "shot_order": list(SHOT_ORDER), "subsets": about, **values}


def make_board(roots: str | os.PathLike | Sequence[str | os.PathLike], replicates: int = REPLICATES, *, all_data: bool = False) -> Board:
    """Read runs and work out the board.

    Args:
        roots: folders of runs, run folders, or both.
        replicates: resamples of the test patients, for the standard error of every mean and difference; 0 leaves test-set intervals
            and comparisons out.
        all_data: show runs on invented or incomplete data, too.

    Raises:
        MedfmcError: there is no run below `roots`, or a record cannot be read.
    """
    board = Board(replicates=replicates)
    finished, failed = _read(roots, board.notes, all_data)
    if not finished and not failed:
        if board.notes:
            raise MedfmcError("\n".join([f"nothing below {_names(roots)} can be shown.", *board.notes[:5]]))
        raise MedfmcError(
            f"there is no run below {_names(roots)}; expected folders with a run.json, as `medfmc benchmark` and the recipes write them."
        )
    keyed, bootstraps, problems = [], {}, defaultdict(list)
    for run in bar(finished, desc="test-set uncertainty", unit="run"):
        run, boot, problem = _with_predictions(run, replicates)
        keyed.append(run)
        if boot is not None:
            bootstraps[run.record.id] = boot
        if problem:
            problems[problem].append(run.record.id)
    board.notes += [f"{words} ({_some(ids)})." for words, ids in problems.items()]

    rows = group([*keyed, *failed])
    board.settings = [setting for setting, _ in rows]
    for setting, runs in rows:
        cells: dict[tuple[str, str], dict[int, Run]] = defaultdict(dict)
        for run in sorted(runs, key=lambda r: (r.record.finished_at, r.record.id)):
            if run.record.status == "finished":
                known = cells[run.subset, run.shots].get(run.seed)
                if known is not None:
                    board.left_out.append(known.record.id)
                    board.notes.append(
                        f"{setting.label}, {known.record.run_config.dataset_config}, seed {run.seed}: runs {known.record.id} and "
                        f"{run.record.id} differ in their data; only the one that finished last is shown."
                    )
                cells[run.subset, run.shots][run.seed] = run
            else:
                record = run.record
                board.failed.append(
                    {"id": record.id, "setting": setting.key, "subset": run.subset, "shots": run.shots, "seed": run.seed,
                     "error": record.error or "no reason recorded", "finished_at": record.finished_at}
                )  # fmt: skip
        board.cells += [
            _cell(setting, place, [draws[seed] for seed in sorted(draws)], bootstraps) for place, draws in sorted(cells.items(), key=_place)
        ]
    board.failed.sort(key=lambda f: (f["subset"], SHOT_ORDER.index(f["shots"]), f["setting"], f["seed"], f["id"]))
    board.comparisons = compare(board.cells, {run.record.id: run for run in keyed}, bootstraps)
    board.references = references(board.cells)
    board.gaps, board.absent = _gaps(board)
    board.counts = {"finished": len(finished), "failed": len(failed)}
    board.until = max((run.record.finished_at for run in [*finished, *failed]), default="")
    few = {cell.subset: cell.test_patients for cell in board.cells if cell.test_patients and cell.test_patients < FEW}
    for subset, patients in few.items() if replicates else ():
        words = f"test intervals from {patients} different {SUBSETS[subset].group} ids are too narrow."
        board.notes.append(f"{SUBSETS[subset].name}: {words}")
    if not replicates:
        board.notes.append("Test-set intervals and paired comparisons were not asked for (0 replicates).")
    return board


def _names(roots) -> str:
    return ", ".join(map(str, [roots] if isinstance(roots, (str, os.PathLike)) else roots))


def _place(item: tuple[tuple[str, str], Any]) -> tuple[int, int]:
    (subset, shots), _ = item
    return list(SUBSETS).index(subset), SHOT_ORDER.index(shots)


def _read(roots, notes: list[str], all_data: bool) -> tuple[list[Run], list[Run]]:
    """Finished and failed runs; of one run found twice, the finished or the first copy. A failure that was repeated well does not count."""
    found: dict[str, Run] = {}
    copies: Counter = Counter()
    left_out: list[str] = []
    for folder, record in find_runs(roots, left_out):
        rows = f"{record.data.get('rows', {}).get('test')}/{record.data.get('patients', {}).get('test')}"
        run = Run(Path(folder), record, rows)
        known = found.get(record.id)
        copies[record.id] += 1
        if known is None or (known.record.status == "failed" and record.status == "finished"):
            found[record.id] = run
    notes += [f"1 of {len(left_out)} records that were left out: {reason}" for reason in left_out]
    repeated = sum(count > 1 for count in copies.values())
    if repeated:
        notes.append(f"{repeated} runs lie in several folders and count once.")
    unfit = {run.record.id: words for run in found.values() if (words := unfit_marks(run.record)) and not all_data}
    for words in sorted({" and ".join(words) for words in unfit.values()}):
        ids = [key for key, own in unfit.items() if " and ".join(own) == words]
        notes.append(f"Left out, for their images are {words}: {_some(ids)}; --all-data shows them.")
    order = sorted((run for key, run in found.items() if key not in unfit), key=lambda run: run.record.id)
    whole = [run for run in order if run.record.status == "finished" and run.record.scores.get("test")]
    for run in order:
        if run.record.status == "finished" and not run.record.scores.get("test"):
            notes.append(f"Run {run.record.id} finished without test scores and is not shown.")
    return whole, [run for run in order if run.record.status == "failed"]


def _some(ids: list[str]) -> str:
    shown = ", ".join(ids[:3])
    return f"{len(ids)} run{'s' * (len(ids) > 1)}: {shown}" + (" and others" if len(ids) > 3 else "")


def _with_predictions(run: Run, replicates: int) -> tuple[Run, Bootstrap | None, str | None]:
    """The run keyed by its test rows, the bootstrap of its scores, and what keeps the report from making use of its predictions."""
    if not (run.folder / "predictions.parquet").is_file():
        return run, None, "No test-set interval and no paired comparison without predictions.parquet"
    subset = run.record.subset
    try:
        predictions = load_predictions(run.folder)
        run = dataclasses.replace(run, test_key=f"{run.test_key} {test_key(predictions)}")
        if not replicates:
            return run, None, None
        scores = predictions.probabilities  # the official AUC is of probabilities; a softmax changes it
        boot = slim(bootstrap(predictions.targets, scores, predictions.patient_ids, classes=subset.classes, replicates=replicates))
    except (ValueError, OSError) as error:  # a MedfmcError, or what pyarrow says of a broken file
        return run, None, f"No test-set interval and no paired comparison: {error}"
    recorded = run.record.scores["test"]
    if any(abs(value - recorded[name]) > AGREEMENT for name, value in boot.point.items() if recorded.get(name) is not None):
        return run, None, "The scores in run.json are not those of predictions.parquet; shown without test-set interval and comparison"
    return run, boot, None


def _cell(setting: Setting, place: tuple[str, str], runs: list[Run], bootstraps: Mapping[str, Bootstrap]) -> Cell:
    subset, shots = place
    records = [run.record for run in runs]
    own = [bootstraps.get(record.id) for record in records]
    main = SUBSETS[subset].metric
    return Cell(
        setting=setting.key,
        subset=subset,
        shots=shots,
        seeds=tuple(run.seed for run in runs),
        runs=tuple(record.id for record in records),
        test_rows=records[0].data.get("rows", {}).get("test"),
        test_patients=records[0].data.get("patients", {}).get("test"),
        metrics={name: estimate(name, [record.scores["test"].get(name) for record in records], own) for name in (main, "auc", "score")},
        per_class=_per_class(records),
        cost=_cost(records),
    )


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is defined; None where nothing is."""
    defined = [float(value) for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(defined)) if defined else None


def _per_class(records: list[RunRecord]) -> dict[str, dict[str, float | None]]:
    tables = [record.scores["test"].get("per_class", {}) for record in records]
    names = list(dict.fromkeys(name for table in tables for name in table))
    columns = list(dict.fromkeys(column for table in tables for row in table.values() for column in row))
    return {name: {column: mean(table.get(name, {}).get(column) for table in tables) for column in columns} for name in names}


def _cost(records: list[RunRecord]) -> dict[str, Any]:
    names = ("trainable_parameters", "total_parameters", "adapter_bytes", "peak_memory_bytes")
    cost = {name: mean(record.cost.get(name) for record in records) for name in names}
    seconds = [record.cost.get("seconds") or {} for record in records]
    cost |= {"seconds": mean(s.get("total") for s in seconds), "train_seconds": mean(s.get("train") for s in seconds)}
    return cost | {"devices": sorted({str(record.cost["device"]) for record in records if record.cost.get("device")})}


def _gaps(board: Board) -> tuple[list[dict[str, Any]], list[str]]:
    """Draws of the benchmark that have no finished run, for the subsets that have any; and the subsets that have none."""
    have = {(c.setting, c.subset, c.shots): set(c.seeds) for c in board.cells}
    started = {*have, *((f["setting"], f["subset"], f["shots"]) for f in board.failed)}
    subsets = [key for key in SUBSETS if any(place[1] == key for place in started)]
    gaps = []
    for setting in board.settings:
        wanted = {shots for key, _, shots in started if key == setting.key}
        if setting.protocol != "transfer" and wanted != {"pool"}:
            wanted |= set(map(str, SHOTS))
        shots = [shot for shot in SHOT_ORDER if shot in wanted]
        for subset in subsets:
            if setting.protocol != "clean" and not SUBSETS[subset].challenge:
                continue
            for shot in shots:
                missing = sorted(set(SEEDS) - have.get((setting.key, subset, shot), set()))
                if missing:
                    gaps.append({"setting": setting.key, "subset": subset, "shots": shot, "seeds": missing})
    return gaps, [key for key in SUBSETS if key not in subsets]
