"""Writes a build's README.md: the YAML head that `load_dataset` and the Hub read, and the dataset card below it."""

from datasets import DatasetInfo, SplitDict, SplitInfo

from ..subsets import CITATION, SUBSETS, ConfigName
from .check import ConfigAudit, Report
from .parquet import features_of

DEFAULT_CONFIGS = [ConfigName("endo", 5, 0), ConfigName("neojaundice", 5, 0)]

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


def dataset_card(manifest: dict, report: Report, absent: dict[str, str]) -> str:
    """The whole README.md of a build.

    Args:
        manifest: what is in the build, as `medfmc_build.json` has it.
        report: the audit of its configs.
        absent: subsets that are not in it, and why.
    """
    audits = {audit.config: audit for audit in report.configs}
    parts = [_WHAT, _source(manifest, absent), _subsets(manifest), _CONFIGS, _columns(manifest)]
    parts += [_few_shot(manifest), _audit(manifest, audits), _LICENCE, f"## Citation\n\n```bibtex\n{CITATION}```\n"]
    return f"---\n{_HEAD}{_configs_yaml(manifest)}---\n\n" + "\n".join(parts)


def _configs_yaml(manifest: dict) -> str:
    """`configs:` (which files) and `dataset_info:` (which columns and how many rows), in the form `datasets` itself writes."""
    import yaml

    infos, configs = [], []
    default = next((str(config) for config in DEFAULT_CONFIGS if str(config) in manifest["configs"]), None)
    features = {key: features_of(SUBSETS[key]) for key in manifest["subsets"]}
    for name, splits in manifest["configs"].items():
        info = DatasetInfo(
            features=features[ConfigName.parse(name).subset],
            splits=SplitDict({split: SplitInfo(split, part["bytes"], part["rows"]) for split, part in splits.items()}),
            download_size=sum(part["bytes"] for part in splits.values()),
            dataset_size=sum(part["bytes"] for part in splits.values()),
        )
        infos.append({"config_name": name, **info._to_yaml_dict()})
        files = [{"split": split, "path": part["files"][0] if len(part["files"]) == 1 else part["files"]} for split, part in splits.items()]
        configs.append({"config_name": name, "data_files": files} | ({"default": True} if name == default else {}))
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump({"configs": configs, "dataset_info": infos}, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1000)


_WHAT = """\
# MedFMC

Five sets of medical images for adapting foundation models with few labels: chest X-rays (ChestDR), pathology patches (ColonPath),
colonoscopy (Endo), skin photographs of newborns (NeoJaundice) and fundus photographs (Retino). Paper: Wang et al., *A real-world
dataset and benchmark for foundation model adaptation in medical image classification*, Scientific Data 10:574 (2023),
[doi 10.1038/s41597-023-02460-0](https://doi.org/10.1038/s41597-023-02460-0).

```python
from datasets import load_dataset

splits = load_dataset("medfmc", "endo-5shot-seed0")  # this folder, seen from its parent; a path or a Hub id works too
```
"""

_CONFIGS = """\
## Configs

| config | train | validation | test |
|---|---|---|---|
| `endo` | the pool | | every other published picture |
| `endo-5shot-seed0` | the support set, each picture once | the pool without the support | as above |
| `endo-5shot-seed0-official` | the challenge's list as it is, with repeats | the challenge's list, which holds support pictures | `test_WithLabel` |
| `endo-transfer` | `train_20` | `val_20` | as `endo` |
| `endo-challenge` | | the pictures of the validation phase, in submission order | the private test, unlabelled, where it was there |

1, 5 and 10 shots, seeds 0 to 4; seed s is the challenge's exp{s+1}. A shot is a patient, not a picture. NeoJaundice and Retino were not in the
challenge and have only the first two kinds. Rows of the first two kinds are sorted by name; the others are in the order of their lists.
"""

_LICENCE = """\
## Licence

The releases of MedFMC state different licences, and this card does not decide between them. NeoJaundice on figshare is reported as CC0 1.0, with the note
that it is not intended for developing diagnosis-oriented models; OpenDataLab listed the data as CC BY-SA 4.0; the official repository calls the
project Apache-2.0; Grand Challenge gave access to those who joined the challenge. The licences of the other figshare items were not verified. Look at the
licence of the release that you downloaded before you share pictures made from it. The split lists carry no licence of their own.

These pictures are for research; nothing here is fit for diagnosis.
"""


def _source(manifest: dict, absent: dict[str, str]) -> str:
    form = "holds the pictures themselves" if manifest["form"] == "embedded" else "links to the pictures where they were downloaded"
    shrunk = f", shrunk to at most {manifest['max_side']} pixels a side" if manifest["max_side"] else ""
    lines = [f"Made by `medfmc build` (medfmc_hf {manifest['medfmc_hf']}). It {form}{shrunk}."]
    if absent:
        lines.append("Not in this build: " + "; ".join(f"{key} ({reason})" for key, reason in absent.items()) + ".")
    return "\n".join(lines) + "\n"


def _subsets(manifest: dict) -> str:
    lines = ["## Subsets", "", "| subset | what | task | classes | pictures here / published | patients here |", "|---|---|---|---|---|---|"]
    for key, entry in manifest["subsets"].items():
        subset = SUBSETS[key]
        patients = f"{entry['patients']:,}" + (f" ({subset.group})" if subset.group != "patient" else "")
        lines.append(
            f"| `{key}` ({subset.name}) | {subset.title} | {subset.task} | {len(subset.classes)} | {entry['images']:,} / {subset.images:,} | {patients} |"
        )
    lines.append("")
    for key, entry in manifest["subsets"].items():
        lines.append(f"- `{key}` classes in order: {', '.join(SUBSETS[key].classes)}.")
    noted = [f"- `{key}`: {note}." for key, entry in manifest["subsets"].items() for note in entry["notes"]]
    if "neojaundice" in manifest["subsets"]:
        rule = "above 12.9 mg/dL, as published" if manifest["jaundice_threshold"] == "published" else "at or above 12.9 mg/dL, as in the authors' lists"
        noted.insert(0, f"- `neojaundice`: high bilirubin is {rule}. The published table and the authors' few-shot lists differ in this, in five infants.")
    if noted:
        lines += ["", "Worth knowing of this build:", "", *noted]
    return "\n".join(lines) + "\n"


def _columns(manifest: dict) -> str:
    lines = [
        "## Columns",
        "",
        "`image`; `label` (a class) or, for `chest` and `endo`, `labels` (the positive classes; an empty list is a picture without a finding);",
        "`image_id`, the file name without its extension; `patient_id`, which for `endo` is the study, for `colon` the region of a slide and for",
        "`neojaundice` the infant. Pictures whose label is not public have label -1, or null for `labels`.",
    ]
    if "colon" in manifest["subsets"]:
        lines.append("`colon` has `scan_id`, the scanned slide that several regions are cut from.")
    if "neojaundice" in manifest["subsets"]:
        lines.append("`neojaundice` has `gender`, `gestational_age` (weeks), `age` (days), `weight` (g), `bilirubin` (mg/dL) and `site` (head, face or chest).")
    return "\n".join(lines) + "\n"


def _few_shot(manifest: dict) -> str:
    lines = ["## Where the splits are from", "", "| subset | pool | support sets | lists read, of which identical to the public ones |", "|---|---|---|---|"]
    for key, entry in manifest["subsets"].items():
        count = entry["lists"]
        lines.append(f"| `{key}` | {entry['pool']} | {entry['few_shot']} | {count['read']}, {count['identical_to_the_public_ones']} |")
    lines += [
        "",
        f"`{manifest['sampler']}` draws K patients per class in an order given by a hash of seed, shots, class and patient id, and takes their pictures of",
        "that class. It does not depend on the order of rows, and the same name stands for the same rows for ever. The challenge's lists were",
        "drawn without a seed and are taken as they are.",
    ]
    return "\n".join(lines) + "\n"


def _audit(manifest: dict, audits: dict[str, ConfigAudit]) -> str:
    lines = [
        "## Audit",
        "",
        "Counted by `medfmc check`. Overlap is what train and validation share / what train and test share, in pictures and, after the comma, patients.",
        "Patients in this table are studies for `endo`, regions for `colon` and infants for `neojaundice`. No config holds a test picture in train",
        "or validation; what train and validation share is by design of the lists.",
    ]
    for key in manifest["subsets"]:
        lines += ["", f"### {key}", "", "| config | train rows (repeats), patients | validation rows | test rows | overlap | positives in train, by class |"]
        lines.append("|---|---|---|---|---|---|")
        remarks: dict[str, list[str]] = {}
        for name, audit in audits.items():
            if ConfigName.parse(name).subset == key:
                lines.append(_audit_row(name, audit))
                for remark in audit.by_design:
                    remarks.setdefault(remark, []).append(name)
        if remarks:
            lines += ["", "By design:", ""]
            lines += [f"- {remark} ({names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''})." for remark, names in remarks.items()]
    return "\n".join(lines) + "\n"


def _audit_row(name: str, audit: ConfigAudit) -> str:
    train, validation, test = (audit.splits.get(split) for split in ("train", "validation", "test"))
    shared = {overlap.splits: f"{overlap.images}, {overlap.patients}" for overlap in audit.overlaps}
    overlap = " / ".join(shared.get(pair, "–") for pair in (("train", "validation"), ("train", "test")))
    counts = " ".join(map(str, train.positives)) if train else ""
    trained = f"{train.rows} ({train.repeats}), {train.patients}" if train else ""
    return f"| `{name}` | {trained} | {validation.rows if validation else ''} | {test.rows if test else ''} | {overlap} | {counts} |"
