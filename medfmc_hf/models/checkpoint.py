"""The files of a backbone, in a local folder or from one commit on the Hub, and checks of them.

Everything that loads a backbone reads these files from a folder: nothing else in this package asks the Hub for a backbone, and all of its
files come from one commit.
"""

import hashlib
import json
import os
import re
import struct
import time
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import MedfmcError
from ..hub_answers import explained, is_transient, is_unanswered
from ..progress import notify

ANSWER_SECONDS = 15  # timeout of the first request to the Hub
CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order that transformers looks for them
_INDEXES = tuple(f"{name}.index.json" for name in _WEIGHTS)


@dataclass(frozen=True)
class Checkpoint:
    """A backbone's files.

    Attributes:
        name: id on the Hub, or absolute path of a local folder.
        folder: folder of the files.
        commit: commit on the Hub; None for a local folder.
    """

    name: str
    folder: Path
    commit: str | None

    @cached_property
    def fingerprint(self) -> str:
        """The commit on the Hub, or for a local folder a hash of config.json and every weight file.

        Raises:
            MedfmcError: there are no weight files.
        """
        return self.commit or _digest([self.folder / CONFIG, *self.weights()])

    @cached_property
    def content(self) -> str:
        """SHA-256 (hex) of the names and contents of config.json and the weight files that are loaded, the same on the Hub and in a folder.

        Raises:
            MedfmcError: there are no weight files.
        """
        return _digest([self.folder / CONFIG, *map(self.folder.joinpath, self._loaded())])

    def weights(self) -> list[Path]:
        """The weight files, and their index if they are sharded.

        Raises:
            MedfmcError: there are none.
        """
        patterns = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*")
        found = sorted({path for pattern in patterns for path in self.folder.glob(pattern)})
        if not found:
            raise MedfmcError(f"{self.name} has no weight files; expected model.safetensors beside {CONFIG}.")
        return found

    def _loaded(self) -> list[str]:
        """The names of the weight files that transformers loads, without their index."""
        here = [path.name for path in self.weights()]
        if not set(here) & {*_WEIGHTS, *_INDEXES}:
            return here
        return [name for name in _weight_names(self, here) if name not in _INDEXES]

    def check(self) -> None:
        """Check the beginning and the length of each file that will be read.

        Raises:
            MedfmcError: one is missing, truncated, a Git LFS pointer, a web page or not a weight file.
        """
        read_json(self.folder / CONFIG, self.name)
        for name in self._loaded():
            if not (self.folder / name).is_file():
                raise MedfmcError(f"{self.name} lacks {name}, which its weight index lists; fetch it again.")
            if problem := broken_weights(self.folder / name):
                again = f"hf download {self.name} {name} --revision {self.commit} --force-download"
                raise MedfmcError(f"{name} of {self.name} {problem}; fetch it again" + (f": {again}" if self.commit else "."))


def _digest(paths: list[Path]) -> str:
    """SHA-256 (hex) of the names and contents of files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def find_checkpoint(model: str | os.PathLike | Checkpoint, revision: str | None = None) -> Checkpoint:
    """Find the files of a backbone. Files of a Hub id are fetched into huggingface_hub's cache if they are not in it yet.

    If there is no network or the Hub does not answer, a revision that was fetched earlier is taken from the cache.

    Args:
        model: local folder, or id on the Hub. A folder of that name comes first, as in transformers.
        revision: branch, tag or commit on the Hub; None for `main`.

    Raises:
        MedfmcError: it is neither a folder nor on the Hub, may not be read, or its files are not those of a backbone.
    """
    if isinstance(model, Checkpoint):
        return model
    name = os.fspath(model)
    if not name.strip():
        raise MedfmcError("which backbone? Give a Hub id such as google/vit-base-patch16-224-in21k, or a folder.")
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise MedfmcError(
                f"there is no backbone in the folder {name}: it has no {CONFIG}. Give a folder with {CONFIG} and model.safetensors, from "
                "`save_pretrained` or `hf download ORG/NAME --local-dir FOLDER`, or a Hub id such as google/vit-base-patch16-224-in21k."
            )
        return Checkpoint(str(folder.absolute()), folder.absolute(), None)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name, re.ASCII):
        raise MedfmcError(f"there is no folder {name}; expected a Hub id such as google/vit-base-patch16-224-in21k, or a folder.")
    return hub_checkpoint(name, revision)


def hub_checkpoint(repo_id: str, revision: str | None = None) -> Checkpoint:
    """Like `find_checkpoint`, but only on the Hub: a local folder of that name is ignored."""
    found = _fetch(repo_id, revision)
    found.check()
    return found


def _fetch(repo_id: str, revision: str | None) -> Checkpoint:
    """The checkpoint of a repository: from the cache if it is complete there and cannot have changed, else from the Hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    asked = revision or "main"
    with explained(repo_id, reading=True):
        cached = _cached(repo_id, asked)
        if cached is not None and asked == cached.commit and not _lacking(cached):
            return cached  # a commit never changes
        try:
            commit, names = _ask(repo_id, asked)
            folder = Path(hf_hub_download(repo_id, CONFIG, revision=asked)).parent
            found = Checkpoint(repo_id, folder, folder.name)  # the cache names the folder after the commit
            if folder.name != commit:  # the branch has moved in the meantime
                _, names = _ask(repo_id, folder.name)
            for name in _weight_names(found, names):
                if name not in names:
                    raise MedfmcError(f"{repo_id} on the Hub lacks {name}, which its weight index lists; its owner has to upload it.")
                hf_hub_download(repo_id, name, revision=found.commit)
            for name in PROCESSORS:
                try:
                    hf_hub_download(repo_id, name, revision=found.commit)
                except LocalEntryNotFoundError:
                    raise
                except EntryNotFoundError:  # the cache now knows that there is none
                    continue
            return found
        except EntryNotFoundError as error:
            if not isinstance(error, LocalEntryNotFoundError):
                raise MedfmcError(
                    f"{repo_id} on the Hub has no {CONFIG}, so transformers cannot load it as a backbone; if it holds only weights, "
                    "look for a repository of the same model in transformers' format."
                ) from error
            return _instead(cached, repo_id, revision, error)
        except MedfmcError:
            raise
        except Exception as error:
            if not is_unanswered(error):
                raise
            return _instead(cached, repo_id, revision, error)


def _ask(repo_id: str, revision: str) -> tuple[str, list[str]]:
    """The commit of a revision, and the names of its files.

    Asked first and with a short timeout: a download would wait minutes for a Hub that does not answer.
    """
    from huggingface_hub import HfApi

    for wait in (1, 3, None):
        try:
            info = HfApi().model_info(repo_id, revision=revision, timeout=ANSWER_SECONDS)
            return str(info.sha), [sibling.rfilename for sibling in info.siblings or ()]
        except Exception as error:
            if wait is None or not is_transient(error) or isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
                raise
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _instead(cached: Checkpoint | None, repo_id: str, revision: str | None, error: Exception) -> Checkpoint:
    """The cached checkpoint, used when the Hub cannot be reached.

    Raises:
        MedfmcError: it is incomplete.
    """
    if cached is None:
        raise error
    if lacking := _lacking(cached):
        at = f" --revision {revision}" if revision else ""
        raise MedfmcError(
            f"{repo_id} is only partly in the cache, and the Hub cannot be reached for the rest: {lacking} is not on this machine. Fetch "
            f"it where there is a network: hf download {repo_id}{at}"
        ) from error
    notify(f"{repo_id} is taken from the cache, at commit {str(cached.commit)[:12]}")
    return cached


def _cached(repo_id: str, revision: str) -> Checkpoint | None:
    """A revision in the cache, possibly without its weights; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo_id, CONFIG, revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    return Checkpoint(repo_id, folder, folder.name)


def _lacking(found: Checkpoint) -> str | None:
    """A file that a cached checkpoint needs and the cache lacks; None if it is complete."""
    from huggingface_hub import try_to_load_from_cache

    here = [path.name for path in found.folder.iterdir()]
    if not (set(_WEIGHTS) | set(_INDEXES)) & set(here):
        return "the weight file"
    absent = [name for name in _weight_names(found, here) if name not in here]
    # A processor that was never asked for may exist on the Hub, and the default one would give other pixels.
    known = any(name in here for name in PROCESSORS)
    unknown = [] if known else [n for n in PROCESSORS[:1] if try_to_load_from_cache(found.name, n, revision=found.commit) is None]
    return next(iter([*absent, *unknown]), None)


def _weight_names(found: Checkpoint, names: list[str]) -> list[str]:
    """The weight files among the file names of a repository: safetensors rather than pickles, and all shards.

    An index is fetched, because it lists the shards.
    """
    for plain, index in zip(_WEIGHTS, _INDEXES):
        if plain in names:
            return [plain]
        if index in names:
            if not (found.folder / index).is_file():
                from huggingface_hub import hf_hub_download

                hf_hub_download(found.name, index, revision=found.commit)
            return [index, *_shards(found.folder / index, found.name)]
    shown = ", ".join(sorted(names)[:8]) + (" and others" if len(names) > 8 else "")
    raise MedfmcError(
        f"{found.name} on the Hub has no weights that transformers loads ({', '.join(_WEIGHTS)}, or shards with an index); it has {shown}."
    )


def _shards(index: Path, name: str) -> list[str]:
    """The files that a weight index lists."""
    files = read_json(index, name).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) and Path(file).name == file for file in files.values()):
        raise MedfmcError(f"{index.name} of {name} lists no weight files; fetch it again.")
    return sorted(set(files.values()))


def read_json(path: Path, name: str) -> dict:
    """A JSON file of a checkpoint.

    Raises:
        MedfmcError: it is not a JSON object; the message gives what it looks like.
    """
    try:
        content = path.read_bytes()
        value = json.loads(content)
    except OSError as error:
        raise MedfmcError(f"{path.name} of {name} cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        reason = _foreign(content[:512]) or f"is not JSON ({error})"
        raise MedfmcError(f"{path.name} of {name} {reason}; fetch it again.") from error
    if not isinstance(value, dict):
        raise MedfmcError(f"{path.name} of {name} holds {type(value).__name__}; expected a JSON object.")
    return value


def broken_weights(path: Path) -> str | None:
    """What is wrong with a weight file, as a predicate after its name; None if it looks complete. The tensors are not read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
    if reason := _foreign(start):
        return reason
    if path.suffix != ".safetensors":
        if start[:2] == b"PK":
            return None if zipfile.is_zipfile(path) else f"is truncated after {size:,} bytes"
        return None if start[:1] == b"\x80" else "is not a weight file written by torch"
    length = struct.unpack("<Q", start[:8])[0] if size >= 8 else 0
    if not 2 <= length <= 100 << 20 or start[8:9] != b"{":
        return "is not a safetensors file"
    if 8 + length > size:
        return f"is truncated after {size:,} bytes"
    with path.open("rb") as file:
        file.seek(8)
        try:
            tensors = json.loads(file.read(length))
            end = max((part["data_offsets"][1] for name, part in tensors.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return "is not a safetensors file"
    return f"is truncated: {size:,} of {8 + length + end:,} bytes are there" if size < 8 + length + end else None


def _foreign(start: bytes) -> str | None:
    """What a file with this beginning is, if it cannot belong to a checkpoint; else None."""
    if not start.strip():
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself (in a clone: git lfs pull)"
    if start.lstrip()[:1] == b"<":
        return "is a web page, which something between here and the Hub sent instead of it"
    return None
