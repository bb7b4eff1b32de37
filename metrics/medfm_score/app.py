"""The metric's Space: paste references and scores to get the score."""

import csv
from pathlib import Path

import evaluate
import gradio

HERE = Path(__file__).parent
CONFIGURATIONS = ["default", "chest", "colon", "endo", "neojaundice", "retino"]
EXAMPLE = "0, 0.9, 0.1\n1, 0.2, 0.8\n1, 0.6, 0.4\n"
HELP = (
    "One row per image: its class index, then one score per class. Multi-label: the positive class indices separated by spaces "
    "(or nothing), then the scores."
)


def parse(text: str) -> tuple[list, list[list[float]]]:
    """The positive classes and the scores of the pasted rows."""
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    positives = [[int(index) for index in row[0].split()] for row in rows]
    scores = [[float(cell) for cell in row[1:]] for row in rows]
    return positives, scores


def compute(text: str, configuration: str, multilabel: bool, undefined: str, ties: str) -> dict:
    """The result of the metric, or what is wrong with the rows."""
    try:
        positives, scores = parse(text)
        if not multilabel and any(len(row) != 1 for row in positives):
            return {"error": "a single-label row has exactly one class; tick multi-label for rows with none or several"}
        references = positives if multilabel else [row[0] for row in positives]
        metric = evaluate.load(str(HERE), configuration)
        return metric.compute(predictions=scores, references=references, undefined=undefined, ties=ties)
    except ValueError as error:
        return {"error": str(error)}


def card() -> str:
    """The metric card without its front matter."""
    return (HERE / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]


def main() -> None:
    with gradio.Blocks(title="MedFM score") as page:
        gradio.Markdown("# MedFM score\n" + HELP)
        text = gradio.Textbox(EXAMPLE, lines=8, label="rows: references, scores")
        with gradio.Row():
            configuration = gradio.Dropdown(CONFIGURATIONS, value="default", label="subset")
            multilabel = gradio.Checkbox(label="multi-label")
            undefined = gradio.Dropdown(["skip", "official"], value="skip", label="undefined classes")
            ties = gradio.Dropdown(["sklearn", "official"], value="sklearn", label="ties in the AP")
        output = gradio.JSON(label="result")
        gradio.Button("Score").click(compute, [text, configuration, multilabel, undefined, ties], output)
        gradio.Markdown(card())
    page.launch()


if __name__ == "__main__":
    main()
