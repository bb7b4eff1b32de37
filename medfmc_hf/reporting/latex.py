"""The board as LaTeX tables (booktabs)."""

from collections import defaultdict

from ..subsets import SUBSETS
from ..words import METRICS, MISSING, percent, shots_words
from .board import Board
from .results import Result

ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "·": r"$\cdot$", MISSING: "--", "±": r"$\pm$"}
ESCAPES |= {character: "\\" + character for character in "&%$#_{}"}


def to_latex(board: Board) -> str:
    r"""Two tables for a paper, of the main metrics and of AUC: mean ± standard deviation over seeds; the best mean of a column is bold."""
    parts = ["% needs \\usepackage{booktabs}"]
    if board.results:
        parts.append(_table(board, {key: SUBSETS[key].metric for key in board.subsets}, "main metric"))
        parts.append(_table(board, dict.fromkeys(board.subsets, "auc"), "AUC"))
    return "\n\n".join(parts) + "\n"


def _table(board: Board, metrics: dict[str, str], title: str) -> str:
    columns = [(key, shots) for key in metrics for shots in board.shots_of(key)]
    heads, rules, first = [], [], 2
    for key, metric in metrics.items():
        width = len(board.shots_of(key))
        heads.append(rf"\multicolumn{{{width}}}{{c}}{{{_tex(SUBSETS[key].name)} ({_tex(METRICS[metric])})}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
    best = _best(board, metrics)
    rows = []
    for adaptation in board.adaptations:
        results = [board.result(adaptation.key, *place) for place in columns]
        if any(results):
            rows.append([_tex(adaptation.label), *(_number(result, metrics, best) for result in results)])
    lines = [
        r"\begin{table}",
        r"\centering",
        r"\begin{tabular}{l" + "r" * len(columns) + "}",
        r"\toprule",
        _line(["", *heads]),
        "".join(rules),
        _line(["", *(_tex(shots_words(shots)) for _, shots in columns)]),
        r"\midrule",
        *map(_line, rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{MedFMC, {title} in percent: mean $\pm$ standard deviation over seeds of the support set.}}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _line(words: list[str]) -> str:
    return " & ".join(words) + r" \\"


def _best(board: Board, metrics: dict[str, str]) -> set[tuple[str, str, str]]:
    """Places of the highest means, among the rows of one protocol, kind of images and number of test images."""
    peers = {adaptation.key: (adaptation.protocol, adaptation.config.get("images")) for adaptation in board.adaptations}
    columns = defaultdict(list)
    for result in board.results:
        place = result.adaptation, result.subset, result.shots
        if (mean := result.metrics[metrics[result.subset]].mean) is not None:
            columns[result.subset, result.shots, peers[result.adaptation], result.test_rows].append((mean, place))
    return {place for means in columns.values() for mean, place in means if mean == max(means)[0]}


def _tex(text: object) -> str:
    return "".join(ESCAPES.get(character, character) for character in " ".join(str(text).split()))


def _number(result: Result | None, metrics: dict[str, str], best: set[tuple[str, str, str]]) -> str:
    if result is None or (estimate := result.metrics[metrics[result.subset]]).mean is None:
        return "--"
    mean = percent(estimate.mean)
    spread = "" if estimate.sd is None else rf" $\pm$ {percent(estimate.sd)}"
    return (rf"\textbf{{{mean}}}" if (result.adaptation, result.subset, result.shots) in best else mean) + spread
