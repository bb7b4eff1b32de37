"""The figures of the report, by matplotlib: score against shots and score against cost, for papers and for the page."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import MedfmcError
from ..evaluation.experiments import SHOT_ORDER
from ..evaluation.intervals import Estimate
from ..files import atomic_path
from ..subsets import SUBSETS
from ..words import METRICS, count, shots_words
from .board import Board

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow and black, which vanish on white and on dark pages.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#808080")
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼"}
INK = "#010203"  # what the page replaces by its own text colour
COSTS = {"trainable_parameters": "trained parameters", "own_seconds": "seconds a run, without shared work"}
STYLE = {
    "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.2,
    "axes.titlesize": 10, "svg.fonttype": "none", "svg.hashsalt": "medfmc_hf", "legend.frameon": False,
}  # fmt: skip
PAGE_STYLE = STYLE | {f"{part}.color": INK for part in ("text", "xtick", "ytick", "grid")} | {"axes.edgecolor": INK, "axes.labelcolor": INK}


def style_of(index: int) -> tuple[str, str]:
    """Colour and marker of the n-th adaptation; the marker changes where the colours run out, and on the way, so that neither is alone."""
    markers = list(MARKERS)
    return COLOURS[index % len(COLOURS)], markers[(index + index // len(COLOURS)) % len(markers)]


def require_matplotlib() -> ModuleType:
    """`matplotlib`, with its `figure`.

    Raises:
        MedfmcError: it is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError:
        raise MedfmcError('plots need matplotlib, which is not installed; run: pip install "medfmc_hf[report]"') from None
    return matplotlib


def draw_curves(axes: "Axes", board: Board, subset: str, metric: str) -> None:
    """Score against shots: a line for each adaptation, its bars the standard deviation over seeds."""
    shots = board.shots_of(subset)
    for index, adaptation in enumerate(board.adaptations):
        results = {place: found for place, shot in enumerate(shots) if (found := board.result(adaptation.key, subset, shot))}
        estimates = {place: found.metrics[metric] for place, found in results.items()}
        points = [(place, 100 * each.mean, _bar(each)) for place, each in estimates.items() if each.mean is not None]
        if not points:
            continue
        places, means, bars = zip(*points)
        colour, marker = style_of(index)
        dodge = (index - (len(board.adaptations) - 1) / 2) * 0.3 / max(len(board.adaptations), 4)
        axes.errorbar(
            [place + dodge for place in places], means, bars,
            label=_plain(adaptation.label), color=colour, marker=marker, markersize=5, linewidth=1.4, elinewidth=0.9, capsize=2,
        )  # fmt: skip
    values = [value for row in board.references if row["kind"] == "chance" for value in row["values"]]
    chance = next((value["value"] for value in values if (value["subset"], value["metric"]) == (subset, metric)), None)
    if chance is not None:
        axes.axhline(100 * chance, linestyle=":", linewidth=1, color="#808080", label="chance")
    axes.set_xticks(range(len(shots)), [shots_words(shot) for shot in shots])
    axes.set_xlim(-0.4, len(shots) - 0.6)
    axes.set_ylabel(f"{METRICS[metric]} (%)")
    axes.set_title(SUBSETS[subset].name)


def most_shots(board: Board, subset: str) -> str:
    """The column a cost plot is of: the most shots that any few-shot adaptation has, else the last column."""
    shots = board.shots_of(subset)
    few = [shot for shot in shots if shot in SHOT_ORDER[:3]]
    return (few or shots)[-1]


def draw_cost(axes: "Axes", board: Board, subset: str, cost: str) -> None:
    """Main metric against one cost: a point for each adaptation, its bar the standard deviation over seeds."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    shots, metric = most_shots(board, subset), SUBSETS[subset].metric
    values: list[float] = []
    for index, adaptation in enumerate(board.adaptations):
        result = board.result(adaptation.key, subset, shots)
        if result is None or (mean := result.metrics[metric].mean) is None or result.cost[cost] is None:
            continue
        colour, marker = style_of(index)
        values.append(result.cost[cost])
        axes.errorbar(
            [result.cost[cost]], [100 * mean], [_bar(result.metrics[metric])],
            label=_plain(adaptation.label), color=colour, marker=marker, markersize=6, linestyle="none", elinewidth=0.9, capsize=2,
        )  # fmt: skip
    positive = [value for value in values if value > 0]
    if positive:
        least, most = min(positive), max(positive)
        if len(positive) == len(values):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1,) if most > 50 * least else (1, 2, 5)))
            axes.set_xlim(least / 2, 2 * most)
        else:
            axes.set_xscale("symlog", linthresh=least)  # whose own locator, unlike the other, leaves 0 on the axis
            axes.set_xlim(-least / 4, 2 * most)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.set_xlabel(COSTS[cost])
    axes.set_ylabel(f"{METRICS[metric]} (%)")
    axes.set_title(f"{SUBSETS[subset].name}, {shots_words(shots)}")


def _bar(estimate: Estimate) -> float:
    """Half the length of an error bar; NaN draws none, for one seed has no spread."""
    return float("nan") if estimate.sd is None else 100 * estimate.sd


def _plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def page_figures(board: Board) -> dict[str, list[dict[str, str]]]:
    """Small single figures for the page.

    Returns:
        `curves` and `cost`: for each figure its `subset`, `metric` or `cost`, `title` (what it shows, in words) and `svg`, whose ink
        follows the page's light or dark colours; and `legend`: for each adaptation `adaptation`, `colour` and `mark`.
    """
    matplotlib = require_matplotlib()

    def svg(draw: Callable, *what: str) -> str:
        with matplotlib.rc_context(PAGE_STYLE):
            figure = matplotlib.figure.Figure(figsize=(3.6, 2.7))
            figure.subplots_adjust(left=0.15, right=0.97, top=0.91, bottom=0.17)  # a layout engine would draw everything twice
            draw(figure.subplots(), board, *what)
            out = io.StringIO()
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = out.getvalue()
        text = text[text.index("<svg") :].replace(INK, "currentColor")
        adapt = "<style>svg{color:#1b1f24;font-family:system-ui,sans-serif}@media (prefers-color-scheme:dark){svg{color:#e4e7eb}}</style>"
        head, body = text.split(">", 1)
        return f"{head}>{adapt}{body}"

    curves, costs = [], []
    for subset in board.subsets:
        name = SUBSETS[subset].name
        for metric in (SUBSETS[subset].metric, "auc"):
            title = f"{METRICS[metric]} of every row on {name} against the number of shots; bars are the standard deviation over seeds"
            curves.append({"subset": subset, "metric": metric, "title": title, "svg": svg(draw_curves, subset, metric)})
        for cost, words in COSTS.items():
            title = f"{METRICS[SUBSETS[subset].metric]} of every row on {name}, {shots_words(most_shots(board, subset))}, against {words}"
            costs.append({"subset": subset, "cost": cost, "title": title, "svg": svg(draw_cost, subset, cost)})
    styles = [(adaptation.key, *style_of(index)) for index, adaptation in enumerate(board.adaptations)]
    return {"curves": curves, "cost": costs, "legend": [{"adaptation": key, "colour": c, "mark": MARKERS[m]} for key, c, m in styles]}


def save_figures(board: Board, folder: str | os.PathLike) -> list[Path]:
    """Write `curves` and `cost` for papers, as PNG (300 dpi) and SVG. Returns the paths."""
    matplotlib = require_matplotlib()
    subsets = board.subsets
    if not subsets:
        return []
    width = 3.2 * len(subsets)
    figures: dict[str, tuple[Callable[..., None], list[dict[str, str]]]] = {
        "curves": (draw_curves, [{key: SUBSETS[key].metric for key in subsets}, dict.fromkeys(subsets, "auc")]),
        "cost": (draw_cost, [dict.fromkeys(subsets, cost) for cost in COSTS]),
    }
    paths = []
    for name, (draw, lines) in figures.items():
        with matplotlib.rc_context(STYLE):
            figure = matplotlib.figure.Figure(figsize=(width, 5.6), layout="constrained")
            panels = figure.subplots(len(lines), len(subsets), squeeze=False)
            for row, line in zip(panels, lines):
                for axes, (subset, what) in zip(row, line.items()):
                    draw(axes, board, subset, what)
            entries = {label: handle for axes in panels.flat for handle, label in zip(*axes.get_legend_handles_labels())}
            widest = max((0.5 + 0.068 * len(label) for label in entries), default=width)  # inches, at nine points
            figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=max(1, int(width / widest)))
            for ending in ("png", "svg"):
                path = Path(folder) / f"{name}.{ending}"
                with atomic_path(path) as temporary:
                    metadata = {"Date": None, "Creator": None} if ending == "svg" else {"Software": None}
                    figure.savefig(temporary, format=ending, dpi=300, metadata=metadata, bbox_inches="tight")
                paths.append(path)
    return paths
