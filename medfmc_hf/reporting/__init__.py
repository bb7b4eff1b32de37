"""The report: runs as a board, tables, plots, one self-contained page, and a static Space.

    find_runs -> board -> tables (Markdown, CSV), latex, plots, page, space

Every file is a function of the run folders: the same runs give the same bytes.
"""

import os
from pathlib import Path

from ..files import write_json, write_text
from . import board_tables, latex, page, plots
from .board import Board, Roots, make_board


def write_report(roots: Roots, out: str | os.PathLike, *, intervals: bool = True, all_data: bool = False) -> tuple[Board, list[Path]]:
    """Write the report of some runs into a folder.

    Files: `board.html`, `board.md`, `board.csv`, `board.tex`, `board.json` (what a Space reads), `curves` and `cost` as `.png` and `.svg`.

    Args:
        roots: folders of runs.
        out: folder to write to; files of an earlier report are replaced.
        intervals: whether to work out test intervals and comparisons.
        all_data: show runs on invented or incomplete data, too.

    Returns:
        The `Board`, and the paths written.

    Raises:
        MedfmcError: there are no runs, or matplotlib is not installed.
    """
    plots.require_matplotlib()  # before the slow part, not after it
    board = make_board(roots, intervals=intervals, all_data=all_data)
    data = board.to_json() | {"figures": plots.page_figures(board)}
    out = Path(out)
    texts = {
        "board.html": page.to_html(data),
        "board.md": board_tables.to_markdown(board),
        "board.csv": board_tables.to_csv(board),
        "board.tex": latex.to_latex(board),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    write_json(out / "board.json", data)
    return board, [out / name for name in (*texts, "board.json")] + plots.save_figures(board, out)
