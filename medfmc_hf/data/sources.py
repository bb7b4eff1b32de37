"""Finds the images, label tables and lists of MedFMC below the folders a user gives, in any layout a release or a repository has."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from .. import tables
from ..errors import MedfmcError
from ..subsets import SUBSETS
from . import lists
from .label_tables import IMAGE_EXTENSIONS
from .loading import MANIFEST

_ALIASES = {alias: key for key, subset in SUBSETS.items() for alias in (key, subset.name.lower())} | {"neojaudice": "neojaundice"}
_ARCHIVES = {".zip": "unzip -q {file} -d {folder}", ".tar": "tar -xf {file} -C {folder}", ".gz": "tar -xf {file} -C {folder}",
             ".tgz": "tar -xf {file} -C {folder}", ".7z": "7z x {file} -o{folder}", ".rar": "unrar x {file} {folder}/"}  # fmt: skip
_HIDDEN = (".", "__MACOSX")  # what the names of leftovers start with


@dataclass
class Found:
    """What lies below the sources.

    Attributes:
        image_paths: subset key -> image_id -> absolute paths, the one to use first. Under `""`: those in folders
            that tell no subset.
        tables: subset key -> label tables.
        lists: (subset key, kind of list) -> text lists.
        archives: packed files, which are not read.
        unrecognised: tables in a subset's folder that are not read: under an unknown name, or in another form beside a CSV.
        searched: the folders given.
    """

    image_paths: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    tables: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    lists: dict[tuple[str, str], list[Path]] = field(default_factory=lambda: defaultdict(list))
    archives: list[Path] = field(default_factory=list)
    unrecognised: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    searched: list[Path] = field(default_factory=list)

    def unpacking(self) -> str:
        """The commands that unpack the archives, one a line; empty if there are none."""
        lines = []
        for archive in self.archives:
            folder = archive.parent / archive.name.split(".")[0]
            command = _ARCHIVES[archive.suffix.lower()].format(file=f"'{archive}'", folder=f"'{folder}'")
            lines.append(f"  mkdir -p '{folder}' && {command}")
        return "\n".join(lines)


def find(sources: Iterable[str | os.PathLike]) -> Found:
    """Search some folders. Where two hold the same image, the one of the source named first is used, then the first by path.

    A folder belongs to a subset if it, or the nearest folder above it, is called like the subset in any release (`endo`, `Endo`,
    `ChestDR`, ...) or holds the subset's label table.

    Raises:
        MedfmcError: a source does not exist, is a file, or is a build.
    """
    found = Found()
    for source in sources:
        source = Path(os.path.abspath(Path(source).expanduser()))  # noqa: PTH100 - resolve() would undo the user's symbolic links
        if not source.exists():
            raise MedfmcError(f"there is no {source}; give the folder that holds your MedFMC download.")
        if not source.is_dir():
            hint = "It is packed: unpack it, and give the folder. " if source.suffix.lower() in _ARCHIVES else ""
            found.archives += [source] * bool(hint)
            raise MedfmcError(f"{source} is a file; expected a folder. {hint}{found.unpacking()}".rstrip())
        if (source / MANIFEST).is_file():
            raise MedfmcError(f"{source} is a build already, not a download; give the folder that it was built from.")
        found.searched.append(source)
        for folder, files, above in _walk(source):
            _sort_in(found, folder, files, above)
    return found


def _walk(root: Path) -> Iterator[tuple[Path, list[str], tuple[str, ...]]]:
    """Every folder below `root` with its files and the names of the folders from `root` down to it, all in sorted order.

    Symbolic links are followed once. Hidden folders, macOS's leftovers and builds are passed over.
    """
    seen = set()
    for path, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
        visible = sorted(name for name in files if not name.startswith(_HIDDEN))
        if (real := os.path.realpath(path)) in seen or MANIFEST in visible:
            subfolders.clear()  # and so not walked
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(_HIDDEN))
        folder = Path(path)
        yield folder, visible, (root.name, *folder.relative_to(root).parts)


def _refuse(error: OSError) -> NoReturn:
    raise MedfmcError(f"{error.filename} cannot be read: {error.strerror}.") from None


def _sort_in(found: Found, folder: Path, files: list[str], names: tuple[str, ...]) -> None:
    # A copy in another form beside a CSV is not read: releases are CSV, and some copies lie beside them that people made.
    label_tables = {
        name: key
        for name in files
        if (key := _subset_of_table(name)) and (name.lower().endswith(".csv") or f"{Path(name).stem}.csv" not in files)
    }
    for name, table_key in label_tables.items():
        found.tables[table_key].append(folder / name)
    key = next((_ALIASES[part.lower()] for part in reversed(names) if part.lower() in _ALIASES), None)
    if key is None:
        key = _subset_of_neighbours(folder, set(label_tables.values()))
    images = found.image_paths[key or ""]
    prefix = str(folder) + os.sep
    for name in files:
        stem, dot, extension = name.rpartition(".")
        extension = dot + extension.lower()
        if extension in IMAGE_EXTENSIONS:
            images[stem].append(prefix + name)
        elif extension in _ARCHIVES:
            found.archives.append(folder / name)
        elif extension in (*tables.SUFFIXES, ".xls") and key and name not in label_tables:
            found.unrecognised[key].append(folder / name)
        elif extension == ".txt":
            _sort_list(found, folder / name, key, files, names)


def _sort_list(found: Found, path: Path, key_of_folder: str | None, files: list[str], names: tuple[str, ...]) -> None:
    """Two names are used twice: `test.txt` by Grand Challenge and by the paper, `test_WithoutLabel.txt` by both phases."""
    kind, key = lists.kind_of(path.name) or (None, None)
    key = key or key_of_folder
    if kind is None or key is None:
        return
    if kind == lists.TEST and (lists.PAPER_POOL + ".txt" in files or not SUBSETS[key].challenge):
        kind = lists.PAPER_TEST
    if kind == lists.VALIDATION_PHASE and any(part.lower().replace("-", "_").startswith("medfmc_test") for part in names):
        kind = lists.PRIVATE
    found.lists[key, kind].append(path)


def _subset_of_table(name: str) -> str | None:
    """The subset of a label table by its file name. Browsers add ` (1)` to what is downloaded twice."""
    stem, dot, extension = name.lower().rpartition(".")
    if dot + extension not in tables.SUFFIXES:
        return None
    stem = stem.split(" (")[0].strip()
    for key, subset in SUBSETS.items():
        if stem == subset.table.lower().removesuffix(".csv") or stem in (f"{key}_train", f"{key}_val"):
            return key
    return None


def _subset_of_neighbours(folder: Path, keys: set[str]) -> str | None:
    """The subset of a folder of unknown name: of the only label table in it, or of the only one beside it if it holds the images.

    `keys` are the subsets of the tables in it.
    """
    if not keys and folder.name.lower() in ("images", "image"):
        keys = {key for entry in folder.parent.iterdir() if (key := _subset_of_table(entry.name))}
    return next(iter(keys)) if len(keys) == 1 else None
