"""Records which files of a long push are already on the Hub, so that an interrupted push resumes."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..private_names import uploaded_operation

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


class Journal:
    """The uploads to one repository that are not committed yet: a file of JSON lines in the user's cache.

    Entries are keyed by the part of the build they come from; the key changes with everything that determines the bytes.
    """

    def __init__(self, kind: str, repo_id: str) -> None:
        from huggingface_hub import constants

        name = hashlib.sha256(f"{constants.ENDPOINT} {kind} {repo_id}".encode()).hexdigest()[:16]
        self.path = Path(constants.HF_HOME) / "medfmc" / "push" / f"{name}.jsonl"
        self._expected: dict[str, dict[str, Any]] = {}
        self._uploaded: dict[str, dict[str, dict[str, Any]]] = {}
        for line in self.path.read_text().splitlines() if self.path.is_file() else ():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError):  # an incomplete line of a push that was killed
                continue

    def uploaded(self, key: str) -> dict[str, "CommitOperationAdd"]:
        """The uploaded files of a part, by path, ready for a commit."""
        return {path: uploaded_operation(path, line["sha256"], line["size"]) for path, line in self._uploaded.get(key, {}).items()}

    def is_complete(self, key: str) -> bool:
        """Whether all files of a part are on the Hub."""
        return key in self._expected and set(self._expected[key]["expected"]) <= self._uploaded.get(key, {}).keys()

    def digests(self, key: str) -> dict[str, str]:
        """The image digests of a part that were passed to `expect`."""
        return self._expected.get(key, {}).get("digests", {})

    def expect(self, key: str, paths: Iterable[str], digests: dict[str, str] | None = None) -> None:
        """Record the files that a part becomes, and the SHA-256 of its images by image id if they differ from the build's."""
        self._write({"key": key, "expected": sorted(paths), "digests": digests or {}})

    def add(self, key: str, operation: "CommitOperationAdd") -> None:
        """Record one uploaded file."""
        info = operation.upload_info
        self._write({"key": key, "path": operation.path_in_repo, "sha256": info.sha256.hex(), "size": info.size})

    def clear(self) -> None:
        """Forget all uploads, after the commit or because the Hub no longer has them."""
        self._expected, self._uploaded = {}, {}
        self.path.unlink(missing_ok=True)

    def _write(self, line: dict[str, Any]) -> None:
        self._take(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _take(self, line: dict[str, Any]) -> None:
        if "expected" in line:
            self._expected[line["key"]] = line
        else:
            self._uploaded.setdefault(line["key"], {})[line["path"]] = line
