"""Installs `medfm_score` where `evaluate.load("medfm_score")` finds it by its bare name, in every process, with or without a network."""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .errors import MedfmcError
from .shipped import shipped

NAME = "medfm_score"
MODULES = ("errors.py", "scoring.py", "subsets.py")  # modules of this package that the metric imports from its own folder


def sources() -> dict[str, bytes]:
    """The files of the metric's Space by name: those of `metrics/medfm_score`, and the modules of this package that it needs.

    The formulas exist once, in this package, from which the script in the repository imports them. A Space runs without the package, so it
    gets copies, and its script imports these.
    """
    package = Path(__file__).parent
    files = {path.name: path.read_bytes() for path in sorted(shipped(f"metrics/{NAME}").iterdir()) if path.is_file()}
    files[f"{NAME}.py"] = files[f"{NAME}.py"].replace(b"from medfmc_hf.", b"from .")
    return files | {name: (package / name).read_bytes() for name in MODULES}


def write_space(folder: str | os.PathLike) -> Path:
    """Write the metric's Space, ready to upload or to load with `evaluate.load(folder)`, into an empty or new folder.

    Raises:
        MedfmcError: the folder is not empty.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise MedfmcError(f"{folder} is not empty; give a new folder for the metric's Space.")
    for name, content in sources().items():
        (folder / name).write_bytes(content)
    return folder


def modules_cache() -> Path:
    """The folder of evaluate's cached metric code, from the same environment variables that evaluate reads."""
    if "evaluate" in sys.modules:
        return Path(sys.modules["evaluate"].config.HF_MODULES_CACHE)
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = Path(os.environ.get("HF_HOME", Path(cache, "huggingface"))).expanduser()
    return Path(os.environ.get("HF_MODULES_CACHE", home / "modules"))


def install() -> Path:
    """Make `evaluate.load("medfm_score")` work by its bare name, and return the installed script.

    evaluate looks for a metric in `./medfm_score`, on the Hub, and in its module cache under `evaluate-metric--medfm_score`, where it
    takes the newest folder with a name of 64 hexadecimal digits. Such a folder is added atomically, so several processes may install at
    once, and nothing happens if the newest is already this version. evaluate, which takes seconds to import, is not needed.

    `evaluate.load(str(install()))` loads the same metric without looking for it on the Hub first.
    """
    files = {name: content for name, content in sources().items() if name.endswith(".py") and name != "app.py"}
    digest = hashlib.sha256(b"".join(name.encode() + b"\0" + content + b"\0" for name, content in sorted(files.items()))).hexdigest()
    modules = modules_cache()
    versions = modules / "evaluate_modules" / "metrics" / f"evaluate-metric--{NAME}"
    target = versions / digest
    script = target / f"{NAME}.py"
    if not script.exists():
        versions.mkdir(parents=True, exist_ok=True)
        for folder in (modules, versions.parent.parent, versions.parent, versions):
            (folder / "__init__.py").touch()
        staging = Path(tempfile.mkdtemp(dir=versions, prefix=".new-"))
        try:
            for name, content in {"__init__.py": b"", **files}.items():
                (staging / name).write_bytes(content)
            staging.chmod(versions.stat().st_mode)  # mkdtemp makes folders that only their owner can read
            staging.rename(target)
        except OSError:
            if not script.exists():  # otherwise another process was first
                raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    newest = max(versions.glob("[0-9a-f]" * 64 + f"/{NAME}.py"), key=lambda path: path.stat().st_mtime)
    if newest != script:
        script.touch()
    return script
