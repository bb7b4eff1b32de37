"""The board as LaTeX: tables that compile, with the means and spreads of its results."""

from invented_runs import invent_run

from medfmc_hf.reporting.board import make_board
from medfmc_hf.reporting.latex import to_latex
from medfmc_hf.words import percent


def test_latex_is_a_booktabs_table_with_everything_escaped(nasty_board):
    text = to_latex(nasty_board)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    assert r"\textless" not in text and r"\_new|50\%\$\&\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and r"\multicolumn" not in line]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {4}
    assert r"\textbf{" in text and r"$\pm$" in text


def test_bold_is_the_highest_mean_of_one_protocol(tmp_path):
    """The official lists test other images: their mean is not better than that of the clean ones, it is of something else."""
    for protocol in ("clean", "official"):
        invent_run(tmp_path, subset="colon", shots=5, rows=40, patients=12, protocol=protocol)
    assert to_latex(make_board(tmp_path, intervals=False)).count(r"\textbf{") == 4


def test_every_mean_and_spread_stands_in_its_row(nasty_board):
    tables = to_latex(nasty_board).split(r"\end{table}")[:2]
    places = [(subset, shots) for subset in ("chest", "colon") for shots in ("1", "5")]
    for table, metrics in zip(tables, ({"chest": "map", "colon": "accuracy"}, {"chest": "auc", "colon": "auc"}), strict=True):
        rows = table.split("\\midrule\n")[1].split("\n\\bottomrule")[0].replace(r"\textbf{", "").splitlines()
        for adaptation, row in zip(nasty_board.adaptations, rows, strict=True):
            shown = [cell.replace("}", "").strip(" \\") for cell in row.split(" & ")[1:]]
            for place, words in zip(places, shown, strict=True):
                result = nasty_board.result(adaptation.key, *place)
                estimate = result and result.metrics[metrics[place[0]]]
                spread = "" if estimate is None or estimate.sd is None else rf" $\pm$ {percent(estimate.sd)}"
                assert words == ("--" if estimate is None else percent(estimate.mean) + spread)


def test_the_rules_under_the_heads_span_their_columns(nasty_board):
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-5}" in to_latex(nasty_board)


def test_a_board_of_failures_has_no_table(tmp_path):
    invent_run(tmp_path, subset="endo", status="failed")
    assert r"\begin{table}" not in to_latex(make_board(tmp_path))
