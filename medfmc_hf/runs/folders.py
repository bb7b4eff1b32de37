"""The folder of a run: where it is, written whole or not at all, and found again; and which records do not count.

`ROOT/<dataset config>/<method>-<backbone>-seed<seed>-<id>/` holds `run.json`, `predictions.parquet` and `adapter/`. It is written beside
its place under a private name and gets its own when everything is on disk, so that no lock is needed: of two processes on one run the
first to end is kept, and neither sees or disturbs the other's files.
"""

import json
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..adapter_files import TRAINED
from ..errors import MedfmcError
from ..files import private_sibling, private_siblings, sync_folder
from ..progress import notify
from .config import RunConfig
from .record import RunRecord, record_path

_OURS = ("run.json", "predictions.parquet", "adapter")


def run_folder(root: str | os.PathLike, config: RunConfig, run_id: str) -> Path:
    """`ROOT/<dataset config>/<method>-<backbone>-seed<seed>-<id>`: readable, and different for every run.

    Where a record lies there that does not count (`fault_of`), the run has its place beside it, with `-again` at the end.
    """
    backbone = Path(config.model).name or "backbone"
    folder = Path(root) / str(config.dataset_config) / f"{config.method}-{backbone}-seed{config.seed}-{run_id}"
    record = record_in(folder)
    return folder.with_name(f"{folder.name}-again") if record is not None and fault_of(record, folder) else folder


def record_in(folder: Path) -> RunRecord | None:
    """The record in a folder; None where there is none that can be read."""
    try:
        return RunRecord.load(folder)
    except MedfmcError:
        return None


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run that counts."""
    record = record_in(folder)
    return record is not None and record.status == "finished" and not fault_of(record, folder)


@contextmanager
def new_run(folder: str | os.PathLike) -> Iterator[Path]:
    """Give a private, empty folder beside a run's; when the block ends well it becomes the run's.

    A finished run that is there by then stays, and what the block wrote is thrown away. A failed one, and what a killed process left, is
    replaced; files of others that lie there are kept. A record there that nobody can read is kept under another name.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_remains(folder)
    part = private_sibling(folder, "part")
    part.mkdir()
    try:
        yield part
        sync_folder(part)
        _take_place(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def clear_remains(folder: Path) -> None:
    """Remove what killed processes left beside a run's folder; a finished run that one of them had moved away comes back."""
    for left in private_siblings(folder, "part"):
        shutil.rmtree(left, ignore_errors=True)
    for left in private_siblings(folder, "old"):
        _put_back(left, folder)


def _take_place(part: Path, folder: Path) -> None:
    for _ in range(100):
        if is_finished(folder):
            return
        if not folder.exists():
            try:
                part.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
                continue  # another process was faster
            sync_folder(folder.parent, files=False)
            return
        old = private_sibling(folder, "old")
        try:
            folder.rename(old)
        except FileNotFoundError:
            continue
        if is_finished(old):  # it became so since we looked
            _put_back(old, folder)
            return
        _empty_out(old, part, folder)
    raise MedfmcError(f"{folder} is taken by another process again and again; stop one of them.")


def _put_back(old: Path, folder: Path) -> None:
    """Give a folder that was moved away its name again, unless it is worth nothing or another finished run has the name."""
    if not is_finished(old):
        _empty_out(old, folder, folder)
    elif is_finished(folder):
        shutil.rmtree(old, ignore_errors=True)  # the same run, twice
    else:
        try:
            old.rename(folder)
        except OSError:
            if not is_finished(folder):
                raise
            shutil.rmtree(old, ignore_errors=True)


def _empty_out(old: Path, heir: Path, folder: Path) -> None:
    """Remove what an unfinished run left; what others put there goes to `heir`, and a record that cannot be read stays."""
    path = old / "run.json"
    if (path.exists() or path.is_symlink()) and record_in(old) is None:
        kept = next(name for n in range(1, 1000) if not (name := old.with_name(f".{folder.name}.unreadable-{n}")).exists())
        old.rename(kept)
        notify(f"the record in {folder} cannot be read; it is kept as {kept.name}, and the run is done again.")
        return
    if heir.is_dir():
        for entry in old.iterdir():
            if (
                entry.name not in _OURS
                and not (entry.name.startswith(".") and entry.name.endswith(".part"))
                and not (heir / entry.name).exists()
            ):
                entry.rename(heir / entry.name)
    shutil.rmtree(old, ignore_errors=True)


def find_runs(roots: str | os.PathLike | list, left_out: list[str] | None = None) -> Iterator[tuple[Path, RunRecord]]:
    """Every run below the given folders that counts, as (folder, record), in a stable order.

    What cannot be read as a record, or was made by a fault of an earlier version, is left out and named: a message counts them at the end.

    Args:
        roots: folders of runs, run folders, or records.
        left_out: is given a sentence for each record that is left out; the caller then tells the user, and no message is shown.

    Raises:
        MedfmcError: a path does not exist, or one that was named itself does not count.
    """
    reasons: list[str] = []
    for root in [roots] if isinstance(roots, (str, os.PathLike)) else roots:
        root = Path(root)
        if not root.exists():
            raise MedfmcError(f"{root} does not exist; expected a run folder or a folder of runs.")
        named = root.is_file() or (root / "run.json").exists()
        for path in [record_path(root)] if named else _records_below(root):
            try:
                record = RunRecord.load(path)
                if fault := fault_of(record, path.parent):
                    raise MedfmcError(f"{path.parent} is left out: {fault}")
            except MedfmcError as error:
                if named:
                    raise
                reasons.append(str(error))
            else:
                yield path.parent, record
    if left_out is not None:
        left_out += reasons
    elif reasons:
        shown = "\n  ".join(reasons[:5]) + (f"\n  and {len(reasons) - 5} more" if len(reasons) > 5 else "")
        notify(f"{len(reasons)} record{'s' * (len(reasons) > 1)} left out:\n  {shown}")


def _records_below(root: Path) -> list[Path]:
    """Every run.json below a folder; what lies in a hidden folder is being written, or was set aside."""
    return [path for path in sorted(root.rglob("run.json")) if not any(part.startswith(".") for part in path.relative_to(root).parts)]


# --- records that do not count ---

_WITH_BATCH_NORM = ("resnet", "regnet", "efficientnet", "mobilenet_v1", "mobilenet_v2", "mobilevit", "mobilevitv2", "levit", "cvt", "van",
                    "swiftformer", "efficientformer", "timm_wrapper")  # fmt: skip


def fault_of(record: RunRecord, folder: Path | None = None) -> str | None:
    """Why a finished record of an earlier version does not count; None if it does.

    Args:
        record: of a run.
        folder: where its files are, if they are at hand.
    """
    config = record.config
    if record.status != "finished" or record.versions.get("medfmc_hf", "0.1.0") != "0.1.0":
        return None
    if config.get("method") == "full" and config.get("select") == "best" and _has_batch_norm(record, folder):
        return (
            "medfmc_hf 0.1.0 put back the best epoch's weights without the statistics of batch normalisation, so scores and saved model "
            "are of no epoch; run it again (its new folder lies beside this one)."
        )
    if config.get("loss") == "weighted" and record.subset.task == "single-label" and record.cost.get("processes", 1) > 1:
        return (
            f"medfmc_hf 0.1.0 weighted the classes within each of {record.cost['processes']} processes, which is another loss than the one "
            "its id stands for; run it again (its new folder lies beside this one)."
        )
    return None


def _has_batch_norm(record: RunRecord, folder: Path | None) -> bool:
    """By the names of what was saved, where it is at hand; else by the architecture."""
    path = folder / "adapter" / TRAINED if folder else None
    if path is not None and path.is_file():
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                return any(name.endswith("running_mean") for name in json.loads(file.read(min(length, 100 << 20))))
        except (OSError, ValueError, struct.error):
            pass
    return record.backbone.get("architecture") in _WITH_BATCH_NORM
