"""The board as Markdown and CSV."""

import csv
import io
import json
import re
from collections.abc import Iterator

from ..evaluation.intervals import Estimate
from ..subsets import SUBSETS
from ..words import METRICS, MISSING, count, interval, markdown_table, percent, plural, seconds, seed_kind, seeds_words, shots_words
from .board import Board
from .results import Result

READING = (
    "Numbers are percent: mean over seeds ± standard deviation over seeds. *seeds* is the 95 % interval of the mean over other support "
    "sets, which split seeds draw (Student's t over the seeds); in a column of one support set (whole pool, train_20) seeds are training "
    "seeds, and there is none. *test* is the 95 % interval of the mean over other test patients, with the trained models as they "
    "are (jackknife over patients; on invented test sets such intervals held the true value in 92.8 to 97.5 % of 400 draws, "
    "benchmarks/intervals.py). They answer different questions and are not added up. Where a split was trained several times, the "
    "spread is divided into that of splits and that of training seeds. Seconds are those of a run's own training and testing, without "
    "loading, decoding and cached features, which runs of a process share."
)
CSV_COLUMNS = (
    "kind", "source", "label", "method", "backbone", "protocol", "options", "subset", "shots", "metric", "mean", "sd", "split_sd",
    "training_sd", "number_of_seeds", "number_of_runs", "seed_low", "seed_high", "test_low", "test_high", "seeds",
    "test_list", "test_rows", "test_patients", "trainable_parameters",
    "adapter_bytes", "peak_memory_bytes", "seconds", "devices", "caveat", "runs", "training_seeds", "own_seconds",
)  # fmt: skip


_COSTS = ("trainable_parameters", "adapter_bytes", "peak_memory_bytes", "seconds", "own_seconds")


def to_csv(board: Board) -> str:
    """One line for each adaptation, subset, shots and metric, and for each published number.

    Scores are fractions, sizes bytes, times seconds: `seconds` from start to scores, and `own_seconds` of them without what runs of a
    process share (loading, decoding, cached features).
    """
    adaptations = {adaptation.key: adaptation for adaptation in board.adaptations}
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for result in board.results:
        own = adaptations[result.adaptation]
        common = {
            "kind": "run", "source": "this report", "label": own.label, "method": own.method, "backbone": own.backbone,
            "protocol": own.protocol, "options": json.dumps(own.differs, sort_keys=True), "subset": result.subset,
            "shots": result.shots, "seeds": " ".join(map(str, result.seeds)),
            "training_seeds": " ".join(map(str, result.training_seeds)), "test_rows": result.test_rows,
            "test_patients": result.test_patients, "runs": " ".join(result.runs), "devices": "; ".join(result.cost["devices"]),
            **{name: _number(result.cost[name]) for name in _COSTS},
        }  # fmt: skip
        for metric, e in result.metrics.items():
            seed, test = e.seed_interval or (None, None), e.test_interval or (None, None)
            numbers = {"mean": e.mean, "sd": e.sd, "split_sd": e.split_sd, "training_sd": e.training_sd}
            numbers |= {"seed_low": seed[0], "seed_high": seed[1], "test_low": test[0], "test_high": test[1]}
            writer.writerow(
                common
                | {"metric": metric, "number_of_seeds": e.seeds, "number_of_runs": e.runs}
                | {k: "" if v is None else f"{v:.6f}" for k, v in numbers.items()}
            )
    for reference in board.references:
        for value in reference["values"]:
            subset = value["subset"]
            writer.writerow(
                {"kind": reference["kind"], "source": f"{reference['source']}: {reference['where']}", "label": reference["label"],
                 "subset": subset, "shots": value["shots"], "metric": value["metric"], "mean": f"{value['value']:.6f}",
                 "test_list": reference["test_list"], "test_rows": reference["test_rows"].get(subset),
                 "caveat": reference["caveats"].get(subset, "")}
            )  # fmt: skip
    return out.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


def to_markdown(board: Board) -> str:
    """The board for a README or an issue: a table for each subset, then references, gaps, failures and notes."""
    label = {adaptation.key: _md(adaptation.label) for adaptation in board.adaptations}
    lines = ["# MedFMC results", "", f"{board.counts['finished']} finished and {board.counts['failed']} failed runs. {READING}", ""]
    if common := common_options(board):
        lines += [f"The same in every row that reads it: {_md(common)}.", ""]
    for key in board.subsets:
        subset, header = SUBSETS[key], [*map(shots_words, board.shots_of(key)), "trained", "seconds"]
        lines += [f"## {subset.name}: {subset.title}", ""]
        for metric in (subset.metric, "auc"):
            rows = [*_adaptation_rows(board, label, key, metric), *_reference_rows(board, key, metric)]
            lines.append(markdown_table([METRICS[metric], *header], rows))
    lines += _reference_lines(board)
    lines += _gap_lines(board, label)
    if board.failed:
        rows = [
            [f"`{f['id']}`", label[f["adaptation"]], f"{f['subset']} {shots_words(f['shots'])}, {f['seed_words']}", _md(f["error"])]
            for f in board.failed
        ]
        lines += ["## Failed runs", "", markdown_table(["run", "row", "data", "error"], rows)]
    if board.notes:
        lines += ["## What this report cannot show", "", *(f"- {_md(note)}" for note in board.notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def _adaptation_rows(board: Board, label: dict[str, str], subset: str, metric: str) -> Iterator[list[str]]:
    for adaptation in board.adaptations:
        results = [board.result(adaptation.key, subset, shots) for shots in board.shots_of(subset)]
        known = [result for result in results if result]
        if known:
            trained = dict.fromkeys(count(result.cost["trainable_parameters"]) for result in known)
            times = [seconds(result.cost["own_seconds"]) for result in known]
            yield [label[adaptation.key], *(_md_cell(result, metric) for result in results), " / ".join(trained), " / ".join(times)]


def _reference_rows(board: Board, subset: str, metric: str) -> Iterator[list[str]]:
    shots = board.shots_of(subset)
    for reference in board.references:
        values = {v["shots"]: v["value"] for v in reference["values"] if (v["subset"], v["metric"]) == (subset, metric)}
        if any(shot in values for shot in shots):
            mark = "" if reference["comparable"].get(subset) else " †"
            source = "" if reference["kind"] == "chance" else f" ({_md(reference['source'])}){mark}"
            yield [f"*{_md(reference['label'])}*{source}", *(percent(values.get(shot)) for shot in shots), "", ""]


def _md(text: object) -> str:
    """Text that Markdown and the HTML in it leave alone."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def _md_cell(result: Result | None, metric: str) -> str:
    if result is None:
        return MISSING
    estimate = result.metrics[metric]
    words = [seeds_words(result.shots, estimate.seeds, estimate.runs)]
    words += [f"seeds {interval(estimate.seed_interval)}"] if estimate.seed_interval else []
    if estimate.training_sd is not None:
        splits = "" if estimate.split_sd is None else f"splits ± {percent(estimate.split_sd)}, "
        words.append(f"{splits}training ± {percent(estimate.training_sd)}")
    words += [f"test {interval(estimate.test_interval)}"] if estimate.test_interval else []
    return f"{mean_and_spread(estimate)} <br>{'<br>'.join(words)}"


def mean_and_spread(estimate: Estimate) -> str:
    """`63.21 ± 4.10`; one seed has no spread."""
    return percent(estimate.mean) + ("" if estimate.sd is None else f" ± {percent(estimate.sd)}")


def _reference_lines(board: Board) -> list[str]:
    published = [reference for reference in board.references if reference["kind"] == "published"]
    if not published:
        return []
    lines = ["## Published numbers", "", "† other or unstated test list: not comparable, or not known to be.", ""]
    seen = dict.fromkeys((r["source"], r["where"], r["test_list"], r["caveat"]) for r in published)
    lines += [f"- {_md(source)} ({_md(where)}). Test list: {_md(tested)}. {_md(words)}" for source, where, tested, words in seen]
    return [*lines, ""]


def _gap_lines(board: Board, label: dict[str, str]) -> list[str]:
    if not board.gaps and not board.absent:
        return []
    lines = ["## Missing from the grid", ""]
    if board.absent:
        lines += [f"No run of {', '.join(SUBSETS[key].name for key in board.absent)}.", ""]
    for gap in board.gaps:
        seeds = f"{plural(seed_kind(gap['shots']), len(gap['seeds']))} {', '.join(map(str, gap['seeds']))}"
        lines.append(f"- {label[gap['adaptation']]}: {gap['subset']} {shots_words(gap['shots'])}, {seeds}")
    return [*lines, ""]


def common_options(board: Board) -> str:
    """The options that are the same in every row that reads them, in words.

    Left out are unset ones, and method and backbone, which name the rows.
    """
    if not board.adaptations:
        return ""
    told = {"method", "model", "revision", "method_options"}.union(*(adaptation.differs for adaptation in board.adaptations))
    options = {name: value for adaptation in board.adaptations for name, value in adaptation.config.items()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in options.items() if name not in told and value is not None)
