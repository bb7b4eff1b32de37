"""Audits the splits of a build: counts, repeats and overlaps of every config, what of it is by design and what would be a mistake."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from ..errors import MedfmcError
from ..files import sha256_of
from ..progress import bar
from ..subsets import SUBSETS, ConfigName, Subset
from ..words import first_few, plural
from .loading import linked_paths, missing_images, read_manifest, rows_digest, targets_of_column


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one split: n image ids, and their labels as `medfmc_hf.data.loading.targets_of` gives them."""

    subset: Subset
    image_ids: list[str]
    targets: np.ndarray

    @cached_property
    def images(self) -> frozenset[str]:
        return frozenset(self.image_ids)

    @cached_property
    def patients(self) -> frozenset[str]:
        return frozenset(map(self.subset.patient_id, self.images))

    @cached_property
    def scans(self) -> frozenset[str]:
        return frozenset(scan for image_id in self.images if (scan := self.subset.scan_id(image_id)))

    @cached_property
    def digest(self) -> str:
        return rows_digest(self.image_ids, self.targets)

    @property
    def multi_hot(self) -> np.ndarray:
        """(n, classes), 0 or 1; unlabelled rows are all 0."""
        if self.subset.multilabel:
            return (self.targets == 1).astype(np.int64)
        return (self.targets[:, None] == np.arange(len(self.subset.classes))).astype(np.int64)


@dataclass
class SplitAudit:
    """Counts of one split. `positives` has one number a class; `repeats` are rows beyond the first of an image."""

    rows: int
    images: int
    patients: int
    scans: int | None
    positives: list[int]
    without_finding: int | None
    unlabelled: int
    repeats: int


@dataclass
class Overlap:
    """What two splits of a config share."""

    splits: tuple[str, str]
    images: int
    patients: int
    scans: int | None


@dataclass
class ConfigAudit:
    """The audit of one config.

    Attributes:
        config: its name.
        splits: counts by split.
        overlaps: of each two splits.
        by_design: what else a reader should know, and where it comes from; the numbers are in `splits` and `overlaps`.
        mistakes: what must not be.
    """

    config: str
    splits: dict[str, SplitAudit] = field(default_factory=dict)
    overlaps: list[Overlap] = field(default_factory=list)
    by_design: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


@dataclass
class Report:
    """The audit of a build: its configs, and mistakes that are of no one config."""

    configs: list[ConfigAudit]
    mistakes: list[str] = field(default_factory=list)

    @property
    def all_mistakes(self) -> list[str]:
        return self.mistakes + [f"{audit.config}: {mistake}" for audit in self.configs for mistake in audit.mistakes]

    def to_dict(self) -> dict:
        return {"sound": not self.all_mistakes} | asdict(self)


def audit_configs(configs: Mapping[ConfigName, Mapping[str, Rows]]) -> Report:
    """Audit every config on its own and against the base config of its subset."""
    report = Report([audit_config(config, splits) for config, splits in configs.items()])
    for audit, (config, splits) in zip(report.configs, configs.items()):
        base = configs.get(ConfigName(config.subset), {})
        if base and config.variant == "clean" and config.shots is not None:
            trained = frozenset().union(*(splits[name].images for name in ("train", "validation") if name in splits))
            if "train" not in base or trained != base["train"].images:
                audit.mistakes.append(f"train and validation together are not the pool, the train split of {config.subset}")
        test = splits.get("test")
        if test and "test" in base and config.variant in ("clean", "transfer") and test.digest != base["test"].digest:
            audit.mistakes.append(f"its test is not the test of {config.subset}")
    return report


def audit_config(config: ConfigName, splits: Mapping[str, Rows]) -> ConfigAudit:
    """Audit one config by its rows."""
    subset, audit = SUBSETS[config.subset], ConfigAudit(str(config))
    for name, rows in splits.items():
        positives = rows.multi_hot.sum(axis=0)
        unlabelled = int((np.atleast_2d(rows.targets.T)[0] < 0).sum())
        images = len(rows.images)
        audit.splits[name] = SplitAudit(
            rows=len(rows.image_ids),
            images=images,
            patients=len(rows.patients),
            scans=len(rows.scans) if subset.key == "colon" else None,
            positives=positives.tolist(),
            without_finding=int((rows.multi_hot.sum(axis=1) == 0).sum()) - unlabelled if subset.multilabel else None,
            unlabelled=unlabelled,
            repeats=len(rows.image_ids) - images,
        )
        _judge_split(audit, config, name, audit.splits[name])
    for one, other in combinations(splits, 2):
        a, b = splits[one], splits[other]
        scans = len(a.scans & b.scans) if subset.key == "colon" else None
        audit.overlaps.append(Overlap((one, other), len(a.images & b.images), len(a.patients & b.patients), scans))
        _judge_overlap(audit, config, audit.overlaps[-1])
    return audit


def remarks_of(audits: Iterable[ConfigAudit]) -> dict[str, list[str]]:
    """What is by design, and the configs of which it is true."""
    remarks: dict[str, list[str]] = {}
    for audit in audits:
        for remark in audit.by_design:
            remarks.setdefault(remark, []).append(audit.config)
    return remarks


def _judge_split(audit: ConfigAudit, config: ConfigName, name: str, split: SplitAudit) -> None:
    subset = SUBSETS[config.subset]
    if split.repeats:
        if config.variant == "official" and name == "train":
            audit.by_design.append("train repeats rows: an image drawn for several classes is listed for each")
        else:
            audit.mistakes.append(f"{name} repeats {split.repeats} rows")
    if split.unlabelled and config.variant != "challenge":
        audit.mistakes.append(f"{name} has {split.unlabelled} rows without a label")
    empty = [label for label, count in zip(subset.classes, split.positives) if not count]
    if empty and split.unlabelled < split.rows and name != "validation":
        audit.by_design.append(f"{name} has no image of {', '.join(empty)}")


def _judge_overlap(audit: ConfigAudit, config: ConfigName, overlap: Overlap) -> None:
    """What the official lists and the official sampling rule entail is by design; any other overlap is a mistake."""
    subset, (one, other) = SUBSETS[config.subset], overlap.splits
    selecting = other == "validation"  # train and validation, as against something and test
    if overlap.images:
        if config.variant == "official" and selecting:
            audit.by_design.append(f"{one} and {other} share images: the official validation lists hold images of the support")
        else:
            audit.mistakes.append(f"{one} and {other} share {overlap.images} images")
    if overlap.patients and subset.group != "patient":
        groups = plural(subset.group)
        reason = None
        if selecting and subset.key == "endo":
            reason = "of a drawn study the support has only the images that show the class, the rest is in validation"
            if config.variant == "transfer":
                reason = "train_20 and val_20 are split by image"
        elif config.variant == "challenge":
            reason = "they are the challenge's own lists"
        if reason:
            audit.by_design.append(f"{one} and {other} share {groups}: {reason}")
        else:
            audit.mistakes.append(f"{one} and {other} share {overlap.patients} {groups}")
    if overlap.scans:
        audit.by_design.append(f"{one} and {other} share scans: the lists keep regions apart, not the scans they were cut from")


def check_build(folder: str | os.PathLike, *, images: bool = False) -> Report:
    """Audit a build as a stock `load_dataset` sees it: by the `configs:` of its README.md.

    Beside the audit of every config, compares the rows with those that were built, patient ids with the patient rule, the labels of an
    image in all configs with each other, and looks whether linked images are still there. Nothing is decoded.

    Args:
        folder: the build.
        images: also read every image file once, and compare it with the digest that was taken when the data set was built.

    Raises:
        MedfmcError: the folder is no build.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    named = _configs_of_card(folder)
    mistakes = [f"{name} was built but README.md does not name it" for name in sorted(manifest["configs"].keys() - named)]
    configs: dict[ConfigName, dict[str, Rows]] = {}
    read: dict[tuple[str, ...], Rows] = {}
    labels: dict[tuple[str, str], bytes] = {}
    for name, split_files in named.items():
        try:
            config = ConfigName.parse(name)
        except MedfmcError as error:
            mistakes.append(str(error))
            continue
        configs[config] = {}
        built = manifest["configs"].get(name, {})
        for split, files in split_files.items():
            key = tuple(files)
            if key not in read:
                try:
                    read[key], wrong = _read_split(folder, files, SUBSETS[config.subset], manifest["form"] == "linked")
                except Exception as error:  # whatever Arrow says of a file that is absent, cut off or of other columns
                    mistakes.append(f"{name}, {split}: {first_few(files)} cannot be read ({str(error).splitlines()[0]})")
                    continue
                mistakes += wrong + _label_mistakes(read[key], labels, files[0])
            configs[config][split] = read[key]
            if built.get(split, {}).get("sha256") != read[key].digest:
                mistakes.append(f"{name}, {split}: its rows are not those that were built")
        mistakes += [f"{name}: split {split} was built but README.md does not name it" for split in sorted(built.keys() - split_files)]
    if images:
        mistakes += _changed_images(folder, sorted({file for files in read for file in files}))
    return Report(audit_configs(configs).configs, mistakes)


def _configs_of_card(folder: Path) -> dict[str, dict[str, list[str]]]:
    """config -> split -> files, from the YAML head of README.md."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        head = yaml.load(text.split("---\n")[1], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return {
            entry["config_name"]: {
                file["split"]: [file["path"]] if isinstance(file["path"], str) else file["path"] for file in entry["data_files"]
            }
            for entry in head["configs"]
        }
    except (OSError, IndexError, KeyError, TypeError, yaml.YAMLError) as error:
        what = f"has no readable list of configs ({type(error).__name__}: {error})"
        raise MedfmcError(f"{folder / 'README.md'} {what}; build the folder again.") from None


def _read_split(folder: Path, files: list[str], subset: Subset, linked: bool) -> tuple[Rows, list[str]]:
    """The rows of one split from its Parquet files, without its images, and what is wrong with these files besides names and labels."""
    columns = ["image_id", "patient_id", subset.label_column] + ["image"] * linked
    image_ids: list[str] = []
    targets, mistakes = [], []
    for file in map(folder.joinpath, files):
        table = pq.read_table(file, columns=columns, partitioning=None)
        image_ids += table["image_id"].to_pylist()
        targets.append(targets_of_column(table[subset.label_column], subset))
        if b"huggingface" not in (table.schema.metadata or {}):
            mistakes.append(f"{file} has lost its Hugging Face features")
        wrong = [i for i, p in zip(table["image_id"].to_pylist(), table["patient_id"].to_pylist()) if subset.patient_id(i) != p]
        if wrong:
            mistakes.append(f"{file}: {len(wrong):,} patient ids are wrong, such as that of {wrong[0]}")
        if linked and (lost := missing_images(linked_paths(table["image"]))):
            moved = f"{len(lost):,} linked images are not there any more, such as {lost[0]}"
            mistakes.append(f"{file}: {moved}; to relink, build again with their new place")
    return Rows(subset, image_ids, np.concatenate(targets)), mistakes


def _changed_images(folder: Path, files: list[str]) -> list[str]:
    """What is wrong with the images themselves: those whose bytes are not the ones that the data set was built from."""
    changed: dict[str, None] = {}
    known: dict[str, str] = {}  # linked files are in many configs and read once
    without = []
    for file in bar(files, desc="reading images", unit="file"):
        parquet = pq.ParquetFile(folder / file)
        if "image_sha256" not in parquet.schema_arrow.names:
            without.append(file)
            continue
        for batch in parquet.iter_batches(batch_size=64, columns=["image", "image_sha256"]):
            for image, digest in zip(batch.column("image").to_pylist(), batch.column("image_sha256").to_pylist()):
                if image["bytes"] is not None:
                    found = hashlib.sha256(image["bytes"]).hexdigest()
                else:
                    path = image["path"]
                    if path not in known:
                        known[path] = sha256_of(Path(path)) if Path(path).is_file() else ""
                    found = known[path] or digest  # those that are gone are named already
                if found != digest:
                    changed[f"{image['path']}"] = None
    mistakes = []
    if changed:
        text = f"{len(changed):,} images are not those that the data set was built from: {first_few(list(changed))}"
        mistakes.append(f"{text}; build it again, so that runs on them are told from earlier ones")
    if without:
        mistakes.append(
            f"{len(without):,} files hold no digests of their images, for they were built by an older version; build them again"
        )
    return mistakes


def _label_mistakes(rows: Rows, labels: dict[tuple[str, str], bytes], file: str) -> list[str]:
    """Images whose label here is not the one they have in an earlier split. Unlabelled rows say nothing."""
    wrong = []
    for image_id, target in zip(rows.image_ids, rows.targets):
        if np.all(target >= 0) and labels.setdefault((rows.subset.key, image_id), target.tobytes()) != target.tobytes():
            wrong.append(image_id)
    return [f"{file}: {len(wrong):,} labels differ from those in other configs: {first_few(wrong)}"] if wrong else []
