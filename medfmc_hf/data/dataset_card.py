"""Writes a build's README.md: the YAML head that `load_dataset` and the Hub read, and the dataset card below it."""

import re

import yaml
from datasets import DatasetInfo, SplitDict, SplitInfo
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData

from ..subsets import CITATION, SUBSETS, ConfigName
from ..words import first_few
from .audit import ConfigAudit, Report, remarks_of
from .parquet import features_of

_HEAD = """\
license: other
license_name: medfmc-releases
license_link: https://doi.org/10.1038/s41597-023-02460-0
pretty_name: MedFMC
task_categories:
- image-classification
tags:
- medical
- few-shot
"""


def dataset_card(manifest: dict, report: Report, absent: dict[str, str], repo_id: str | None = None, earlier: str = "") -> str:
    """The whole README.md of a build.

    Args:
        manifest: what is in the build, as `medfmc_build.json` has it.
        report: the audit of its configs.
        absent: subsets that are not in it, and why.
        repo_id: where it will be on the Hub; None for a folder.
        earlier: the card that is there, whose audit of the subsets that `report` does not cover stays.
    """
    parts = [_WHAT + (_FOLDER if repo_id is None else _HUB), _source(manifest, absent), _subsets(manifest), _CONFIGS, _COLUMNS]
    parts += [_origin(manifest), _audit(manifest, report, earlier), _LICENCE, f"## Citation\n\n```bibtex\n{CITATION}```\n"]
    example = example_config(manifest)
    text = "\n".join(parts).replace("EXAMPLE", example).replace("SUBSET", ConfigName.parse(example).subset)
    if repo_id is not None:
        text = text.replace("REPO", repo_id).replace("ORGANISATION", repo_id.split("/")[0])
    return f"---\n{_HEAD}{_tasks_yaml(manifest)}{_configs_yaml(manifest)}---\n\n{text}"


def _tasks_yaml(manifest: dict) -> str:
    """What the Hub's search and its Croissant metadata say of the data: tasks and size."""
    tasks = {SUBSETS[key].task.replace("single-label", "multi-class") for key in manifest["subsets"]}
    images = sum(entry["images"] for entry in manifest["subsets"].values())
    size = next(name for most, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (float("inf"), "10K<n<100K")) if images < most)
    lines = ["task_ids:", *(f"- {task}-image-classification" for task in sorted(tasks)), "size_categories:", f"- {size}"]
    return "\n".join([*lines, "annotations_creators:", "- expert-generated", "source_datasets:", "- original"]) + "\n"


def example_config(manifest: dict) -> str:
    """A config of the build to show to a newcomer: endo with five shots where there is one."""
    names = list(manifest["configs"])
    few_shot = [name for name in names if "-5shot-seed0" in name]
    return "endo-5shot-seed0" if "endo-5shot-seed0" in names else (few_shot or names)[0]


def _configs_yaml(manifest: dict) -> str:
    """`configs:` (which files) and `dataset_info:` (which columns and how many rows), in the form `datasets` itself writes.

    The columns of a subset are one object, so YAML has them once and refers to them: `load_dataset` reads all of this each time.
    """
    infos, configs = [], []
    columns = {key: _info_yaml(key, DatasetInfo(features=features_of(SUBSETS[key])))["features"] for key in manifest["subsets"]}
    for name, splits in manifest["configs"].items():
        info = DatasetInfo(
            splits=SplitDict({split: SplitInfo(split, part["bytes"], part["rows"]) for split, part in splits.items()}),
            download_size=sum(part["bytes"] for part in splits.values()),
            dataset_size=sum(part["bytes"] for part in splits.values()),
        )
        infos.append({"config_name": name, "features": columns[ConfigName.parse(name).subset]} | _info_yaml(name, info))
        files = [{"split": split, "path": part["files"][0] if len(part["files"]) == 1 else part["files"]} for split, part in splits.items()]
        configs.append({"config_name": name, "data_files": files})
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump({"configs": configs, "dataset_info": infos}, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1000)


def _info_yaml(name: str, info: DatasetInfo) -> dict:
    """What `datasets` writes of a config into a card."""
    card = DatasetCardData()
    DatasetInfosDict({name: info}).to_dataset_card_data(card)
    return card["dataset_info"]


_WHAT = """\
# MedFMC

Five sets of medical images for adapting foundation models with few labels: chest X-rays (ChestDR), pathology patches
(ColonPath), colonoscopy (Endo), skin photographs of newborns (NeoJaundice) and fundus photographs (Retino). Paper: Wang et al.,
*A real-world dataset and benchmark for foundation model adaptation in medical image classification*, Scientific Data 10:574
(2023), [doi 10.1038/s41597-023-02460-0](https://doi.org/10.1038/s41597-023-02460-0).
"""

_FOLDER = """
```python
from datasets import load_dataset

splits = load_dataset("medfmc", "EXAMPLE")  # this folder, seen from its parent; a path or a Hub id works too
```
"""

_HUB = """
```python
from datasets import load_dataset

splits = load_dataset("REPO", "EXAMPLE")  # train, validation, test
rows = load_dataset("REPO", "EXAMPLE", split="test", streaming=True)  # without downloading all of it first
```

Score predictions with `evaluate.load("ORGANISATION/medfm_score", "SUBSET")`, where that Space is published. `eval.yaml` names a
task for each subset, number of shots and protocol; its value is the mean of the main metric (accuracy or mAP) and AUC, in
percent, averaged over the seeds.
"""

_CONFIGS = """\
## Configs

| config | train | validation | test |
|---|---|---|---|
| `endo` | the pool | | every other published image |
| `endo-5shot-seed0` | the support set, each image once | the pool without the support | as above |
| `endo-5shot-seed0-official` | the challenge's list, repeats included | its list, support images included | `test_WithLabel` |
| `endo-transfer` | `train_20` | `val_20` | as `endo` |
| `endo-challenge` | | the validation phase, in submission order | the private test, unlabelled, where its images were there |

1, 5 and 10 shots, seeds 0 to 4; seed s is the challenge's exp{s+1}. A shot is a patient, not an image. NeoJaundice and Retino
were not in the challenge and have only the first two kinds. Rows of the first two kinds are sorted by name; the others are in
the order of their lists.
"""

_COLUMNS = """\
## Columns

- `image`.
- `label`, a class; for `chest` and `endo` it is `labels`, the positive classes, empty for an image without a finding. Where the
  label is not public: -1, or null for `labels`.
- `image_id`: the file name without its extension.
- `image_sha256`: of the image's file, taken when this data set was built.
- `patient_id`: for `endo` the study, for `colon` the region of a slide, for `neojaundice` the infant.
- `colon` only: `scan_id`, the scanned slide that several regions are cut from.
- `neojaundice` only: `gender`, `gestational_age` (weeks), `age` (days), `weight` (g), `bilirubin` (mg/dL), `site` (head, face, chest).
"""

_LICENCE = """\
## Licence

The releases of MedFMC state different licences, and this card does not decide between them. NeoJaundice on figshare is reported as
CC0 1.0, with the note that it is not intended for developing diagnosis-oriented models; OpenDataLab listed the data as
CC BY-SA 4.0; the official repository calls the project Apache-2.0; Grand Challenge gave access to those who joined the challenge.
The licences of the other figshare items were not verified, and the split lists carry none of their own. Look at the licence of the
release that you downloaded before you share images made from it.

The images are for research. Nothing here is fit for diagnosis.
"""


def _source(manifest: dict, absent: dict[str, str]) -> str:
    form = "holds the images themselves" if manifest["form"] == "embedded" else "links to the images where they were downloaded"
    shrunk = f", shrunk to at most {manifest['max_side']} pixels a side" if manifest["max_side"] else ""
    lines = [f"Made by `medfmc build` (medfmc_hf {manifest['medfmc_hf']}). It {form}{shrunk}."]
    if absent:
        lines.append("Not in this build: " + "; ".join(f"{key} ({reason})" for key, reason in absent.items()) + ".")
    return "\n".join(lines) + "\n"


def _subsets(manifest: dict) -> str:
    lines = ["## Subsets", "", "| subset | what | task | images here / published | patients here |", "|---|---|---|---|---|"]
    for key, entry in manifest["subsets"].items():
        subset = SUBSETS[key]
        patients = f"{entry['patients']:,}" + (f" ({subset.group})" if subset.group != "patient" else "")
        images = f"{entry['images']:,} / {subset.images:,}"
        lines.append(f"| `{key}` ({subset.name}) | {subset.title} | {subset.task} | {images} | {patients} |")
    lines += ["", "Classes, in order:", ""]
    lines += [f"- `{key}`: {', '.join(SUBSETS[key].classes)}." for key in manifest["subsets"]]
    notes = [f"- `{key}`: {note}." for key, entry in manifest["subsets"].items() for note in entry["notes"]]
    if "neojaundice" in manifest["subsets"]:
        rule = {"published": "above 12.9 mg/dL, as published", "inclusive": "at or above 12.9 mg/dL, as in the authors' lists"}
        notes.insert(
            0, f"- `neojaundice`: high bilirubin is {rule[manifest['jaundice_threshold']]}. The two definitions differ in five infants."
        )
    return "\n".join(lines + (["", "Worth knowing of this build:", "", *notes] if notes else [])) + "\n"


def _origin(manifest: dict) -> str:
    lines = ["## Where the splits are from", "", "| subset | pool | support sets | lists as published / read |", "|---|---|---|---|"]
    for key, entry in manifest["subsets"].items():
        count = entry["lists"]
        lines.append(f"| `{key}` | {entry['pool']} | {entry['few_shot']} | {count['as_published']} / {count['read']} |")
    return (
        "\n".join(lines)
        + f"""

`{manifest["sampler"]}` draws K patients per class in an order given by a hash of seed, shots, class and patient id, and takes their
images of that class. It does not depend on the order of rows, and the same name stands for the same rows for ever. The challenge's
lists were drawn without a seed and are taken as they are; "as published" means that their SHA-256 is that of the public file.
"""
    )


_AUDIT = """\
## Audit

Counted as `medfmc check` does. Shared is what train has in common with validation and with test: images, patients and, for `colon`,
scans. Patients are studies for `endo`, regions for `colon`, infants for `neojaundice`. No image or patient of a test is in a train."""

_AUDIT_HEADER = "| config | train rows (repeats), patients | validation | test | shared with validation | with test | train by class |"


def _audit(manifest: dict, report: Report, earlier: str) -> str:
    lines = [_AUDIT]
    covered = {ConfigName.parse(audit.config).subset for audit in report.configs}
    for key in manifest["subsets"]:
        if key not in covered:
            published = re.search(rf"^### {key}\n.*?(?=^##)", earlier, re.MULTILINE | re.DOTALL)
            lines += ["", published[0].rstrip() if published else f"### {key}\n\nNot known here; it was published before."]
            continue
        lines += ["", f"### {key}", "", _AUDIT_HEADER, "|---|---|---|---|---|---|---|"]
        of_subset = [audit for audit in report.configs if ConfigName.parse(audit.config).subset == key]
        lines += map(_audit_row, of_subset)
        if remarks := remarks_of(of_subset):
            lines += ["", "By design:", ""]
            lines += [f"- {remark} ({first_few(names, 1)})." for remark, names in remarks.items()]
    return "\n".join(lines) + "\n"


def _audit_row(audit: ConfigAudit) -> str:
    train, validation, test = (audit.splits.get(split) for split in ("train", "validation", "test"))
    shared = {}
    for overlap in audit.overlaps:
        numbers = (overlap.images, overlap.patients, overlap.scans)
        shared[overlap.splits] = ", ".join(str(number) for number in numbers if number is not None)
    both = " | ".join(shared.get(("train", other), "") for other in ("validation", "test"))
    counts = " ".join(map(str, train.positives)) if train else ""
    trained = f"{train.rows} ({train.repeats}), {train.patients}" if train else ""
    return f"| `{audit.config}` | {trained} | {validation.rows if validation else ''} | {test.rows if test else ''} | {both} | {counts} |"
