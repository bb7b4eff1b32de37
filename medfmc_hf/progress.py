"""Progress on standard error: progress bars and one-line messages, both off with `--quiet`."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Turn bars and messages off (True) or on (False) for the whole process."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether `--quiet` was given."""
    return _quiet


def is_watched() -> bool:
    """Whether bars are shown: in a terminal or notebook, and without `--quiet`."""
    return not _quiet and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def bar(iterable: Iterable | None = None, *, hidden: bool = False, **options: Any) -> "tqdm":
    """A tqdm bar on standard error that disappears when it ends.

    It is not shown if `hidden`, with `--quiet`, or in a log file, where it would be thousands of lines.
    """
    from tqdm import tqdm  # here, so that the command can report if it is missing

    return tqdm(iterable, **{"leave": False, "dynamic_ncols": True, "disable": hidden or not is_watched(), "file": sys.stderr, **options})


def notify(message: str) -> None:
    """Print one line of progress to standard error, above any bar."""
    if not _quiet:
        from tqdm import tqdm

        tqdm.write(message, file=sys.stderr)
