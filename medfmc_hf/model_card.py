"""The model card of an experiment: what was adapted to what, on which rows, how well, at what cost, and how to do it again."""

import re
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .evaluation.experiments import Experiment, Run, one_experiment, short_name
from .evaluation.intervals import Estimate
from .evaluation.published import PUBLISHED, UNKNOWN
from .files import write_text
from .runs import Predictions, RunConfig, RunRecord
from .runs.flags import flags_of
from .runs.provenance import marks, unfit_marks
from .saved_models import backbone_id, library_of, lines_that_load, weights_of
from .subsets import CITATION
from .words import METRICS, interval, markdown_table, percent, plural

UNDEFINED = "undefined"

_LEAKS = {
    "clean": "No test image and no test {group} is in train or validation, and no support row is repeated. Validation is the rest of the "
    "pool; it may hold other images of a support {group}.",
    "official": "The challenge's lists as they are: support rows may repeat, most support images of chest and endo are in validation "
    "too, and test is `test_WithLabel`, another list than that of the clean protocol. No test image is in train.",
    "transfer": "The challenge's `train_20` and `val_20`. No test image and no test {group} is in either; for endo the two share most "
    "of their studies with each other.",
}
# Of the weights to the backbone, in the Hub's words.
_RELATIONS = {"peft": "adapter", "head": "adapter", "whole": "finetune", "plain": "finetune"}
_COLON = " Regions of the same scanned slide are on both sides, so the numbers are not independent of the slide."

_USE = """\
## Intended use

Research on few-shot adaptation of foundation models, and comparison on the MedFMC benchmark.

**Not for diagnosis.** It was adapted to few images of few hospitals, was not validated on patients, and its probabilities are not
calibrated. It is no medical device. Do not let its output touch the care of anybody.
"""


def write_card(record: RunRecord, folder: str | Path, test: Predictions | None = None) -> Path:
    """Write the card of one run, `README.md`, into its adapter's folder. Returns its path.

    Args:
        record: the run.
        folder: `adapter` in the run's folder; its weights are there already.
        test: the test rows, which the intervals are from.
    """
    path = Path(folder) / "README.md"
    write_text(path, model_card(one_experiment([Run(record, Path(folder).parent, test)])))
    return path


def model_card(experiment: Experiment, repo_id: str | None = None, dataset_id: str | None = None) -> str:
    """The whole README.md.

    Args:
        experiment: one run, or several seeds.
        repo_id: where it will be on the Hub; None for a card that stays on disk.
        dataset_id: the data set on the Hub; None where it is not there.
    """
    sections = [
        _what(experiment),
        lines_that_load(experiment, repo_id),
        _results(experiment),
        _published(experiment),
        _per_class(experiment),
    ]
    sections += [_data(experiment), _training(experiment), _cost(experiment), _USE, _again(experiment)]
    return f"---\n{_head(experiment, dataset_id)}\n---\n\n" + "\n".join(section for section in sections if section)


def title(experiment: Experiment) -> str:
    """One line that names the experiment."""
    config = experiment.config
    return f"{short_name(config.model)}, adapted by {config.method} to {experiment.name}"


def _marks_of(experiment: Experiment, of: Callable[[RunRecord], list[str]]) -> list[str]:
    return list(dict.fromkeys(words for run in experiment.runs for words in of(run.record)))


def _head(experiment: Experiment, dataset_id: str | None) -> str:
    """The YAML head: what the Hub's page, its search and its leaderboards read."""
    from huggingface_hub import EvalResult, ModelCardData

    config, subset = experiment.config, experiment.subset
    shots = {"shots": config.dataset_config.shots, "seeds": experiment.seeds}
    results = []
    for key in (subset.metric, "auc") if not _marks_of(experiment, unfit_marks) else ():  # a leaderboard cannot tell them from others
        mean = experiment.estimate(key).mean
        if mean is not None:  # a NaN has no place in a model-index
            results.append(
                EvalResult(
                    task_type="image-classification",
                    dataset_type=dataset_id or "medfmc",
                    dataset_name=f"MedFMC {subset.name}",
                    dataset_config=experiment.name,
                    dataset_split="test",
                    dataset_args=shots,
                    metric_type={"auc": "roc_auc", "map": "mean_average_precision"}.get(key, key),
                    metric_name=METRICS[key],
                    metric_value=round(mean, 6),
                )
            )
    weights, base = weights_of(experiment.first), backbone_id(experiment.record)
    data = ModelCardData(
        base_model=base,
        base_model_relation=_RELATIONS[weights] if base and weights else None,
        library_name=library_of(experiment.first) if weights else None,
        pipeline_tag="image-classification",
        datasets=[dataset_id] if dataset_id else None,
        tags=["medfmc", "medical", "few-shot", config.method, subset.key],
        model_name=title(experiment),
        eval_results=results or None,
    )
    return data.to_yaml()


def _what(experiment: Experiment) -> str:
    config, subset, record = experiment.config, experiment.subset, experiment.record
    base = backbone_id(experiment.record)
    backbone = f"[{base}](https://huggingface.co/{base})" if base else f"`{short_name(config.model)}`, a local folder"
    revision = next(filter(None, map(record.backbone.get, ("revision", "sha256", "fingerprint"))), "not recorded")
    options = ", ".join(f"{name} = {value}" for name, value in config.method_options.items())
    side = record.backbone.get("image_size")
    several = f" {experiment.seeds_words}, a subfolder each." if len(experiment.runs) > 1 else ""
    rows = [
        ("Backbone", backbone),
        ("Revision or content hash", f"`{revision}`"),
        (
            "Architecture",
            f"{record.backbone.get('architecture')}, {side} x {side} pixels",
        ),
        ("Method", f"{config.method}" + (f" ({options})" if options else "")),
        ("Task", f"MedFMC {subset.name}: {subset.title}; {subset.task}, {len(subset.classes)} classes"),
        ("Classes in order", ", ".join(subset.classes)),
    ]
    return (
        f"# {title(experiment)}\n\n"
        "**Research use only. Not a medical device, not for diagnosis.**\n\n"
        + _apart(experiment)
        + f"MedFMC {subset.name}, {subset.title}, from {_shots(config)}.{several}\n\n"
        + markdown_table(["", ""], rows)
    )


def _apart(experiment: Experiment) -> str:
    """What sets the images apart from the published ones."""
    words = _marks_of(experiment, marks)
    if not words:
        return ""
    unfit = bool(_marks_of(experiment, unfit_marks))
    means = "so its numbers say nothing of MedFMC" if unfit else "so its numbers are not comparable with those of full-size images"
    return f"**On images that are {' and '.join(words)}, {means}.**\n\n"


def _shots(config: RunConfig) -> str:
    shots = config.dataset_config.shots
    return f"{shots} {'patient' if shots == 1 else 'patients'} a class" if shots else "the whole pool"


def _results(experiment: Experiment) -> str:
    subset, test = experiment.subset, experiment.record.data
    several = len(experiment.seeds) > 1
    found = {key: experiment.estimate(key) for key in (subset.metric, "auc", "score")}
    trained_again = any(each.training_sd is not None for each in found.values())
    split_known = any(each.split_sd is not None for each in found.values())
    rows = []
    for key, each in found.items():
        row = [METRICS[key], percent(each.mean, UNDEFINED), interval(each.test_interval, missing="")]
        if several:
            row += [percent(each.sd, UNDEFINED), interval(each.seed_interval, missing="")]
            row += [" ".join(percent(value, UNDEFINED) for value in each.values)]
        row += [percent(each.split_sd, UNDEFINED)] * split_known + [percent(each.training_sd, UNDEFINED)] * trained_again
        rows.append(row)
    header = ["", "test", "95 % interval over patients"]
    header += [
        "spread over split seeds (sd)",
        "95 % interval over split seeds (t)",
        f"each split seed ({', '.join(map(str, experiment.seeds))})",
    ] * several
    header += ["sd of splits"] * split_known + ["sd of training seeds"] * trained_again
    words = (
        f"Percent, on {test['rows']['test']:,} test images of {test['patients']['test']:,} {plural(subset.group)}. Score is the mean of "
        "the two above, which is what the MedFM challenge averages. The interval over patients leaves out each patient of the test set in "
        "turn (jackknife), on the scale of the log odds and with the bias taken off; "
    )
    if several:
        words += "it is of the mean over the seeds, and the spread over seeds is another uncertainty."
    else:
        words += "it is of the mean over the training seeds, and " if trained_again else "it "
        words += "says nothing about other support sets."
    if len(experiment.runs) > 1 and (unknown := [run.seed_words for run in experiment.runs if run.no_jackknife]):
        words += f" The interval over patients is not known: the predictions of {'; '.join(unknown)} were not at hand"
        words += " when this card was written, or are not those of the record."
    if undefined := experiment.record.scores["test"].get("undefined"):
        words += f" Without positives or without negatives, and so left out of the means: {', '.join(undefined)}."
    return "## Results\n\n" + markdown_table(header, rows) + "\n" + _paragraph(words)


def _published(experiment: Experiment) -> str:
    """What others published for the same subset and shots, labelled with their test list."""
    subset = experiment.subset
    tested = experiment.record.data["rows"]["test"]
    rows = []
    for reference in PUBLISHED:
        values = [reference.values.get((subset.key, experiment.shots, key)) for key in (subset.metric, "auc")]
        if any(value is not None for value in values):
            images = reference.test_rows(subset.key)
            listed = "not stated" if reference.test_list == UNKNOWN else f"{reference.test_list}, {images:,}"
            same = {None: "unknown", tested: "yes"}.get(images, "no")
            numbers = ["" if value is None else f"{value:.2f}" for value in values]
            rows.append([f"{reference.source}: {reference.method}, {reference.model}", *numbers, listed, same])
    if not rows:
        return ""
    ours = [f"**this {'experiment' if len(experiment.runs) > 1 else 'run'}**"]
    ours += [f"**{percent(experiment.estimate(key).mean, UNDEFINED)}**" for key in (subset.metric, "auc")]
    rows.insert(0, [*ours, f"{tested:,} images", ""])
    return (
        "## Next to published numbers\n\n"
        + markdown_table(["", METRICS[subset.metric], "AUC", "test list, images", "as many test images as here"], rows)
        + "\n"
        + _paragraph(
            "As printed by their authors, on their test lists. mAP depends on how frequent the classes are, so values of different lists "
            "are not comparable."
        )
    )


def _per_class(experiment: Experiment) -> str:
    subset = experiment.subset
    own, name = ("ap", "AP") if subset.multilabel else ("recall", "recall")
    rows = []
    for label in subset.classes:
        counts = experiment.record.scores["test"]["per_class"][label]
        row = [label, f"{counts['positives']:,}", _with_interval(experiment.estimate("auc", label))]
        rows.append([*row, _with_interval(experiment.estimate(own, label))])
    words = "Percent, with 95 % intervals over patients." + (" Means over the seeds." if len(experiment.seeds) > 1 else "")
    return "### Per class\n\n" + markdown_table(["class", "positives in test", "AUC", name], rows) + "\n" + _paragraph(words)


def _data(experiment: Experiment) -> str:
    record, config, subset = experiment.record, experiment.config, experiment.subset
    rows = [
        [split, *(_range([run.record.data[kind].get(split, 0) for run in experiment.runs]) for kind in ("rows", "patients"))]
        for split in record.data["rows"]
    ]
    leak = _LEAKS[config.protocol].format(group=subset.group) + (_COLON if subset.key == "colon" else "")
    if config.select == "last":
        leak += " Epochs are fixed, so validation did not take part."
    else:
        leak += " The epoch was chosen by the validation score"
        leak += ", so support images took part in the choice." if config.protocol == "official" else "."
    fingerprints = ", ".join(f"`{run.record.data['fingerprint'][:16]}`" for run in experiment.runs)
    configs = ", ".join(f"`{run.record.data['config']}`" for run in experiment.runs)
    notes = "".join(f"\nOf the build: {note}.\n" for note in record.data.get("notes", []))
    return f"""\
## Data

Dataset {"configs" if len(experiment.runs) > 1 else "config"} {configs} of `medfmc`; protocol {record.data["protocol"]}.

{markdown_table(["split", "images", plural(subset.group)], rows)}
{_paragraph(leak)}{notes}
Hash of rows and images: {fingerprints}.
"""


def _training(experiment: Experiment) -> str:
    config = experiment.config
    if not experiment.record.history:
        return ""
    names = (
        "epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "schedule", "warmup_epochs", "gradient_clip",
        "augmentation", "loss", "sampling", "select", "dtype", "compile", "recipe", "training_seed",
    )  # fmt: skip
    rows = [[name.replace("_", " "), f"{getattr(config, name)}"] for name in names if getattr(config, name) is not None]
    return "## Training\n\n" + markdown_table(["option", "value"], rows) + "\nMeanings: `python recipes/peft_train.py --help`.\n"


def _cost(experiment: Experiment) -> str:
    costs = [run.record.cost for run in experiment.runs]
    first = costs[0]
    trained, total = experiment.record.trained_parameters, first["total_parameters"]
    share = f"{trained:,} of {total:,} ({100 * trained / total:.2f} %)" if trained is not None else f"not recorded, of {total:,}"
    peaks = [cost["peak_memory_bytes"] for cost in costs if cost.get("peak_memory_bytes")]
    seconds = [cost["seconds"]["total"] for cost in costs]
    own = [round(run.record.own_seconds or 0) for run in experiment.runs]
    each = ", each run" if len(costs) > 1 else ""
    rows = [
        ["trained parameters", share],
        ["saved weights", _size(max(cost["adapter_bytes"] for cost in costs))],
        ["peak memory", f"{max(peaks) / 1e9:.2f} GB" if peaks else "not measured"],
        [f"time{each}", f"{_range([round(second) for second in seconds])} s, without what other runs share {_range(own)} s"],
        ["device", first["device"] + (f", {first['processes']} processes" if first.get("processes", 1) > 1 else "")],
    ]
    return "## Cost\n\n" + markdown_table(["", ""], rows)


def _size(number: int) -> str:
    return f"{number / 1e6:.2f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"


def _again(experiment: Experiment) -> str:
    configs = [replace(run.config, revision=run.record.backbone.get("revision")) for run in experiment.runs]  # a branch may move
    commands = ["accelerate launch recipes/peft_train.py " + flags_of(config) for config in configs]
    if len(experiment.seeds) == len(experiment.runs) > 1 and not any(run.again for run in experiment.runs):
        command = re.sub(r"--seed \d+", "--seed $seed", commands[0])
        commands = [f"for seed in {' '.join(map(str, experiment.seeds))}; do {command}; done"]
    versions = ", ".join(f"{name} {version}" for name, version in experiment.record.versions.items())
    runs = ", ".join(f"`{run.record.id}`" for run in experiment.runs)
    where = (
        f"In a clone of medfmc_hf {experiment.record.versions.get('medfmc_hf', '')}, beside a `medfmc` folder made by `medfmc build`. "
        f"Finished {experiment.runs[-1].record.finished_at} as {runs}, with {versions}."
    )
    return f"""\
## Do it again

```bash
{chr(10).join(commands)}
```

{_paragraph(where)}
## Citation

```bibtex
{CITATION}```
"""


def _with_interval(found: Estimate) -> str:
    ends = interval(found.test_interval, missing="")
    return percent(found.mean, UNDEFINED) + (f" ({ends})" if ends else "")


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 130, break_long_words=False, break_on_hyphens=False) + "\n"
