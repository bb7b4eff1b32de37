"""Progress on standard error: bars for what takes longer than a blink, one-line messages for the rest, both off with `--quiet`."""

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
    """Whether bars are to be shown: somebody watches, and did not ask for quiet."""
    return not _quiet and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def bar(iterable: Iterable | None = None, *, hidden: bool = False, **options: Any) -> "tqdm":
    """A tqdm bar on standard error that leaves no line behind.

    It is not shown where `hidden`, with `--quiet`, and where nobody watches: in a log file it would be thousands of lines.
    """
    from tqdm import tqdm  # here, so that the command can say that it is missing

    return tqdm(iterable, **{"leave": False, "dynamic_ncols": True, "disable": hidden or not is_watched(), "file": sys.stderr, **options})


def notify(message: str) -> None:
    """Print one line of progress to standard error, above any bar."""
    if not _quiet:
        from tqdm import tqdm

        tqdm.write(message, file=sys.stderr)
