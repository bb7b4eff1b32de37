"""Puts together what all tables and lists say of one subset, and finds where they disagree, with each other or with the images."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import MedfmcError
from ..images.grey_range import FEW_LEVELS, Depth, GreyRange, common_range
from ..images.integrity import inspect, inspect_all
from ..subsets import Subset
from ..words import first_few
from . import lists
from .label_tables import Label, LabelFile, read_list, read_table
from .sources import Found

THRESHOLD = 12.9  # mg/dL of bilirubin: the published NeoJaundice labels are `above`, the authors' few-shot lists `at or above`


@dataclass
class Release:
    """One subset as the sources have it.

    Attributes:
        subset: which.
        labels: label of every published image, None where no file says it.
        lists: image ids of each list by kind (see `medfmc_hf.data.lists`), in file order, repeats included.
        image_paths: path of every image that is whole, by image id.
        image_sha256: SHA-256 (hex) of each of these files.
        depths: of those that have more than 8 bits, by image id.
        grey_range: which of their values become 0 and 255; None where there are none.
        extra: NeoJaundice's further columns by image id.
        published: labels of NeoJaundice by the published definition, whichever is in force; else the same as `labels`.
        problems: what keeps it from being built, one paragraph each.
        missing_images: which images are named but missing or damaged, one paragraph each; they keep it from being built as well, unless
            the user goes on without them.
        notes: what a reader of the dataset card should know.
        official: of the lists that are public, how many were read that are as published, and how many were read.
        digest: SHA-256 over the content of every table and list.
    """

    subset: Subset
    labels: dict[str, Label] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    image_paths: dict[str, str] = field(default_factory=dict)
    image_sha256: dict[str, str] = field(default_factory=dict)
    depths: dict[str, Depth] = field(default_factory=dict)
    grey_range: GreyRange | None = None
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
    tables = _distinct(read_table(path, subset) for path in found.tables[subset.key])
    by_kind = {
        kind: _distinct(read_list(path, subset, labelled=kind not in lists.UNLABELLED) for path in paths)
        for (key, kind), paths in sorted(found.lists.items())
        if key == subset.key
    }
    published = _published_images(tables, subset)
    split_lists = [(_kind_by_content(kind, file, published), file) for kind, files in by_kind.items() for file in files]
    validation_tables = [(lists.VALIDATION_PHASE, table) for table in tables if _is_part(table, subset, "val")]  # in the phase's order
    public = [file for kind, file in split_lists if kind not in (lists.TEST, lists.PRIVATE)]  # these two are of Grand Challenge alone
    release = Release(
        subset,
        extra={image_id: extra for table in reversed(tables) for image_id, extra in table.extra.items()},
        notes=[note for table in tables for note in table.notes],
        official=(sum(file.digest in lists.published_digests() for file in public), len(public)),
        digest=_digest_of({"table": tables} | by_kind),
    )
    _report_problems(release, tables + [file for _, file in split_lists])
    _set_lists(release, validation_tables + split_lists)
    if published is not None:
        _check_images_of_lists(release, split_lists, published)
    _merge_labels(release, tables + [file for kind, file in split_lists if kind != lists.PRIVATE])
    if subset.key == "neojaundice":
        _set_threshold(release, jaundice_threshold)
    _count(release, found)
    return release


def _distinct(files: Iterable[LabelFile]) -> list[LabelFile]:
    """The files without those that say what an earlier one does: the same file is often in two places."""
    distinct: dict[str, LabelFile] = {}
    for file in files:
        distinct.setdefault(file.digest or str(file.path), file)
    return list(distinct.values())


def _digest_of(files: dict[str, list[LabelFile]]) -> str:
    lines = sorted(f"{kind}/{file.digest}" for kind, of_kind in files.items() for file in of_kind if file.digest)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _is_part(table: LabelFile, subset: Subset, part: str) -> bool:
    """Whether this is Grand Challenge's table of `train` or `val`, which does not name every published image."""
    return table.path.name.lower().startswith(f"{subset.key}_{part}")


def _published_images(tables: list[LabelFile], subset: Subset) -> set[str] | None:
    """The images that the tables name; None where these are not all, because the published table is not there."""
    if all(_is_part(table, subset, "train") or _is_part(table, subset, "val") for table in tables):
        return None
    return {image_id for table in tables for image_id in table.image_ids}


def _kind_by_content(kind: str, file: LabelFile, published: set[str] | None) -> str:
    """The final phase's list is named like the validation phase's, and known by its images where its folder does not say so."""
    if kind == lists.VALIDATION_PHASE and published and file.rows and published.isdisjoint(file.image_ids):
        return lists.PRIVATE
    return kind


def _report_problems(release: Release, files: list[LabelFile]) -> None:
    """Name the first three problems of each file and count the others."""
    for file in files:
        if file.problems:
            more = f"\n  ... and {len(file.problems) - 3:,} more in this file" if len(file.problems) > 3 else ""
            release.problems.append("\n".join(file.problems[:3]) + more)


def _set_lists(release: Release, split_lists: list[tuple[str, LabelFile]]) -> None:
    """Take the first list of each kind. Others must hold the same rows; a few-shot list's order matters, so it must agree too."""
    first: dict[str, LabelFile] = {}
    for kind, file in split_lists:
        if file.problems:
            continue
        one, other = first.setdefault(kind, file).image_ids, file.image_ids
        if one != other if "shot_" in kind else set(one) != set(other):
            differ = len(set(one).symmetric_difference(other))
            how = f"{differ:,} images are in one only" if differ else "the order or the repeats differ"
            release.problems.append(f"{first[kind].path} and {file.path} are the same list but disagree: {how}. Keep the one you trust.")
    release.lists = {kind: file.image_ids for kind, file in first.items()}


def _check_images_of_lists(release: Release, split_lists: list[tuple[str, LabelFile]], published: set[str]) -> None:
    """Lists name published images, and the private test's names others."""
    unrecognised: dict[str, Path] = {}  # image -> the first list that names it
    for kind, file in split_lists:
        if kind != lists.PRIVATE:
            for image_id in file.image_ids:
                if image_id not in published:
                    unrecognised.setdefault(image_id, file.path)
        elif shared := published.intersection(file.image_ids):
            release.problems.append(
                f"{file.path} should list the private test, but {len(shared):,} of its images are published: {first_few(sorted(shared))}."
            )
    if unrecognised and not release.problems:  # a table that cannot be read whole has been named already
        release.problems.append(
            f"the lists name {len(unrecognised):,} images that no label table has, such as {first_few(list(unrecognised))}, "
            f"first in {next(iter(unrecognised.values()))}; a table may be cut off, or a list be of another release."
        )


def _merge_labels(release: Release, files: list[LabelFile]) -> None:
    """Take each image's label from the first file that has it, and name the files that contradict each other."""
    labels = release.labels
    said_by: dict[str, Path] = {}  # image -> the file its label is from
    contradictions: dict[tuple[Path, Path], dict[str, str]] = defaultdict(dict)  # two files -> image -> its two labels
    at_threshold: set[str] = set()
    for file in files:
        for image_id, label in file.rows:
            known = labels.get(image_id)
            if known is None:
                labels[image_id], said_by[image_id] = label, file.path
            elif label is None or label == known:
                continue
            elif release.extra.get(image_id, {}).get("bilirubin") == THRESHOLD:
                at_threshold.add(image_id)
            else:
                contradictions[said_by[image_id], file.path][image_id] = f"{image_id} ({_words(known)} / {_words(label)})"
    for (one, other), examples in contradictions.items():
        who = f"{one} contradicts itself" if one == other else f"{one} and {other} contradict each other"
        release.problems.append(f"{who} on the label of {len(examples):,} images: {first_few(list(examples.values()))}.")
    if at_threshold:
        infants = {release.subset.patient_id(image_id) for image_id in at_threshold}
        release.notes.append(
            f"{len(at_threshold)} images of {len(infants)} infants at exactly {THRESHOLD} mg/dL ({first_few(sorted(infants), 6)}) "
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


def match_images(release: Release, found: Found, window: GreyRange | None = None) -> None:
    """Find the file of every image that a table or list names, and look whether it is whole.

    Args:
        release: what tables and lists say.
        found: where the images are.
        window: the range of grey values of more than 8 bits that a person chose; None for the one that holds them all.
    """
    subset, own, loose = release.subset, found.image_paths[release.subset.key], found.image_paths[""]
    private = release.lists.pop(lists.PRIVATE, [])
    if any(image_id in own or image_id in loose for image_id in private):
        release.lists[lists.PRIVATE] = private
    elif private:
        release.notes.append(f"the {len(private):,} images of the challenge's private test are not there")
    wanted = list(dict.fromkeys([*release.labels, *release.lists.get(lists.PRIVATE, [])]))
    paths = {image_id: copies for image_id in wanted if (copies := own.get(image_id) or loose.get(image_id))}
    missing = [image_id for image_id in wanted if image_id not in paths]
    if missing:
        release.missing_images.append(f"{len(missing):,} of {len(wanted):,} images are named but not there: {first_few(missing)}.")
    repeated = [copies for copies in paths.values() if len(copies) > 1]
    if repeated:
        used, other = repeated[0][:2]
        release.notes.append(f"{len(repeated):,} images are there more than once; the first is used, such as {used} and not {other}")
    unnamed = sorted(set(own).difference(wanted))
    if len(release.labels) < subset.images <= len(release.labels) + len(unnamed):
        text = f"{len(release.labels):,} images have a label and {len(unnamed):,} more are there, such as {first_few(unnamed)}"
        release.missing_images.append(f"{text}; the table seems to be cut off, for {subset.table} has {subset.images:,} rows.")
    elif unnamed:
        release.notes.append(f"{len(unnamed):,} images are in no table or list and are left out: {first_few(unnamed)}")
    _take_whole_files(release, paths, window)
    _take_grey_range(release, window)
    if subset.key == "neojaundice" and not release.extra:
        release.notes.append("gender, age, weight and bilirubin are empty: the published table is not there")


def _take_whole_files(release: Release, paths: dict[str, list[str]], window: GreyRange | None) -> None:
    """Take the first file of each image, or the first whole one where that is damaged."""
    read = inspect_all((copies[0] for copies in paths.values()), window)
    damaged = []
    for image_id, (path, *others) in paths.items():
        image = read[path]
        if image.damage:
            whole = ((other, inspected) for other in others if not (inspected := inspect(other, window)).damage)
            path, image = next(whole, (path, image))
        if image.damage:
            damaged.append(f"{path} {image.damage}")
        else:
            release.image_paths[image_id], release.image_sha256[image_id] = path, image.sha256
            if image.depth is not None:
                release.depths[image_id] = image.depth
    if damaged:
        release.missing_images.append(f"{len(damaged):,} images are damaged: {first_few(damaged)}.")


def _take_grey_range(release: Release, window: GreyRange | None) -> None:
    """Choose the one range of grey values of all images of more than 8 bits, and name the images that it leaves nearly flat."""
    depths = release.depths
    if not depths:
        return
    release.grey_range = chosen = window or common_range(depths.values())
    words = f"{len(depths):,} images have more than 8 bits: grey values of {chosen.low} to {chosen.high} become 0 to 255"
    release.notes.append(words + (", and those outside are 0 or 255" if chosen.window else ""))
    flat = [image_id for image_id, depth in depths.items() if depth.levels[chosen] < FEW_LEVELS]
    if not flat:
        return
    text = f"{len(flat):,} of them use fewer than {FEW_LEVELS} of the 256 grey levels, such as {first_few(flat)}"
    if window is None and 2 * len(flat) > len(release.image_paths):
        highest = max(depth.most for depth in depths.values())
        release.problems.append(
            f"{words}, and {text}: the highest value is {highest}, which may be that of a few images with far higher values than the "
            f"others. Say which values are black and white by --grey-range LOW HIGH, such as --grey-range 0 4095 for 12 bits, or "
            f"--grey-range {chosen.low} {chosen.high} if this is as it should be."
        )
    else:
        release.notes.append(text)
