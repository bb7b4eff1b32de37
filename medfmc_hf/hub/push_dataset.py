"""Publishes a build with its images inside, a file at a time: a linked build is embedded on the way and never lies on disk twice."""

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

from ..data.audit import Report, check_build
from ..data.dataset_card import dataset_card
from ..data.loading import MANIFEST, read_manifest
from ..data.parquet import SHARD_BYTES, EmbeddedImages, linked_files, shards_of, write_embedded
from ..errors import MedfmcError
from ..evaluation.experiments import seedless
from ..hub_answers import explained, status_of
from ..private_names import is_uploaded
from ..progress import bar, notify
from ..subsets import SUBSETS, ConfigName
from ..version import __version__
from .journal import Journal
from .repository import Repository, Upload, check_repo_id, commit, look, open_repository, preupload

if TYPE_CHECKING:
    import pyarrow as pa
    from huggingface_hub import CommitOperationAdd

BATCH_FILES = 50  # that are sent at a time, five of them at once
RIGHTS = (
    "the images of MedFMC are other people's, and its releases state different licences: CC0 1.0 with a note against "
    "diagnosis-oriented use (NeoJaundice on figshare), CC BY-SA 4.0 (OpenDataLab), Apache-2.0 for the project (the official "
    "repository), and access for participants alone (Grand Challenge). Nobody but you can know what yours allows. Read the licence of "
    "the release that you downloaded, and if it lets you publish the images, privately or not, say so with --i-have-the-rights."
)


@dataclass
class DatasetPush:
    """One push of a build. Making it reads and checks; calling it sends.

    Attributes:
        folder: the build, linked or embedded.
        repo_id: `ORG/medfmc`.
        rights: the user's word that the images may be published.
        max_side: images with a longer side above this many pixels are shrunk to it; None for none. Of a linked build only.
        public: whether a new repository is public.
        overwrite: write into a repository that holds something else.
        prune: remove the subsets and configs that the repository holds and `folder` does not.
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
        self.manifest = read_manifest(self.folder)
        self.linked = self.manifest["form"] == "linked"
        if self.max_side is not None and (self.max_side < 1 or not self.linked):
            found = f"{self.folder} is embedded already" if not self.linked else f"got {self.max_side}"
            raise MedfmcError(f"--max-side is a number of pixels and shrinks the images of a linked build; {found}.")

    def preview(self, *, offline: bool = False) -> tuple[dict[str, int], list[str]]:
        """About what would be sent, path -> bytes, and what would be removed. Nothing is made or sent.

        EmbeddedImages that are to be shrunk are counted as they are.

        Args:
            offline: do not look at what the Hub holds; then nothing is known of what would be removed.
        """
        found = None if offline else look(self._upload_of())
        there = self._there(found)
        sizes = self._sizes()
        removed = self._stale(there, set(sizes), found)
        return sizes, removed

    def _sizes(self) -> dict[str, int]:
        sizes = {}
        for file, _ in self._parts():
            if self.linked:
                images = EmbeddedImages(Path(), None)
                shards = self._shards(file, images)
                sizes |= {name: sum(map(images.size, linked_files(rows))) for name, rows in shards.items()}
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
        upload = self._upload_of()
        repository, journal = open_repository(upload), Journal("dataset", self.repo_id)
        there = self._there(repository)
        try:
            files = self._upload(repository, journal)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise MedfmcError(f"the disk of {tempfile.gettempdir()} is full; set TMPDIR to a folder with a gigabyte or two.") from error
        manifest = self._merged(self._published_manifest(files), there)
        upload.files = dict(self._texts(manifest, report, self._card_there(repository, there)))
        upload.removed = self._stale(there, _files_named(manifest), repository)
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
            notify(f"without eval.yaml, for the Hub does not know this benchmark yet: {error}")
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
                if is_uploaded(operations[name]):
                    journal.add(key, operations[name])
                if self.linked:
                    path.unlink()
            batch.clear()

        with tempfile.TemporaryDirectory(prefix="medfmc-push-") as temporary:
            images, of_subset = None, None
            for file, subset in bar(self._parts(), desc="publishing", unit="file"):
                if subset != of_subset:  # a subset's smaller copies are of no use to the next
                    shutil.rmtree(Path(temporary, str(of_subset)), ignore_errors=True)
                    images, of_subset = EmbeddedImages(Path(temporary, subset), self.max_side), subset
                key = self._key(file)
                sent[file] = journal.uploaded(key)
                if journal.is_complete(key):
                    continue
                shards = self._shards(file, images) if self.linked else {file: None}
                journal.expect(key, shards)
                for name in shards.keys() - sent[file].keys():
                    path = self.folder / file
                    if self.linked:
                        path = Path(temporary, f"{len(batch)}.parquet")
                        write_embedded(shards[name], path, images)
                    batch.append((file, key, name, path))
                    if len(batch) == BATCH_FILES or sum(waiting.stat().st_size for *_, waiting in batch) >= SHARD_BYTES:
                        flush()
            flush()
        return sent

    def _shards(self, file: str, images: EmbeddedImages) -> dict[str, "pa.Table"]:
        """The files that a linked file of the build becomes, and the rows of each."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.folder / file, partitioning=None)
        try:
            images.prepare(linked_files(table))
            # A build names its files by their content, and that changes here; the Hub tells versions apart by itself.
            return shards_of(table, re.sub(r"(-[0-9a-f]{12})?\.parquet$", "", file), images)
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
        for image in linked_files(pq.read_table(path, columns=["image"], partitioning=None)):
            status = Path(image).stat() if Path(image).exists() else None
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

    def _upload_of(self) -> Upload:
        return Upload(self.repo_id, "dataset", {}, "Add MedFMC", (MANIFEST,), [], self.public, self.overwrite)

    def _there(self, repository: Repository | None) -> dict | None:
        """The manifest of what the repository holds; None where it holds no build.

        Raises:
            MedfmcError: what it holds cannot stand beside what is pushed.
        """
        if repository is None or MANIFEST not in repository.paths:
            return None
        there = json.loads(_text_of(repository, MANIFEST))
        if not isinstance(there, dict) or there.get("schema") != self.manifest["schema"]:
            raise MedfmcError(f"{repository.upload.url} holds a build of another layout; give another --repo-id, or remove it there first.")
        if self.prune:
            return there
        kept = sorted(set(there["subsets"]) - set(self.manifest["subsets"]))
        side = self.max_side if self.linked else self.manifest["max_side"]
        if kept and there["max_side"] != side:
            raise MedfmcError(
                f"{repository.upload.url} holds {', '.join(kept)} with images of at most {there['max_side'] or 'any number of'} pixels a "
                f"side, and this push has {side or 'any number of'}; give the same --max-side, another --repo-id, or --prune to drop them."
            )
        lost = [
            name
            for name in there["configs"]
            if ConfigName.parse(name).subset in self.manifest["subsets"] and name not in self.manifest["configs"]
        ]
        if lost:
            raise MedfmcError(
                f"{repository.upload.url} has {len(lost)} configs that this build lacks, such as {lost[0]}; build with the lists that they "
                "are made from, or give --prune to remove them."
            )
        return there

    def _carries(self, config: str) -> bool:
        """Whether a config is of a subset that is pushed."""
        return ConfigName.parse(config).subset in self.manifest["subsets"]

    def _merged(self, manifest: dict, there: dict | None) -> dict:
        """What the repository will hold: what is pushed, and the other subsets that it holds already."""
        if there is None or self.prune:
            return manifest
        kept = {key: entry for key, entry in there["subsets"].items() if key not in manifest["subsets"]}
        subsets = {**kept, **manifest["subsets"]}
        configs = {name: splits for name, splits in there["configs"].items() if ConfigName.parse(name).subset in kept}
        configs |= manifest["configs"]
        order = {key: place for place, key in enumerate(SUBSETS)}
        return manifest | {
            "subsets": {key: subsets[key] for key in sorted(subsets, key=order.__getitem__)},
            "configs": dict(sorted(configs.items(), key=lambda item: order[ConfigName.parse(item[0]).subset])),
        }

    def _stale(self, there: dict | None, named: set[str], repository: Repository | None) -> list[str]:
        """The files of the build in the repository that no config will name any more; never a file that it does not name."""
        if there is None:
            return []
        replaced = {
            name: splits
            for name, splits in there["configs"].items()
            if self.prune or ConfigName.parse(name).subset in self.manifest["subsets"]
        }
        return sorted(_files_named({"configs": replaced}) & set(repository.paths) - named)

    def _card_there(self, repository: Repository, there: dict | None) -> str:
        return _text_of(repository, "README.md") if there is not None and not self.prune and "README.md" in repository.paths else ""

    def _texts(self, manifest: dict, report: Report, earlier: str = "") -> dict[str, bytes]:
        absent = {key: "not in the build it was published from" for key in SUBSETS if key not in manifest["subsets"]}
        texts = {
            "README.md": dataset_card(manifest, report, absent, self.repo_id, earlier),
            "eval.yaml": eval_yaml(manifest),
            MANIFEST: json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
        }
        return {path: text.encode() for path, text in texts.items()}


def _files_named(manifest: dict) -> set[str]:
    """The Parquet files that the configs of a manifest name."""
    return {file for splits in manifest["configs"].values() for split in splits.values() for file in split["files"]}


def _text_of(repository: Repository, path: str) -> str:
    """A text file of a repository, as it is at the commit that was looked at."""
    from huggingface_hub import hf_hub_download

    upload = repository.upload
    with explained(upload.repo_id, reading=True):
        found = hf_hub_download(upload.repo_id, path, repo_type=upload.kind, revision=repository.sha)
    return Path(found).read_text(encoding="utf-8")


def eval_yaml(manifest: dict) -> str:
    """The benchmark's tasks for the Hub: one for each subset, number of shots and protocol, whatever the seed, that has a labelled test."""
    import yaml

    tasks = {}
    for name, splits in manifest["configs"].items():
        if "test" in splits and ConfigName.parse(name).variant != "challenge":
            tasks.setdefault(seedless(name), {"id": seedless(name), "config": name, "split": "test"})
    description = (
        "Few-shot adaptation of foundation models to five sets of medical images. A task's value is the mean of accuracy (single-label) "
        "or mAP (multi-label) and AUC on the test split, in percent, averaged over the seeds 0 to 4 of the support set."
    )
    head = {"name": "MedFMC", "description": description, "evaluation_framework": "medfmc_hf", "tasks": list(tasks.values())}
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=100)
