"""Remembers which files of a long push the Hub has already, so that an interrupted push goes on where it stopped."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import write_json

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


class Journal:
    """The uploads of one repository that no commit shows yet, in a file of the user's cache.

    They are kept by the part of the data they came from: a key that changes with everything that determines the bytes.
    """

    def __init__(self, kind: str, repo_id: str) -> None:
        from huggingface_hub import constants

        name = hashlib.sha256(f"{constants.ENDPOINT} {kind} {repo_id}".encode()).hexdigest()[:16]
        self.path = Path(constants.HF_HOME) / "medfmc" / "push" / f"{name}.json"
        try:
            self._parts: dict[str, dict] = json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            self._parts = {}

    def uploaded(self, key: str) -> dict[str, "CommitOperationAdd"]:
        """The files of a part that are on the Hub, by path, ready for a commit."""
        return {path: _sent(path, **known) for path, known in self._parts.get(key, {}).get("files", {}).items()}

    def is_complete(self, key: str) -> bool:
        """Whether all files of a part are on the Hub."""
        return self._parts.get(key, {}).get("complete", False)

    def add(self, key: str, operation: "CommitOperationAdd") -> None:
        """Remember one uploaded file."""
        info = operation.upload_info
        self._part(key)["files"][operation.path_in_repo] = {"sha256": info.sha256.hex(), "size": info.size}
        write_json(self.path, self._parts)

    def complete(self, key: str) -> None:
        """Remember that a part has no more files."""
        self._part(key)["complete"] = True
        write_json(self.path, self._parts)

    def clear(self) -> None:
        """Forget all: it is committed, or the Hub no longer has it."""
        self._parts = {}
        self.path.unlink(missing_ok=True)

    def _part(self, key: str) -> dict:
        return self._parts.setdefault(key, {"files": {}, "complete": False})


def _sent(path: str, sha256: str, size: int) -> "CommitOperationAdd":
    """An operation as `preupload_lfs_files` leaves it: content gone, hash and size known. huggingface_hub has no public way to make one."""
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.lfs import UploadInfo

    operation = CommitOperationAdd(path, b"")
    operation.upload_info = UploadInfo(sha256=bytes.fromhex(sha256), size=size, sample=b"")
    operation._upload_mode, operation._should_ignore, operation._is_uploaded = "lfs", False, True
    return operation
