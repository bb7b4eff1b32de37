"""Publishes a build with its pictures inside, a file at a time: a linked build is embedded on the way and never lies on disk twice."""

import copy
import errno
import hashlib
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..data.card import dataset_card
from ..data.check import Report, check_build
from ..data.loading import MANIFEST, read_manifest
from ..data.parquet import SHARD_BYTES, Pictures, linked_files, shards_of, write_embedded
from ..errors import MedfmcError
from ..progress import bar, say
from ..publish.experiment import seedless
from ..subsets import SUBSETS, ConfigName
from .errors import status_of
from .journal import Journal
from .repository import Repository, Upload, check_repo_id, commit, open_repository, preupload

if TYPE_CHECKING:
    import pyarrow as pa
    from huggingface_hub import CommitOperationAdd

BATCH_FILES = 50  # that are sent at a time, five of them at once
RIGHTS = (
    "the pictures of MedFMC are other people's, and its releases state different licences: CC0 1.0 with a note against "
    "diagnosis-oriented use (NeoJaundice on figshare), CC BY-SA 4.0 (OpenDataLab), Apache-2.0 for the project (the official "
    "repository), and access for participants alone (Grand Challenge). Nobody but you can know what yours allows. Read the licence of "
    "the release that you downloaded, and if it lets you publish the pictures, privately or not, say so with --i-have-the-rights."
)


@dataclass
class DatasetPush:
    """One push of a build. Making it reads and checks; calling it sends.

    Attributes:
        folder: the build, linked or embedded.
        repo_id: `ORG/medfmc`.
        rights: the user's word that the pictures may be published.
        max_side: pictures with a longer side above this many pixels are shrunk to it; None for none. Of a linked build only.
        public: whether a new repository is public.
        overwrite: write into a repository that holds something else.
    """

    folder: Path
    repo_id: str
    rights: bool = False
    max_side: int | None = None
    public: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id)
        self.folder = Path(self.folder)
        self.manifest = read_manifest(self.folder)
        self.linked = self.manifest["form"] == "linked"
        if self.max_side is not None and (self.max_side < 1 or not self.linked):
            found = f"{self.folder} is embedded already" if not self.linked else f"got {self.max_side}"
            raise MedfmcError(f"--max-side is a number of pixels and shrinks the pictures of a linked build; {found}.")

    def sizes(self) -> dict[str, int]:
        """About what would be sent: path -> bytes. Pictures that are to be shrunk are counted as they are. Nothing is sent."""
        sizes = {}
        for file, _ in self._parts():
            if self.linked:
                pictures = Pictures(Path(), None)
                shards = self._shards(file, pictures)
                sizes |= {name: sum(map(pictures.size, linked_files(rows))) for name, rows in shards.items()}
            else:
                sizes[file] = (self.folder / file).stat().st_size
        texts = self._texts(self.manifest, check_build(self.folder))
        return dict(sorted((sizes | {path: len(text) for path, text in texts.items()}).items()))

    def __call__(self) -> str:
        """Publish. Returns the commit's page.

        Raises:
            MedfmcError: no word on the rights, the build is broken, or the Hub did not take it. What was uploaded by then is remembered.
        """
        if not self.rights:
            raise MedfmcError(RIGHTS)
        report = check_build(self.folder)
        if report.all_mistakes:
            raise MedfmcError(f"{self.folder} has mistakes, `medfmc check` lists them all; the first is: {report.all_mistakes[0]}")
        upload = Upload(self.repo_id, "dataset", {}, "Add MedFMC", MANIFEST, ("data/*.parquet",), self.public, self.overwrite)
        repository, journal = open_repository(upload), Journal("dataset", self.repo_id)
        try:
            files = self._upload(repository, journal)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise MedfmcError(f"the disk of {tempfile.gettempdir()} is full; set TMPDIR to a folder with a gigabyte or two.") from error
        upload.files = dict(self._texts(self._published_manifest(files), report))
        page = self._commit(repository, [operation for part in files.values() for operation in part.values()], journal)
        journal.clear()
        return page

    def _commit(self, repository: Repository, sent: list["CommitOperationAdd"], journal: Journal) -> str:
        try:
            return commit(repository, sent)
        except MedfmcError as error:
            if status_of(error.__cause__) != 400:
                raise
            if "lfs pointer" in str(error).lower():
                journal.clear()
                raise MedfmcError(
                    "the Hub no longer has all that an earlier push sent; run the same command again to send it anew."
                ) from error
            if "eval.yaml" not in str(error):
                raise
            say(f"without eval.yaml, for the Hub does not know this benchmark yet: {error}")
            del repository.upload.files["eval.yaml"]
            return commit(repository, sent)

    def _parts(self) -> list[tuple[str, str]]:
        """Every file of the build once, with the subset it is of: splits that are the same are the same file."""
        files = {
            file: ConfigName.parse(config).subset
            for config, splits in self.manifest["configs"].items()
            for split in splits.values()
            for file in split["files"]
        }
        return list(files.items())

    def _upload(self, repository: Repository, journal: Journal) -> dict[str, dict[str, "CommitOperationAdd"]]:
        """Send every file that the Hub does not have. Returns for each file of the build the files it became."""
        sent: dict[str, dict[str, CommitOperationAdd]] = {}
        batch: list[tuple[str, str, str, Path]] = []  # file of the build, its key, path in the repository, local file

        def flush() -> None:
            operations = preupload(repository, {name: path for _, _, name, path in batch})
            for file, key, name, path in batch:
                sent[file][name] = operations[name]
                if operations[name]._is_uploaded:
                    journal.add(key, operations[name])
                if self.linked:
                    path.unlink()
            batch.clear()

        with tempfile.TemporaryDirectory(prefix="medfmc-push-") as temporary:
            pictures, of_subset = None, None
            for file, subset in bar(self._parts(), desc="publishing", unit="file"):
                if subset != of_subset:  # a subset's smaller copies are of no use to the next
                    shutil.rmtree(Path(temporary, str(of_subset)), ignore_errors=True)
                    pictures, of_subset = Pictures(Path(temporary, subset), self.max_side), subset
                key = self._key(file)
                sent[file] = journal.uploaded(key)
                if journal.is_complete(key):
                    continue
                shards = self._shards(file, pictures) if self.linked else {file: None}
                journal.expect(key, shards)
                for name in shards.keys() - sent[file].keys():
                    path = self.folder / file
                    if self.linked:
                        path = Path(temporary, f"{len(batch)}.parquet")
                        write_embedded(shards[name], path, pictures)
                    batch.append((file, key, name, path))
                    if len(batch) == BATCH_FILES or sum(waiting.stat().st_size for *_, waiting in batch) >= SHARD_BYTES:
                        flush()
            flush()
        return sent

    def _shards(self, file: str, pictures: Pictures) -> dict[str, "pa.Table"]:
        """The files that a linked file of the build becomes, and the rows of each."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.folder / file, partitioning=None)
        try:
            pictures.prepare(linked_files(table))
            # A build names its files by their content, and that changes here; the Hub tells versions apart by itself.
            return shards_of(table, re.sub(r"(-[0-9a-f]{12})?\.parquet$", "", file), pictures)
        except FileNotFoundError as error:
            raise MedfmcError(
                f"{error.filename} is not there; if the download was moved, build the data set again (medfmc build)."
            ) from None

    def _key(self, file: str) -> str:
        """What changes with everything that determines the bytes of the files that a file of the build becomes."""
        path = self.folder / file
        if not self.linked:
            return f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}"
        import pyarrow.parquet as pq

        digest = hashlib.sha256(path.read_bytes())
        for picture in linked_files(pq.read_table(path, columns=["image"], partitioning=None)):
            status = Path(picture).stat() if Path(picture).exists() else None
            digest.update(repr(status and (status.st_size, status.st_mtime_ns)).encode())
        return f"{file} {digest.hexdigest()} {self.max_side} {__version__}"

    def _published_manifest(self, files: dict[str, dict[str, "CommitOperationAdd"]]) -> dict:
        """The manifest of what is published: embedded, and without the folders of this machine."""
        if not self.linked:
            return self.manifest
        manifest = copy.deepcopy(self.manifest) | {"form": "embedded", "max_side": self.max_side, "sources": []}
        for splits in manifest["configs"].values():
            for split in splits.values():
                parts = [operation for file in split["files"] for _, operation in sorted(files[file].items())]
                split["files"] = [operation.path_in_repo for operation in parts]
                split["bytes"] = sum(operation.upload_info.size for operation in parts)
        for entry in manifest["subsets"].values():
            for source in self.manifest["sources"]:
                entry["notes"] = [note.replace(source, Path(source).name) for note in entry["notes"]]
        return manifest

    def _texts(self, manifest: dict, report: Report) -> dict[str, bytes]:
        absent = {key: "not in the build it was published from" for key in SUBSETS if key not in manifest["subsets"]}
        texts = {
            "README.md": dataset_card(manifest, report, absent, self.repo_id),
            "eval.yaml": eval_yaml(manifest),
            MANIFEST: json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
        }
        return {path: text.encode() for path, text in texts.items()}


def eval_yaml(manifest: dict) -> str:
    """The benchmark's tasks for the Hub: one for each subset, number of shots and protocol, whatever the draw, that has a labelled test."""
    import yaml

    tasks = {}
    for name, splits in manifest["configs"].items():
        if "test" in splits and ConfigName.parse(name).variant != "challenge":
            tasks.setdefault(seedless(name), {"id": seedless(name), "config": name, "split": "test"})
    description = (
        "Few-shot adaptation of foundation models to five sets of medical images. A task's value is the mean of accuracy (single-label) "
        "or mAP (multi-label) and AUC on the test split, in percent, averaged over the draws of the support set (seeds 0 to 4)."
    )
    head = {"name": "MedFMC", "description": description, "evaluation_framework": "medfmc_hf", "tasks": list(tasks.values())}
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=100)
