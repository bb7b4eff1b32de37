"""Loads a config of a build by stock `load_dataset`, and reads labels, image ids and paths out of it without decoding an image."""

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MedfmcError
from ..images.grey_range import FULL, GreyRange
from ..progress import is_watched, notify
from ..subsets import ConfigName, Subset, subset_of

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

MANIFEST = "medfmc_build.json"  # what tells a build of ours from any other folder
SAMPLE_MARK = ".medfmc_sample"  # a file in the invented download of `sample.py`
SCHEMA = 1  # version of the build's layout


def read_manifest(folder: str | os.PathLike) -> dict:
    """The manifest of a build.

    Raises:
        MedfmcError: the folder is absent, or no build of ours.
    """
    folder = Path(folder)
    if not folder.exists():
        raise MedfmcError(f"there is no folder {folder}; make it with `medfmc build SOURCE --out {folder}`.")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise MedfmcError(
            f"{folder} is not a build: it has no {MANIFEST}. If it is a download, build it: `medfmc build {folder} --out medfmc`."
        ) from None
    except ValueError as error:
        raise MedfmcError(f"{folder / MANIFEST} is not JSON ({error}); build the folder again.") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or not isinstance(manifest.get("configs"), dict):
        raise MedfmcError(f"{folder / MANIFEST} is not of the layout this version reads (schema {SCHEMA}); build the folder again.")
    return manifest


def build_facts(data: str | os.PathLike, subset: Subset) -> dict:
    """What a build says of a subset beyond its rows.

    Args:
        data: a build, or a dataset repository on the Hub made from one; nothing is known where its manifest cannot be read.
        subset: one of its subsets.

    Returns:
        `notes` (sentences, such as images that it lacks), `invented` (whether the images are made up), `incomplete` (whether it was
        built without some of the published images), `max_side` (to how many pixels images were shrunk, or None), `images_sha256` (of
        all its images; None where the build is from before these were taken), `grey_range` (`GreyRange.to_dict` of its images of more
        than 8 bits; None where there are none or nothing is known; absent for builds from before it was recorded, which read 16 bits as
        16 bits), and of a repository on the Hub `repo_id` and `revision`, the commit.
    """
    local = Path(data).exists()
    manifest, commit = (read_manifest(data), None) if local else _published_manifest(str(data))
    entry = manifest.get("subsets", {}).get(subset.key, {})
    grey = {"grey_range": entry.get("grey_range")} if "grey_range" in entry or not entry else {}
    # Builds of version 0.1.0 do not say what they were made from, but where that lay.
    invented = entry.get("invented") or any((Path(source) / SAMPLE_MARK).is_file() for source in manifest.get("sources", ()))
    return {
        "notes": entry.get("notes", []),
        "invented": bool(invented),
        "incomplete": bool(entry.get("incomplete") or any(note.startswith("built without them") for note in entry.get("notes", ()))),
        "max_side": manifest.get("max_side"),
        "images_sha256": entry.get("images_sha256"),
        **grey,
        **({} if local else {"repo_id": str(data), "revision": commit}),
    }


def _published_manifest(repo_id: str) -> tuple[dict, str | None]:
    """The manifest in a dataset repository and its commit; empty and None where there is none or it cannot be read."""
    from huggingface_hub import hf_hub_download

    try:
        file = Path(hf_hub_download(repo_id, MANIFEST, repo_type="dataset"))
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except Exception as error:  # rows came from there, so it is there; what it says of them is worth having and not worth failing for
        notify(f"what {repo_id} says of its images could not be read ({_first_line(error)}).")
        return {}, None
    return (manifest, file.parent.name) if isinstance(manifest, dict) else ({}, None)  # the cache has a folder a commit


def max_side_of(data: str | os.PathLike) -> int | None:
    """To how many pixels a build shrank its images; None where it did not, and for a dataset on the Hub, which does not say."""
    return read_manifest(data)["max_side"] if Path(data).exists() else None


def load_splits(data: str | os.PathLike, config: ConfigName | str) -> "datasets.DatasetDict":
    """Load one config: `train`, `validation` and `test`, as far as the config has them.

    This is `datasets.load_dataset(data, str(config))` with errors that say what to do. No image is opened; that the
    files of a linked build are there is checked by listing their folders.

    Args:
        data: a folder made by `medfmc build`, or the id of a dataset repository on the Hub made from one.
        config: such as `"endo-5shot-seed0"`.

    Raises:
        MedfmcError: `data` is absent, no build, or lacks the config; or the images it links to have moved.
    """
    import datasets

    if not is_watched():
        datasets.disable_progress_bars()
    name = str(ConfigName.parse(config) if isinstance(config, str) else config)
    local = Path(data).exists() or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(data))
    if local:
        configs = read_manifest(data)["configs"]
        if name not in configs:
            raise MedfmcError(f"{data} has no config {name}; it has {_short(list(configs))}.")
    try:
        # An absolute path, so that a folder of the same name elsewhere is not meant.
        splits = datasets.load_dataset(str(Path(data).resolve()) if local else str(data), name)
    except Exception as error:
        if local:
            raise MedfmcError(
                f"{data} cannot be loaded ({_first_line(error)}); `medfmc check {data}` says more, or build it again."
            ) from error
        raise MedfmcError(
            f"{data} is neither a folder here nor a dataset that could be loaded from the Hub: {_first_line(error)}\n"
            "For a folder, make it with `medfmc build`; for the Hub, check the name, your login and the network."
        ) from error
    check_columns(splits, ConfigName.parse(name), data)
    lost = missing_images(path for split in splits.values() for path in linked_paths(_column(split, "image")))
    if lost:
        raise MedfmcError(
            f"{len(lost)} of the images that {name} links to are not there any more, such as {lost[0]}.\n"
            f"If they have moved, run `medfmc build NEW_PLACE --out {data}` again: it takes a minute and keeps every split."
        )
    return splits


def read_linked(data: str | os.PathLike, name: ConfigName) -> "datasets.DatasetDict | None":
    """What `load_splits` gives, straight from the Parquet files of a linked build: these are small, and a grid has dozens of configs.

    Returns:
        None for anything else than a linked build that has the config and all its images; `load_splits` says what is wrong with it.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not (Path(data) / MANIFEST).is_file():
        return None
    manifest = read_manifest(data)
    entry = manifest["configs"].get(str(name))
    if manifest.get("form") != "linked" or entry is None:
        return None
    try:
        tables = {split: pa.concat_tables(pq.read_table(Path(data) / file) for file in part["files"]) for split, part in entry.items()}
    except (OSError, pa.ArrowInvalid):
        return None
    if missing_images(path for table in tables.values() for path in linked_paths(table["image"])):
        return None
    splits = datasets.DatasetDict({split: datasets.Dataset(table) for split, table in tables.items()})
    check_columns(splits, name, data)
    return splits


def check_columns(splits: "datasets.DatasetDict", name: ConfigName, data: str | os.PathLike) -> None:
    """Make sure that a label means the class that this package means by it.

    Raises:
        MedfmcError: a column is missing, or the classes are others, or in another order, or not named.
    """
    subset = subset_of(name.subset)
    for split, rows in splits.items():
        absent = sorted({"image", "image_id", "patient_id", subset.label_column} - set(rows.features))
        if absent:
            raise MedfmcError(f"{data} has no column {', '.join(absent)} in {split} of {name}; it is not made by `medfmc build`.")
        label = rows.features[subset.label_column]
        label = getattr(label, "feature", label) if subset.multilabel else label
        found = getattr(label, "names", None)
        if found is None:
            raise MedfmcError(
                f"{data} does not say which classes the numbers in {subset.label_column} of {name} stand for; expected a ClassLabel with "
                f"the names {', '.join(subset.classes)}."
            )
        if tuple(found) != subset.classes:
            raise MedfmcError(
                f"{data} has the classes {', '.join(found)} in {subset.label_column} of {name}; expected {', '.join(subset.classes)}, in "
                "this order. A label there stands for another class; cast the column (`cast_column` with ClassLabel) or build it again."
            )


def _short(names: list[str]) -> str:
    """The names of configs, the many few-shot ones by their number and an example."""
    few_shot = [name for name in names if "shot" in name]
    rest = [name for name in names if "shot" not in name]
    return ", ".join(rest + ([f"{len(few_shot)} few-shot configs such as {few_shot[0]}"] if few_shot else []))


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


def linked_paths(images: "pa.ChunkedArray") -> list[str]:
    """The distinct paths of an image column whose images are linked, not embedded."""
    import pyarrow.compute as pc

    embedded = pc.is_valid(pc.struct_field(images, "bytes"))
    return pc.unique(pc.struct_field(images, "path").filter(pc.invert(embedded))).to_pylist()


def missing_images(paths: Iterable[str]) -> list[str]:
    """Those of the paths that do not exist, sorted. Each folder is listed once instead of asking for every file."""
    wanted = defaultdict(set)
    for path in paths:
        folder, name = os.path.split(path)
        wanted[folder].add(name)
    lost = []
    for folder, names in wanted.items():
        try:
            with os.scandir(folder) as entries:
                lost += [str(Path(folder, name)) for name in names.difference(entry.name for entry in entries)]
        except OSError:
            lost += [str(Path(folder, name)) for name in names]
    return sorted(lost)


def _column(dataset: "datasets.Dataset", name: str) -> "pa.ChunkedArray":
    """A column as Arrow, in row order, whether or not the dataset was selected from or shuffled."""
    return dataset.select_columns([name]).with_format("arrow")[:][name]


def targets_of(dataset: "datasets.Dataset", subset: Subset) -> np.ndarray:
    """The labels of all rows, int64: class indices of shape (n,), or multi-hot of shape (n, classes); -1 where unlabelled."""
    return targets_of_column(_column(dataset, subset.label_column), subset)


def targets_of_column(column: "pa.ChunkedArray", subset: Subset) -> np.ndarray:
    """What `targets_of` returns, from the label column in Arrow."""
    import pyarrow.compute as pc

    column = column.combine_chunks()
    if not subset.multilabel:
        return pc.fill_null(column, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    targets = np.zeros((len(column), len(subset.classes)), np.int64)
    rows, classes = pc.list_parent_indices(column), pc.list_flatten(column)
    targets[rows.to_numpy(zero_copy_only=False), classes.to_numpy(zero_copy_only=False)] = 1
    targets[pc.is_null(column).to_numpy(zero_copy_only=False)] = -1
    return targets


def rows_digest(image_ids: list[str], targets: np.ndarray) -> str:
    """SHA-256 (hex) of the image ids and labels of some rows, in order."""
    digest = hashlib.sha256(json.dumps([image_ids, targets.shape]).encode())
    digest.update(np.ascontiguousarray(targets, "<i8").tobytes())
    return digest.hexdigest()


def images_digest(image_ids: list[str], image_sha256: list[str], grey: GreyRange | None = None) -> str:
    """SHA-256 (hex) of what some images are, whatever their order and however often each comes, and of how deep ones are read."""
    files = hashlib.sha256(json.dumps(sorted(set(zip(image_ids, image_sha256)))).encode()).hexdigest()
    return files if grey in (None, FULL) else hashlib.sha256(f"{files} {grey}".encode()).hexdigest()


def fingerprint(splits: "datasets.DatasetDict", subset: Subset) -> str:
    """SHA-256 (hex) of what determines a result: for each split its name, and image_id, label and image of every row in order.

    Paths do not count: the same config linked, embedded, moved or published has the same fingerprint. Images count by the digests that
    were taken when the data set was built; builds from before version 0.3.0 have none, so that these are another data set.
    """
    parts = {name: _split_parts(split, subset) for name, split in sorted(splits.items())}
    return hashlib.sha256(json.dumps([subset.key, parts]).encode()).hexdigest()


def split_digest(split: "datasets.Dataset", subset: Subset) -> str:
    """SHA-256 (hex) of the rows of one split, as `fingerprint` counts them."""
    return hashlib.sha256(json.dumps(_split_parts(split, subset)).encode()).hexdigest()


def _split_parts(split: "datasets.Dataset", subset: Subset) -> list[str]:
    image_ids = _column(split, "image_id").to_pylist()
    parts = [rows_digest(image_ids, targets_of(split, subset))]
    if "image_sha256" in split.features:
        parts.append(images_digest(image_ids, _column(split, "image_sha256").to_pylist()))
    return parts
