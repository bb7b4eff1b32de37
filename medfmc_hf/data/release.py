"""Puts together what all tables and lists say of one subset, and finds where they disagree, with each other or with the images."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import MedfmcError
from ..images.integrity import inspect, inspect_all
from ..subsets import Subset
from . import lists
from .label_tables import Label, LabelFile, first_few, read_list, read_table
from .sources import Found

THRESHOLD = 12.9  # mg/dL of bilirubin: the published NeoJaundice labels are `above`, the authors' few-shot lists `at or above`


@dataclass
class Release:
    """One subset as the sources have it.

    Attributes:
        subset: which.
        labels: label of every published image, None where no file says it.
        lists: image ids of each list by kind (see `medfmc_hf.data.lists`), in file order, repeats kept.
        image_paths: path of every image that is whole, by image id.
        image_sha256: SHA-256 (hex) of each of these files.
        extra: NeoJaundice's further columns by image id.
        published: labels of NeoJaundice by the published definition, whichever is in force; else the same as `labels`.
        problems: what keeps it from being built, one paragraph each.
        missing_images: images that are named but missing or damaged; they too keep it from being built, unless they may be missing.
        notes: what a reader of the dataset card should know.
        official: of the lists that are public, how many were read that are as published, and how many were read.
        digest: SHA-256 over the content of every table and list.
    """

    subset: Subset
    labels: dict[str, Label] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    image_paths: dict[str, str] = field(default_factory=dict)
    image_sha256: dict[str, str] = field(default_factory=dict)
    extra: dict[str, dict] = field(default_factory=dict)
    published: dict[str, Label] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missing_images: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    official: tuple[int, int] = (0, 0)
    digest: str = ""

    def multi_hot(self) -> dict[str, np.ndarray]:
        """Labels as rows of 0 and 1, of the images whose label is known."""
        eye = np.eye(len(self.subset.classes), dtype=np.int8)
        return {
            image_id: eye[label] if isinstance(label, int) else eye[list(label)].sum(axis=0, dtype=np.int8)
            for image_id, label in self.labels.items()
            if label is not None
        }


def read_release(found: Found, subset: Subset, jaundice_threshold: str = "published") -> Release:
    """Read every table and list of a subset. No image is touched; see `match_images`.

    Args:
        found: where the files are.
        subset: which subset.
        jaundice_threshold: `published` (bilirubin above 12.9 mg/dL) or `inclusive` (at or above); of NeoJaundice only.
    """
    release = Release(subset)
    merger = _Merger(release)
    for path in found.tables[subset.key]:
        merger.add_table(path)
    known = set(release.labels) if merger.whole_table else None
    for (key, kind), paths in sorted(found.lists.items()):
        if key == subset.key:
            for path in paths:
                merger.add_list(path, kind, known)
    merger.finish()
    if subset.key == "neojaundice":
        _set_threshold(release, jaundice_threshold)
    _count(release, found)
    return release


class _Merger:
    """Reads files one after the other and compares each with what the earlier ones said."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.whole_table = False  # whether a published table was read, which names every published image
        self.digests: dict[str, Path] = {}  # content -> the first file of that content
        self.said_by: dict[str, Path] = {}  # image id -> the file its label is from
        self.first_list: dict[str, tuple[Path, list[str]]] = {}
        self.conflicts: dict[tuple[Path, Path], dict[str, str]] = defaultdict(dict)  # files -> image id -> labels
        self.unrecognised: dict[str, Path] = {}  # images that a list names and no table has, and the first such list
        self.at_threshold: set[str] = set()
        self.official = self.all_lists = 0

    def _is_new(self, path: Path, kind: str) -> bool:
        """Whether a file says something that no earlier one did: the same file is often in two places."""
        try:
            digest = f"{kind}/{lists.digest_of(path.read_bytes())}"
        except OSError:
            return True  # reading it will say what is wrong
        return self.digests.setdefault(digest, path) is path

    def add_table(self, path: Path) -> None:
        if not self._is_new(path, "table"):
            return
        file = read_table(path, self.release.subset)
        self._report(file)
        self.release.notes += file.notes
        for image_id, extra in file.extra.items():
            self.release.extra.setdefault(image_id, extra)
        self._merge(file)
        self.whole_table |= not path.name.lower().startswith((f"{self.release.subset.key}_train", f"{self.release.subset.key}_val"))
        if path.name.lower().startswith(f"{self.release.subset.key}_val") and not file.problems:
            self._keep_list(path, lists.VALIDATION_PHASE, [image_id for image_id, _ in file.rows])

    def add_list(self, path: Path, kind: str, known: set[str] | None) -> None:
        if not self._is_new(path, kind):
            return
        file = read_list(path, self.release.subset, labelled=kind not in lists.UNLABELLED)
        self._report(file)
        image_ids = [image_id for image_id, _ in file.rows]
        if kind == lists.VALIDATION_PHASE and known and image_ids and known.isdisjoint(image_ids):
            kind = lists.PRIVATE  # the final phase's list, in a folder that does not say so
        if kind != lists.PRIVATE:
            for image_id in image_ids:
                if known is not None and image_id not in known:
                    self.unrecognised.setdefault(image_id, path)
            self._merge(file)
        elif kind == lists.PRIVATE and known and not known.isdisjoint(image_ids):
            shared = known.intersection(image_ids)
            self.release.problems.append(
                f"{path} should list the private test, but {len(shared):,} of its images are published: {first_few(sorted(shared))}."
            )
        if kind not in (lists.TEST, lists.PRIVATE):  # these two are of Grand Challenge alone
            self.all_lists += 1
            self.official += path.is_file() and lists.is_published(path.read_bytes())
        if not file.problems:
            self._keep_list(path, kind, image_ids)

    def _report(self, file: LabelFile) -> None:
        if file.problems:
            more = f"\n  ... and {len(file.problems) - 3:,} more in this file" if len(file.problems) > 3 else ""
            self.release.problems.append("\n".join(file.problems[:3]) + more)

    def _merge(self, file: LabelFile) -> None:
        labels, extra = self.release.labels, self.release.extra
        for image_id, label in file.rows:
            before = labels.get(image_id)
            if before is None:
                labels[image_id] = label
                if label is not None:
                    self.said_by[image_id] = file.path
            elif label is not None and label != before:
                if extra.get(image_id, {}).get("bilirubin") == THRESHOLD:
                    self.at_threshold.add(image_id)
                else:
                    self.conflicts[self.said_by[image_id], file.path][image_id] = f"{image_id} ({_words(before)} / {_words(label)})"

    def _keep_list(self, path: Path, kind: str, image_ids: list[str]) -> None:
        """Two files of one kind must hold the same rows. A few-shot list's order matters, so it must agree too."""
        first = self.first_list.setdefault(kind, (path, image_ids))
        if first[0] is not path and (first[1] != image_ids if "shot_" in kind else set(first[1]) != set(image_ids)):
            differ = len(set(first[1]).symmetric_difference(image_ids))
            how = f"{differ:,} images are in one only" if differ else "the order or the repeats differ"
            self.release.problems.append(f"{first[0]} and {path} are the same list but disagree: {how}. Keep the one you trust.")

    def finish(self) -> None:
        release = self.release
        if self.unrecognised and not release.problems:  # a table that cannot be read whole has been named already
            first = next(iter(self.unrecognised.values()))
            release.problems.append(
                f"the lists name {len(self.unrecognised):,} images that no label table has, such as {first_few(list(self.unrecognised))}, "
                f"first in {first}; a table may be cut off, or a list be of another release."
            )
        for (one, other), examples in self.conflicts.items():
            who = f"{one} contradicts itself" if one == other else f"{one} and {other} contradict each other"
            release.problems.append(f"{who} on the label of {len(examples):,} images: {first_few(list(examples.values()))}.")
        release.lists = {kind: image_ids for kind, (_, image_ids) in self.first_list.items()}
        release.official = (self.official, self.all_lists)
        release.digest = hashlib.sha256("\n".join(sorted(self.digests)).encode()).hexdigest()
        if self.at_threshold:
            infants = {release.subset.patient_id(image_id) for image_id in self.at_threshold}
            release.notes.append(
                f"{len(self.at_threshold)} images of {len(infants)} infants at exactly {THRESHOLD} mg/dL ({first_few(sorted(infants), 6)}) "
                "are low in the published table and high in the authors' few-shot lists, by their two definitions"
            )


def _words(label: Label) -> str:
    return " ".join(map(str, label)) or "none" if isinstance(label, tuple) else str(label)


def _set_threshold(release: Release, threshold: str) -> None:
    """Label by the definition that was asked for. Labels that came from the lists alone are inclusive already."""
    if threshold not in ("published", "inclusive"):
        raise MedfmcError(f"the jaundice threshold is published or inclusive; got {threshold!r}.")
    release.published = dict(release.labels)
    values = {image_id: extra.get("bilirubin") for image_id, extra in release.extra.items()}
    if threshold == "published":
        if release.labels and not values:
            release.notes.append("labels are from the authors' lists (bilirubin at or above 12.9 mg/dL): the published table is not there")
        return
    unknown = [image_id for image_id in release.labels if values.get(image_id) is None]
    if values and unknown:
        release.problems.append(
            f"{len(unknown):,} images have no bilirubin value for the inclusive threshold, such as {first_few(unknown)}."
        )
    release.labels.update({image_id: int(value >= THRESHOLD) for image_id, value in values.items() if value is not None})


def _count(release: Release, found: Found) -> None:
    """Say what is not as published: fewer images, or images without a label."""
    subset, labels = release.subset, release.labels
    if not release.published:
        release.published = labels
    if not any(label is not None for label in labels.values()) and not release.problems:
        unrecognised = found.unrecognised[subset.key]
        seen = f" These tables have other names and were not read: {first_few(unrecognised)}." if unrecognised else ""
        release.problems.append(f"its images have no labels: expected {subset.table} in their folder or above.{seen}")
    unlabelled = [image_id for image_id, label in labels.items() if label is None]
    if unlabelled and len(unlabelled) < len(labels):
        release.notes.append(
            f"{len(unlabelled):,} published images have no label here, so they are not in the test splits; "
            f"{subset.table} of the annotation or figshare download has them all"
        )
    if len(labels) != subset.images:
        release.notes.append(f"{len(labels):,} images, not the {subset.images:,} of the published subset")


def match_images(release: Release, found: Found) -> None:
    """Find the file of every image that a table or list names, and look whether it is whole."""
    subset, own, loose = release.subset, found.image_paths[release.subset.key], found.image_paths[""]
    private = release.lists.get(lists.PRIVATE, [])
    if not any(image_id in own or image_id in loose for image_id in private):
        if private:
            release.notes.append(f"the {len(private):,} images of the challenge's private test are not there")
        release.lists.pop(lists.PRIVATE, None)
    wanted = list(dict.fromkeys([*release.labels, *release.lists.get(lists.PRIVATE, [])]))
    paths = {image_id: own.get(image_id) or loose.get(image_id) for image_id in wanted}
    missing = [image_id for image_id, candidates in paths.items() if not candidates]
    release.image_paths = {image_id: candidates[0] for image_id, candidates in paths.items() if candidates}
    if missing:
        release.missing_images.append(f"{len(missing):,} of {len(wanted):,} images are named but not there: {first_few(missing)}.")
    double = [image_id for image_id, candidates in paths.items() if candidates and len(candidates) > 1]
    if double:
        first = paths[double[0]]
        release.notes.append(f"{len(double):,} images are there more than once; the first is used, such as {first[0]} and not {first[1]}")
    unnamed = sorted(set(own).difference(wanted))
    if len(release.labels) < subset.images <= len(release.labels) + len(unnamed):
        text = f"{len(release.labels):,} images have a label and {len(unnamed):,} more are there, such as {first_few(unnamed)}"
        release.missing_images.append(f"{text}; the table seems to be cut off, for {subset.table} has {subset.images:,} rows.")
    elif unnamed:
        release.notes.append(f"{len(unnamed):,} images are in no table or list and are left out: {first_few(unnamed)}")
    read = inspect_all(release.image_paths.values())
    for image_id in [image_id for image_id in double if read[release.image_paths[image_id]].damage]:
        others = ((path, inspect(path)) for path in paths[image_id][1:])
        if whole := next(((path, found) for path, found in others if not found.damage), None):
            release.image_paths[image_id], read[whole[0]] = whole[0], whole[1]
    damaged = {path: read[path].damage for path in release.image_paths.values() if read[path].damage}
    if damaged:
        examples = [f"{path} {damage}" for path, damage in damaged.items()]
        release.missing_images.append(f"{len(damaged):,} images are damaged: {first_few(examples)}.")
        release.image_paths = {image_id: path for image_id, path in release.image_paths.items() if path not in damaged}
    release.image_sha256 = {image_id: read[path].sha256 for image_id, path in release.image_paths.items()}
    if subset.key == "neojaundice" and not release.extra:
        release.notes.append("gender, age, weight and bilirubin are empty: the published table is not there")
