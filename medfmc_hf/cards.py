"""The model card of a run: what was adapted to what, on which rows, how well, and how to do it again."""

from pathlib import Path

from .files import write_text
from .runs import RunRecord


def write_card(record: RunRecord, folder: str | Path) -> Path:
    """Write `README.md` with its model-index into the adapter's folder. Returns its path."""
    from huggingface_hub import EvalResult, ModelCardData

    config, subset = record.run_config, record.subset
    test = record.scores["test"]
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type="medfmc",
            dataset_name=f"MedFMC {subset.name}",
            dataset_config=record.data["config"],
            dataset_split="test",
            metric_type=key,
            metric_name=name,
            metric_value=test[key],
        )
        for key, name in ((subset.metric, "mAP" if subset.multilabel else "Accuracy"), ("auc", "AUC"))
        if test[key] == test[key]  # a NaN has no place in a model-index
    ]
    data = ModelCardData(
        base_model=config.model,
        library_name="peft",
        pipeline_tag="image-classification",
        tags=["medfmc", "medical", config.method, subset.key],
        model_name=f"{Path(config.model).name} {config.method} {record.data['config']}",
        eval_results=results,
    )
    path = Path(folder) / "README.md"
    write_text(path, f"---\n{data.to_yaml()}\n---\n\n{_body(record)}")
    return path


def _body(record: RunRecord) -> str:
    config, subset, test = record.run_config, record.subset, record.scores["test"]
    metric = "mAP" if subset.multilabel else "accuracy"
    per_class = "\n".join(
        f"| {name} | {row['positives']} | {_percent(row['auc'])} |" + (f" {_percent(row['ap'])} |" if subset.multilabel else "")
        for name, row in test["per_class"].items()
    )
    flags = f"--subset {config.subset} --shots {config.shots} --seed {config.seed} --method {config.method} --model {config.model}"
    return f"""\
# {Path(config.model).name} adapted to MedFMC {subset.name} ({subset.title}) by {config.method}

For research. Not a medical device, not for diagnosis.

| | test |
|---|---|
| {metric} | {_percent(test[subset.metric])} |
| AUC | {_percent(test["auc"])} |

Measured on {record.data["rows"]["test"]:,} pictures of {record.data["patients"]["test"]:,} {subset.group}s; numbers are percent.
Config `{record.data["config"]}`, trained on {record.data["rows"]["train"]} pictures of {record.data["patients"]["train"]} {subset.group}s.
Protocol {record.data["protocol"]}. Epochs are {"fixed" if config.select == "last" else "selected by the validation score"}.

| class | positives | AUC |{" AP |" if subset.multilabel else ""}
|---|---|---|{"---|" if subset.multilabel else ""}
{per_class}

{record.cost["trainable_parameters"]:,} of {record.cost["total_parameters"]:,} parameters were trained, in
{record.cost["seconds"]["total"]:.0f} s on {record.cost["device"]}.
Run `{record.id}` with {", ".join(f"{name} {version}" for name, version in record.versions.items())}.

To do it again: `accelerate launch recipes/peft_train.py {flags}`
"""


def _percent(fraction: float | None) -> str:
    return "undefined" if fraction is None or fraction != fraction else f"{100 * fraction:.2f}"
