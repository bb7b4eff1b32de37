"""Replaces a build's folder in one step: written beside it, renamed when whole, and nothing that is not a build is ever touched."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import MedfmcError
from ..files import private_sibling, private_siblings
from .loading import MANIFEST


@contextmanager
def replace_folder(out: str | os.PathLike) -> Iterator[Path]:
    """Give a new, empty sibling of `out`; when the block ends well it becomes `out`, otherwise it is removed and `out` stays.

    What a killed build left behind is removed by the next one.

    Raises:
        MedfmcError: `out` holds something that is not a build, or its place cannot be written to.
    """
    out = Path(out).expanduser().resolve()
    if out.exists() and not out.is_dir():
        raise MedfmcError(f"{out} is a file; give the name of a folder to make.")
    try:
        taken = out.exists() and not (out / MANIFEST).is_file() and any(out.iterdir())
    except OSError as error:
        raise MedfmcError(f"{out} cannot be read: {error.strerror}.") from None
    if taken:
        raise MedfmcError(f"{out} is there and is not a build of medfmc (it has no {MANIFEST}); it is left alone. Give another --out.")
    part, old = private_sibling(out, "part"), private_sibling(out, "old")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_debris(out)
        part.mkdir()
    except OSError as error:
        raise MedfmcError(f"{out.parent} cannot be written to: {error.strerror}.") from None
    try:
        yield part
        if out.exists():
            out.rename(old)
        try:
            part.rename(out)
        except BaseException:
            if old.exists():
                old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise MedfmcError(f"{part} could not be written ({error.strerror or error}); {out} is as it was.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_debris(out: Path) -> None:
    """Remove what builds of this machine left that are no longer running. A lone `old` is the last good build: put it back."""
    for debris in private_siblings(out, "old"):
        if out.exists():
            shutil.rmtree(debris, ignore_errors=True)
        else:
            debris.rename(out)
    for debris in private_siblings(out, "part"):
        shutil.rmtree(debris, ignore_errors=True)
