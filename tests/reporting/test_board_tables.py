"""The board as CSV and Markdown: every number once, and nothing that breaks out of its cell."""

import csv
import io
import re

import pytest
from invented_runs import NASTY, invent_run

from medfmc_hf.reporting.board import make_board
from medfmc_hf.reporting.board_tables import common_options, to_csv, to_markdown


def test_csv_says_every_number_once(nasty_board):
    rows = list(csv.DictReader(io.StringIO(to_csv(nasty_board))))
    runs = [row for row in rows if row["kind"] == "run"]
    assert len(runs) == 3 * len(nasty_board.results)
    for row in runs:
        result = next(c for c in nasty_board.results if " ".join(c.runs) == row["runs"])
        estimate = result.metrics[row["metric"]]
        assert float(row["mean"]) == pytest.approx(estimate.mean, abs=1e-6)
        assert (row["sd"] == "") == (estimate.sd is None)
        assert (row["subset"], row["shots"], int(row["number_of_seeds"])) == (result.subset, result.shots, estimate.seeds)
    assert any(row["method"] == NASTY for row in runs)
    published = [row for row in rows if row["kind"] == "published"]
    assert published and all(row["test_list"] and row["caveat"] for row in published)


def test_markdown_has_a_table_per_subset_and_says_what_is_missing(nasty_board):
    text = to_markdown(nasty_board)
    for words in ("## ChestDR", "## ColonPath", "## Missing from the grid", "## Failed runs", "No run of Endo, NeoJaundice, Retino", "±"):
        assert words in text
    assert "a \\| b c \\<script\\>" in text and "<script" not in text.replace("\\<", "")
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) <= 1, block  # a cell that breaks out would give its line another number of columns


def test_options_of_the_loop_are_said_to_be_shared_by_the_rows_that_read_them(tmp_path):
    for method in ("lora", "knn"):
        invent_run(tmp_path, subset="endo", method=method, rows=40)
    board = make_board([tmp_path])
    common = common_options(board)
    assert "epochs" in common and "epochs" not in next(row.config for row in board.adaptations if row.method == "knn")
    assert f"The same in every row that reads it: {common}." in to_markdown(board)
