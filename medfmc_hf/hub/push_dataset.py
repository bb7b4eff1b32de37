"""Publishes a build with embedded images, in batches of files: a linked build is embedded on the way and never doubled on disk."""

import copy
import errno
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.audit import Report, check_build
from ..data.dataset_card import dataset_card
from ..data.loading import MANIFEST, images_digest, read_manifest
from ..data.parquet import SHARD_BYTES, EmbeddedImages, linked_files, shards_of, write_embedded
from ..errors import MedfmcError
from ..evaluation.experiments import seedless
from ..hub_answers import status_of
from ..images.grey_range import grey_range_of
from ..private_names import is_uploaded
from ..progress import bar, notify
from ..subsets import SUBSETS, ConfigName
from ..version import __version__
from .journal import Journal
from .published_build import PublishedBuild, files_named, published_build
from .repository import Repository, Upload, check_repo_id, commit, look, open_repository, preupload

if TYPE_CHECKING:
    import pyarrow as pa
    from huggingface_hub import CommitOperationAdd

BATCH_FILES = 50  # files per batch; five are sent in parallel
RIGHTS = (
    "the images of MedFMC are other people's, and its releases state different licences: CC0 1.0 with a note against "
    "diagnosis-oriented use (NeoJaundice on figshare), CC BY-SA 4.0 (OpenDataLab), Apache-2.0 for the project (the official "
    "repository), and access for participants only (Grand Challenge). Only you can know what yours allows. Read the licence of "
    "the release that you downloaded, and if it lets you publish the images, privately or not, confirm it with --i-have-the-rights."
)


@dataclass(frozen=True)
class Part:
    """A Parquet file of the build, and the files that it becomes in the repository: itself, or shards with embedded images.

    Attributes:
        file: path below the build.
        subset: key of the subset of its rows.
        key: text that changes with everything that determines the bytes of the published files.
        operations: commit operations of the files sent so far, by path in the repository.
    """

    file: str
    subset: str
    key: str
    operations: dict[str, "CommitOperationAdd"]


@dataclass(frozen=True)
class WaitingFile:
    """A local file that is ready to be sent.

    Attributes:
        part: part of the build that becomes this file.
        path: path in the repository.
        local: path on this machine.
    """

    part: Part
    path: str
    local: Path


def batches(files: Iterable[WaitingFile]) -> Iterator[list[WaitingFile]]:
    """Split files into batches of at most BATCH_FILES, or fewer that reach SHARD_BYTES. Files are made lazily, a batch at a time."""
    batch: list[WaitingFile] = []
    size = 0
    for file in files:
        batch.append(file)
        size += file.local.stat().st_size
        if len(batch) == BATCH_FILES or size >= SHARD_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@dataclass
class DatasetPush:
    """One push of a build. Constructing it reads and checks; calling it sends.

    Attributes:
        folder: folder of the build, linked or embedded.
        repo_id: `ORG/medfmc`.
        rights: whether the user confirms that the images may be published.
        max_side: longer side, in pixels, that larger images are shrunk to; None for no limit. For linked builds only.
        public: whether a new repository is public.
        overwrite: whether to write into a repository that holds something else.
        prune: whether to remove the subsets and configs that the repository holds and `folder` does not.
    """

    folder: Path
    repo_id: str
    rights: bool = False
    max_side: int | None = None
    public: bool = False
    overwrite: bool = False
    prune: bool = False

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id)
        self.folder = Path(self.folder)
        self.manifest: dict[str, Any] = read_manifest(self.folder)
        self.linked = self.manifest["form"] == "linked"
        if self.max_side is not None and (self.max_side < 1 or not self.linked):
            found = f"{self.folder} is embedded already" if not self.linked else f"got {self.max_side}"
            raise MedfmcError(f"--max-side is a number of pixels and shrinks the images of a linked build; {found}.")

    def preview(self, *, offline: bool = False) -> Upload:
        """Estimate what would be sent, and list what would be removed. Nothing is created or sent.

        Images that would be shrunk are counted at their present size.

        Args:
            offline: whether to skip looking at the Hub; then it is not known what would be removed.
        """
        upload = self._upload()
        there = self._there(None if offline else look(upload))
        upload.unmade = self._sizes()
        upload.files |= self._texts(self.manifest, check_build(self.folder))
        upload.removed = there.stale(upload.unmade)
        return upload

    def __call__(self) -> str:
        """Publish. Returns the commit's URL.

        Raises:
            MedfmcError: the rights are not confirmed, the build is broken, or the Hub rejected the push. A later push resumes.
        """
        if not self.rights:
            raise MedfmcError(RIGHTS)
        report = check_build(self.folder)
        if report.all_mistakes:
            raise MedfmcError(f"{self.folder} has mistakes (`medfmc check` lists them all); the first is: {report.all_mistakes[0]}")
        upload = self._upload()
        repository, journal = open_repository(upload), Journal("dataset", self.repo_id)
        there = self._there(repository)
        parts = self._parts(journal)
        try:
            self._send(parts, repository, journal)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise MedfmcError(f"the disk of {tempfile.gettempdir()} is full; set TMPDIR to a folder with a gigabyte or two.") from error
        manifest = there.merged(self._published_manifest(parts, journal))
        upload.files |= self._texts(manifest, report, there.card())
        upload.removed = there.stale(files_named(manifest["configs"]))
        page = self._commit(repository, [operation for part in parts for operation in part.operations.values()], journal)
        journal.clear()
        return page

    def _upload(self) -> Upload:
        return Upload(self.repo_id, "dataset", {}, "Add MedFMC", (MANIFEST,), [], self.public, self.overwrite)

    def _there(self, repository: Repository | None) -> PublishedBuild:
        """The build that the repository holds.

        Raises:
            MedfmcError: this build cannot be pushed beside it.
        """
        if self.prune:
            return published_build(repository, SUBSETS, self.manifest["schema"])
        there = published_build(repository, self.manifest["subsets"], self.manifest["schema"])
        there.check_beside(self.manifest | ({"max_side": self.max_side} if self.linked else {}))
        return there

    def _files(self) -> dict[str, str]:
        """Every file of the build, with its subset; equal splits share a file."""
        return {
            file: ConfigName.parse(config).subset
            for config, splits in self.manifest["configs"].items()
            for split in splits.values()
            for file in split["files"]
        }

    def _parts(self, journal: Journal) -> list[Part]:
        """The files of the build, with the operations of an earlier push."""
        return [Part(file, subset, key := self._key(file), journal.uploaded(key)) for file, subset in self._files().items()]

    def _sizes(self) -> dict[str, int]:
        """Estimated bytes of the published files, by path in the repository."""
        if not self.linked:
            return {file: (self.folder / file).stat().st_size for file in self._files()}
        sizes: dict[str, int] = {}
        for file in self._files():
            images = EmbeddedImages(Path(), None)
            shards = self._shards(file, images)
            sizes |= {name: sum(map(images.size, linked_files(rows))) for name, rows in shards.items()}
        return sizes

    def _send(self, parts: list[Part], repository: Repository, journal: Journal) -> None:
        """Send every file that the Hub does not have, and record it in its part and in the journal."""
        with tempfile.TemporaryDirectory(prefix="medfmc-push-") as temporary:
            for batch in batches(self._waiting(parts, journal, Path(temporary))):
                operations = preupload(repository, {file.path: file.local for file in batch})
                for file in batch:
                    operation = file.part.operations[file.path] = operations[file.path]
                    if is_uploaded(operation):
                        journal.add(file.part.key, operation)
                    if self.linked:
                        file.local.unlink()

    def _waiting(self, parts: list[Part], journal: Journal, temporary: Path) -> Iterator[WaitingFile]:
        """The files that the Hub does not have. Those of a linked build are written lazily, one by one."""
        for subset, of_subset in groupby(bar(parts, desc="publishing", unit="file"), key=lambda part: part.subset):
            images = EmbeddedImages(temporary / subset, self.max_side)
            for part in of_subset:
                if journal.is_complete(part.key):
                    continue
                if self.linked:
                    shards = self._shards(part.file, images)
                    journal.expect(part.key, shards, self._new_digests(shards))
                    for path in shards.keys() - part.operations.keys():
                        local = temporary / path.replace("/", "-")
                        write_embedded(shards[path], local, images)
                        yield WaitingFile(part, path, local)
                else:
                    journal.expect(part.key, [part.file])
                    yield WaitingFile(part, part.file, self.folder / part.file)
            shutil.rmtree(images.spool, ignore_errors=True)  # the next subset does not use these shrunk images

    def _shards(self, file: str, images: EmbeddedImages) -> dict[str, "pa.Table"]:
        """The files that a linked file of the build becomes, with the rows of each."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.folder / file, partitioning=None)
        try:
            has_digests = "image_sha256" in table.column_names  # builds before version 0.3.0 lack them
            images.prepare(linked_files(table), table["image_sha256"].to_pylist() if has_digests else None)
            if has_digests:
                table = images.with_digests(table)
            # A build names its files by a content hash, which changes here; on the Hub, commits tell versions apart.
            return shards_of(table, re.sub(r"(-[0-9a-f]{12})?\.parquet$", "", file), images)
        except FileNotFoundError as error:
            raise MedfmcError(
                f"{error.filename} is not there; if the download was moved, build the data set again (medfmc build)."
            ) from None

    def _key(self, file: str) -> str:
        """`Part.key` of a file of the build."""
        path = self.folder / file
        if not self.linked:
            return f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}"
        import pyarrow.parquet as pq

        digest = hashlib.sha256(path.read_bytes())
        for image in linked_files(pq.read_table(path, columns=["image"], partitioning=None)):
            status = Path(image).stat() if Path(image).exists() else None
            digest.update(repr(status and (status.st_size, status.st_mtime_ns)).encode())
        kind = "" if self.max_side is None else " with their own digests"  # earlier versions uploaded the digests of the originals
        return f"{file} {digest.hexdigest()} {self.max_side}{kind} {__version__}"

    def _new_digests(self, shards: dict[str, "pa.Table"]) -> dict[str, str]:
        """Image id -> SHA-256 (hex) of the images of a part, if images may be shrunk; else empty."""
        if self.max_side is None:
            return {}
        columns = [rows.select(["image_id", "image_sha256"]).to_pydict() for rows in shards.values() if "image_sha256" in rows.column_names]
        return {image_id: digest for each in columns for image_id, digest in zip(each["image_id"], each["image_sha256"])}

    def _published_manifest(self, parts: list[Part], journal: Journal) -> dict[str, Any]:
        """The published manifest: embedded, with the digests of shrunk images, and without folders of this machine."""
        if not self.linked:
            return self.manifest
        uploaded = {part.file: [part.operations[path] for path in sorted(part.operations)] for part in parts}
        manifest = copy.deepcopy(self.manifest) | {"form": "embedded", "max_side": self.max_side, "sources": []}
        for splits in manifest["configs"].values():
            for split in splits.values():
                operations = [operation for file in split["files"] for operation in uploaded[file]]
                split["files"] = [operation.path_in_repo for operation in operations]
                split["bytes"] = sum(operation.upload_info.size for operation in operations)
        for key, entry in manifest["subsets"].items():
            digests = {image: digest for part in parts if part.subset == key for image, digest in journal.digests(part.key).items()}
            if digests:
                entry["images_sha256"] = images_digest(list(digests), list(digests.values()), grey_range_of(entry.get("grey_range")))
            for source in self.manifest["sources"]:
                entry["notes"] = [note.replace(source, Path(source).name) for note in entry["notes"]]
        return manifest

    def _texts(self, manifest: dict[str, Any], report: Report, earlier: str = "") -> dict[str, bytes]:
        absent = {key: "not in the build it was published from" for key in SUBSETS if key not in manifest["subsets"]}
        texts = {
            "README.md": dataset_card(manifest, report, absent, self.repo_id, earlier),
            "eval.yaml": eval_yaml(manifest),
            MANIFEST: json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
        }
        return {path: text.encode() for path, text in texts.items()}

    def _commit(self, repository: Repository, sent: list["CommitOperationAdd"], journal: Journal) -> str:
        try:
            return commit(repository, sent)
        except MedfmcError as error:
            if status_of(error.__cause__) != 400:
                raise
            if "lfs pointer" in str(error).lower():
                journal.clear()
                raise MedfmcError("the Hub no longer has all that an earlier push sent; run the same command again to send it.") from error
            if "eval.yaml" not in str(error):
                raise
            notify(f"publishing without eval.yaml, because the Hub does not know this benchmark yet: {error}")
            del repository.upload.files["eval.yaml"]
            return commit(repository, sent)


def eval_yaml(manifest: dict[str, Any]) -> str:
    """The benchmark's tasks for the Hub: one per subset, number of shots and protocol, for all seeds, with a labelled test split."""
    import yaml

    tasks: dict[str, dict[str, str]] = {}
    for name, splits in manifest["configs"].items():
        if "test" in splits and ConfigName.parse(name).variant != "challenge":
            tasks.setdefault(seedless(name), {"id": seedless(name), "config": name, "split": "test"})
    description = (
        "Few-shot adaptation of foundation models to five sets of medical images. A task's value is the mean of accuracy (single-label) "
        "or mAP (multi-label) and AUC on the test split, in percent, averaged over the seeds 0 to 4 of the support set."
    )
    head = {"name": "MedFMC", "description": description, "evaluation_framework": "medfmc_hf", "tasks": list(tasks.values())}
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=100)
