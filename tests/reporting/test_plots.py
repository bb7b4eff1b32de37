"""The figures: what is drawn is what the board holds."""

import pytest
from invented_runs import invent_run, invent_runs

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from medfmc_hf.reporting.board import make_board
from medfmc_hf.reporting.plots import COSTS, draw_cost, draw_curves, most_shots, page_figures, save_figures, style_of


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    invent_runs(root, methods=("linear", "lora"), subsets=("endo",), shots=(1, 5), seeds=(0, 1), rows=40, patients=12)
    invent_run(root, method="$vpt$", subset="endo", shots=5, rows=40, patients=12)
    return make_board(root, intervals=False)


def drawn(draw, *what):
    axes = Figure().subplots()
    draw(axes, *what)
    lines = {label: container for container, label in zip(*axes.get_legend_handles_labels())}
    return axes, lines


def test_curves_go_through_the_means_with_bars_of_one_standard_deviation(board):
    axes, lines = drawn(draw_curves, board, "endo", "map")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1-shot", "5-shot"]
    assert set(lines) == {"chance", *(adaptation.label.replace("$", r"\$") for adaptation in board.adaptations)}
    for adaptation in board.adaptations:
        line, _, (bars,) = lines[adaptation.label.replace("$", r"\$")]
        estimates = [result.metrics["map"] for shots in ("1", "5") if (result := board.result(adaptation.key, "endo", shots))]
        assert list(line.get_ydata()) == pytest.approx([100 * estimate.mean for estimate in estimates])
        heights = [segment[1][1] - segment[0][1] for segment in bars.get_segments() if len(segment)]
        assert heights == pytest.approx([2 * 100 * estimate.sd for estimate in estimates if estimate.sd is not None])
    chance = next(row for row in board.references if row["kind"] == "chance")
    level = next(value["value"] for value in chance["values"] if value["metric"] == "map")
    assert list(lines["chance"].get_ydata()) == pytest.approx([100 * level] * 2)


@pytest.mark.parametrize("cost", COSTS)
def test_costs_are_points_of_the_most_shots(board, cost):
    axes, lines = drawn(draw_cost, board, "endo", cost)
    assert "5-shot" in axes.get_title() and len(lines) == 3
    for adaptation in board.adaptations:
        result = board.result(adaptation.key, "endo", "5")
        (x,), (y,) = lines[adaptation.label.replace("$", r"\$")][0].get_data()
        assert (x, y) == (result.cost[cost], pytest.approx(100 * result.metrics["map"].mean))


def test_a_cost_of_nothing_has_its_place_on_the_axis(tmp_path, monkeypatch):
    monkeypatch.setattr("invented_runs.TRAINABLE", {"linear": 0, "lora": 100})
    invent_runs(tmp_path, methods=("linear", "lora"), subsets=("endo",), shots=(5,), seeds=(0,), rows=30)
    axes, _ = drawn(draw_cost, make_board(tmp_path, intervals=False), "endo", "trainable_parameters")
    low, high = axes.get_xlim()
    assert axes.get_xscale() == "symlog" and low < 0 and high == 200 and 0 in axes.get_xticks()


def test_no_two_rows_look_alike():
    assert len({style_of(index) for index in range(35)}) == 35
    assert len({style_of(index)[0] for index in range(7)}) == 7


def test_the_column_of_a_cost_plot(tmp_path, board):
    assert most_shots(board, "endo") == "5"
    invent_run(tmp_path, subset="endo", shots=None, rows=20)
    assert most_shots(make_board(tmp_path, intervals=False), "endo") == "pool"


def test_the_figures_of_the_page_follow_its_colours(board):
    figures = page_figures(board)
    assert [(curve["subset"], curve["metric"]) for curve in figures["curves"]] == [("endo", "map"), ("endo", "auc")]
    assert [figure["cost"] for figure in figures["cost"]] == list(COSTS)
    for figure in (*figures["curves"], *figures["cost"]):
        assert figure["svg"].startswith("<svg") and "currentColor" in figure["svg"] and "#010203" not in figure["svg"]
    assert [entry["adaptation"] for entry in figures["legend"]] == [adaptation.key for adaptation in board.adaptations]


def test_figures_for_papers_are_written(board, tmp_path):
    paths = save_figures(board, tmp_path)
    assert [path.name for path in paths] == ["curves.png", "curves.svg", "cost.png", "cost.svg"]
    assert all(path.read_bytes()[:4] in (b"\x89PNG", b"<?xm") for path in paths)


def test_a_board_of_failures_has_no_figures_for_papers(tmp_path):
    invent_run(tmp_path, subset="endo", status="failed")
    assert save_figures(make_board(tmp_path), tmp_path / "out") == []
