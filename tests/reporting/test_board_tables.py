"""The board as CSV and Markdown: every number once, and nothing that breaks out of its cell."""

import csv
import io
import re

import pytest
from invented_runs import invent_run, invent_runs

from medfmc_hf.reporting.board import make_board
from medfmc_hf.reporting.board_tables import to_csv, to_markdown

NASTY = "<b>_new|50%$&#{}~^\\"


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    invent_runs(root, methods=("linear", "lora"), subsets=("chest", "colon"), shots=(1, 5), seeds=(0, 1), rows=40, patients=12)
    invent_run(root, subset="colon", shots=5, method=NASTY, rows=40, patients=12)
    invent_run(root, subset="colon", shots=1, method="lora", seed=4, status="failed", error="a | b\nc <script>")
    return make_board(root)


def test_csv_says_every_number_once(board):
    rows = list(csv.DictReader(io.StringIO(to_csv(board))))
    runs = [row for row in rows if row["kind"] == "run"]
    assert len(runs) == 3 * len(board.cells)
    for row in runs:
        cell = next(c for c in board.cells if " ".join(c.runs) == row["runs"])
        estimate = cell.metrics[row["metric"]]
        assert float(row["mean"]) == pytest.approx(estimate.mean, abs=1e-6)
        assert (row["sd"] == "") == (estimate.sd is None)
        assert (row["subset"], row["shots"], int(row["number_of_seeds"])) == (cell.subset, cell.shots, estimate.seeds)
    assert any(row["method"] == NASTY for row in runs)
    published = [row for row in rows if row["kind"] == "published"]
    assert published and all(row["test_list"] and row["caveat"] for row in published)


def test_markdown_has_a_table_per_subset_and_says_what_is_missing(board):
    text = to_markdown(board)
    for words in ("## ChestDR", "## ColonPath", "## Missing from the grid", "## Failed runs", "No run of Endo, NeoJaundice, Retino", "±"):
        assert words in text
    assert "a \\| b c \\<script\\>" in text and "<script" not in text.replace("\\<", "")
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) <= 1, block  # a cell that breaks out would give its line another number of columns
