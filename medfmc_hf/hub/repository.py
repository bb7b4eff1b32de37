"""Uploads files to a repository on the Hub in one commit, so that all of them become visible at once."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, cast

from ..errors import MedfmcError
from ..hub_answers import LOGIN, explained, is_transient, status_of
from ..private_names import is_uploaded
from ..progress import notify

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, DatasetInfo, ModelInfo, SpaceInfo
    from huggingface_hub.hf_api import CommitOperation, RepoSibling

T = TypeVar("T")
File: TypeAlias = str | os.PathLike[str] | bytes  # a path, or the content itself

WAITS = (1, 2, 4, 8)  # seconds between retries of calls that huggingface_hub does not retry


@dataclass
class Upload:
    """What to upload, and where.

    Attributes:
        repo_id: `ORG/NAME`.
        kind: model, dataset or space.
        files: path in the repository -> a file, or its content.
        message: commit message.
        marks: patterns of paths that identify a repository made by medfmc.
        removed: paths to remove. Nothing else in the repository is ever removed.
        public: whether a new repository is public.
        overwrite: whether to push into a repository that holds something else.
        unmade: for a preview, path in the repository -> estimated bytes of a file that only the push itself makes.
    """

    repo_id: str
    kind: Literal["model", "dataset", "space"]
    files: dict[str, File]
    message: str
    marks: tuple[str, ...]
    removed: list[str] = field(default_factory=list)
    public: bool = False
    overwrite: bool = False
    unmade: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id)

    @property
    def url(self) -> str:
        """The repository's page."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{'' if self.kind == 'model' else self.kind + 's/'}{self.repo_id}"

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        made = {path: len(file) if isinstance(file, bytes) else Path(file).stat().st_size for path, file in self.files.items()}
        return dict(sorted((made | self.unmade).items()))

    def tree(self) -> str:
        """The output of a dry run: every path with its bytes, the total, and what would be removed."""
        sizes = self.sizes()
        width = max((len(f"{size:,}") for size in sizes.values()), default=1)
        lines = [f"{'public' if self.public else 'private'} {self.kind} {self.repo_id}"]
        lines += [f"  {size:>{width},}  {path}" for path, size in sizes.items()]
        lines += [f"  {'removed':>{width}}  {path}" for path in self.removed]
        return "\n".join([*lines, f"{len(sizes)} files, {sum(sizes.values()):,} bytes. Nothing was sent."])


def check_repo_id(repo_id: str) -> None:
    """Raise if `repo_id` is not `ORG/NAME`: a bare name would go to the owner of the token."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError("it has no organisation or user")
    except HFValidationError as error:
        raise MedfmcError(f"{repo_id!r} is not a repository id ({error}); expected ORG/NAME, such as my-lab/medfmc.") from None


@dataclass
class Repository:
    """A repository that may be written to: its latest commit, its paths, and whether it is private (None if unknown)."""

    upload: Upload
    sha: str | None = None
    paths: list[str] = field(default_factory=list)
    private: bool | None = None


def look(upload: Upload) -> Repository | None:
    """The current repository; None if there is none. Nothing is created or sent.

    Raises:
        MedfmcError: there is no token or no network, or a repository of that name exists that must not be written to.
    """
    from huggingface_hub import constants, get_token

    if get_token() is None:
        raise MedfmcError(f"there is no token, and a push needs one. {LOGIN}")
    with explained(upload.repo_id):
        try:
            info = _patiently(lambda: _info(upload))
        except Exception as error:
            if status_of(error) == 404:
                return None
            raise
    sha = info.sha if constants.REGEX_COMMIT_OID.fullmatch(info.sha or "") else None  # other Hub servers may have other commit ids
    found = Repository(upload, sha, [sibling.rfilename for sibling in info.siblings or ()], info.private)
    if found.private is False and not upload.public:
        raise MedfmcError(f"{upload.url} exists and is public; give --public to publish in it, or make it private first.")
    # A new Space has a README.md; an interrupted push leaves a repository without other files.
    empty = set(found.paths) <= {".gitattributes", *(["README.md"] if upload.kind == "space" else [])}
    ours = any(fnmatch(path, mark) for path in found.paths for mark in upload.marks)
    if not empty and not ours and not upload.overwrite:
        raise MedfmcError(
            f"{upload.url} exists and holds something else ({len(found.paths)} files, no {upload.marks[0]}). "
            "Choose another name, or give --overwrite to write into it; its other files stay."
        )
    return found


def _info(upload: Upload, files_metadata: bool = False) -> "ModelInfo | DatasetInfo | SpaceInfo":
    """The Hub's info on a repository. Of the kinds that `repo_info` returns, only kernels have no list of files."""
    from huggingface_hub import HfApi

    info = HfApi().repo_info(upload.repo_id, repo_type=upload.kind, files_metadata=files_metadata)
    return cast("ModelInfo | DatasetInfo | SpaceInfo", info)


def open_repository(upload: Upload) -> Repository:
    """Create the repository, or look at the existing one.

    Raises:
        MedfmcError: there is no token, no permission or no network, or a repository of that name exists that must not be written to.
    """
    from huggingface_hub import HfApi

    found = look(upload)
    if found is None:
        make, sdk = HfApi().create_repo, "gradio" if upload.kind == "space" else None
        with explained(upload.repo_id):
            _patiently(lambda: make(upload.repo_id, repo_type=upload.kind, private=not upload.public, exist_ok=True, space_sdk=sdk))
        found = look(upload)
        if found is None:
            raise MedfmcError(f"{upload.url} was created but is not visible yet; run the same command again in a minute.")
    if found.private and upload.public:
        notify(f"{upload.url} is private and stays so; you can make it public in its settings.")
    return found


def commit(repository: Repository, uploaded: Iterable["CommitOperationAdd"] = ()) -> str:
    """Upload the files that are not uploaded yet and commit all of them at once. Returns the commit's URL.

    `HfApi.upload_folder` does not suffice: it splits large uploads into several commits.

    Args:
        repository: repository from `open_repository`; the files of its upload are sent.
        uploaded: operations of files that `preupload` has sent.

    Raises:
        MedfmcError: the Hub rejected the commit. Then the repository is unchanged.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    upload = repository.upload
    new = [CommitOperationAdd(path, file if isinstance(file, bytes) else str(file)) for path, file in upload.files.items()]
    added = [*uploaded, *new]
    names = {operation.path_in_repo for operation in added}
    stale = [path for path in dict.fromkeys(upload.removed) if path in repository.paths and path not in names]
    if stale:
        notify(f"{len(stale)} files of {upload.url} are removed: {', '.join(stale[:20])}" + (" and others" if len(stale) > 20 else ""))
    operations: list[CommitOperation] = [*(CommitOperationDelete(path, is_folder=False) for path in stale), *added]

    def attempt() -> str:
        try:
            made = HfApi().create_commit(
                upload.repo_id, operations, commit_message=upload.message, repo_type=upload.kind, parent_commit=repository.sha
            )
            return made.oid
        except Exception as error:
            # A commit cannot simply be sent twice: it may have been made although its answer did not arrive.
            if (is_transient(error) or status_of(error) in (409, 412)) and (sha := _made(repository, added, stale)):
                return sha
            raise

    with explained(upload.repo_id):
        sha = _patiently(attempt)
    notify(f"{upload.message}: {upload.url}")
    return f"{upload.url}/tree/{sha}"


def preupload(repository: Repository, files: Mapping[str, Path]) -> dict[str, "CommitOperationAdd"]:
    """Send files before their commit, several in parallel. They may be deleted locally afterwards.

    Args:
        repository: repository from `open_repository`.
        files: path in the repository -> file.

    Returns:
        Operations for `commit`, by path. The Hub may want a small file in the commit itself; its content is then held in memory.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = {name: CommitOperationAdd(name, str(file)) for name, file in files.items()}
    with explained(repository.upload.repo_id):
        sent = list(operations.values())
        _patiently(lambda: HfApi().preupload_lfs_files(repository.upload.repo_id, sent, repo_type=repository.upload.kind))
    for name, operation in operations.items():
        if not is_uploaded(operation):
            operation.path_or_fileobj = files[name].read_bytes()
    return operations


def _made(repository: Repository, added: list["CommitOperationAdd"], removed: list[str]) -> str | None:
    """The latest commit of the repository, if it is new and holds exactly what was sent; else None."""
    try:
        info = _info(repository.upload, files_metadata=True)
    except Exception:  # the caller raises the original error
        return None
    there = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    if info.sha == repository.sha or any(path in there for path in removed):
        return None
    same = all(operation.path_in_repo in there and _same(operation, there[operation.path_in_repo]) for operation in added)
    return info.sha if same else None


def _same(operation: "CommitOperationAdd", there: "RepoSibling") -> bool:
    """Whether a file of the repository has the content that was sent."""
    from huggingface_hub.utils.sha import git_hash

    if there.lfs is not None:
        return there.lfs.sha256 == operation.upload_info.sha256.hex()
    with operation.as_file() as file:
        return there.blob_id == git_hash(file.read())


def _patiently(call: Callable[[], T]) -> T:
    """Call, and retry after a while if the network or the Hub fails."""
    for wait in WAITS:
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            notify(f"the Hub did not answer as expected ({type(error).__name__}); retrying in {wait} s")
            time.sleep(wait)
    return call()
