"""The official and the paper's split lists: their names, the public commits that hold them, their SHA-256, and how to fetch them.

The lists are other people's files, so none is part of this project; `lists.sha256` beside this module says what each must be.
"""

import hashlib
import os
import re
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.client import HTTPException
from pathlib import Path

from ..errors import MedfmcError
from ..files import atomic_path
from ..progress import bar
from ..subsets import SEEDS, SHOTS, Subset
from ..version import __version__

RAW = "https://raw.githubusercontent.com"
OFFICIAL = "openmedlab/MedFM/e846f5f5328a914e4136351bcb015b940a43f511/data_backup/MedFMC"
PAPER = "wllfore/MedFMC_fewshot_baseline/3bfe04b153ab461baccbe574c9dc3dff84ab8b11/data"

# Kinds of lists. A few-shot list is called as its file is without the subset: "5-shot_train_exp1".
TRAINVAL, TEST_LABELLED, VALIDATION_PHASE, TRAIN_20, VAL_20 = "trainval", "test_WithLabel", "test_WithoutLabel", "train_20", "val_20"
PRIVATE = "MedFMC_test/test_WithoutLabel"  # the final phase's unlabelled images; its file is named like the validation phase's
PAPER_POOL, PAPER_TEST, TEST = "fewshot-pool", "paper test", "test"
UNLABELLED = (VALIDATION_PHASE, PRIVATE)
_PLAIN = {name.lower(): name for name in (TRAINVAL, TEST_LABELLED, VALIDATION_PHASE, TRAIN_20, VAL_20, PAPER_POOL, TEST)}


def few_shot_list(shots: int, seed: int, split: str) -> str:
    """The kind of an official few-shot list; `split` is `train` or `val`. Seed s is exp{s+1}."""
    return f"{shots}-shot_{split}_exp{seed + 1}"


def kind_of(file_name: str) -> tuple[str, str | None] | None:
    """(kind, subset key or None where the folder tells) of a list by its file name; None if it is no list of MedFMC."""
    stem, dot, extension = file_name.lower().rpartition(".")
    if extension != "txt" or not dot:
        return None
    found = re.fullmatch(r"(chest|colon|endo)_(\d+-shot_(?:train|val)_exp\d+)", stem)
    if found:
        return found[2], found[1]
    return (_PLAIN[stem], None) if stem in _PLAIN else None


def published_lists(subset: Subset) -> list[str]:
    """Paths below the raw host of the public lists that a subset's configs need: `<repository>/<commit>/<folder>/<file>`."""
    if not subset.challenge:
        return [f"{PAPER}/{subset.name}/{name}.txt" for name in (PAPER_POOL, TEST)]
    plain = [TRAINVAL, TEST_LABELLED, VALIDATION_PHASE, TRAIN_20, VAL_20]
    few_shot = [f"{subset.key}_{few_shot_list(k, seed, split)}" for k in SHOTS for split in ("train", "val") for seed in SEEDS]
    return [f"{OFFICIAL}/{subset.key}/{name}.txt" for name in plain + few_shot]


@cache
def pins() -> dict[str, str]:
    """SHA-256 (hex) of every published list, by its path as `published_lists` gives it, with LF line ends."""
    repositories = {OFFICIAL.split("/")[1]: OFFICIAL, PAPER.split("/")[1]: PAPER}
    pinned = {}
    for line in Path(__file__).with_name("lists.sha256").read_text(encoding="utf-8").splitlines():
        digest, path = line.split("  ", 1)
        repository, rest = path.split("/", 1)
        pinned[f"{repositories[repository]}/{rest}"] = digest
    return pinned


def digest_of(content: bytes) -> str:
    """SHA-256 (hex) of a list with LF line ends and one at its end: git and editors change these, not the rows."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n").hexdigest()


@cache
def published_digests() -> frozenset[str]:
    """`digest_of` every public list: a list with one of these is as published."""
    return frozenset(pins().values())


def fetch_lists(subsets: list[Subset], cache: str | os.PathLike | None = None, base_url: str = RAW) -> Path:
    """Download the public lists of some subsets, each verified by its SHA-256. What is cached already is not fetched again.

    Proxies are taken from `HTTPS_PROXY` and `NO_PROXY`, as everywhere. An interrupted download goes on where it stopped.

    Args:
        subsets: whose lists.
        cache: folder to cache them in; None for `medfmc/lists` in the Hugging Face home (`HF_HOME`).
        base_url: where the repositories' files are served, for a mirror.

    Returns:
        The folder that holds them: a source for `medfmc build --lists`.

    Raises:
        MedfmcError: the host cannot be reached, or serves something else.
    """
    if not base_url.startswith(("http://", "https://")):
        raise MedfmcError(f"{base_url!r} is no address of a mirror; expected one that starts with https://.")
    from huggingface_hub.constants import HF_HOME

    root = Path(cache or Path(HF_HOME) / "medfmc" / "lists")
    opener = urllib.request.build_opener()  # reads the proxies now, not when the process first used one
    wanted = [path for subset in subsets for path in published_lists(subset) if not _is_whole(root / path, path)]
    with ThreadPoolExecutor(4) as pool, bar(total=len(wanted), desc="fetching lists", unit="file") as progress:
        jobs = [pool.submit(_fetch, opener, f"{base_url.rstrip('/')}/{path}", root / path, pins()[path]) for path in wanted]
        try:
            for job in jobs:
                job.result()
                progress.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return root


def _is_whole(file: Path, path: str) -> bool:
    return file.is_file() and digest_of(file.read_bytes()) == pins()[path]


def _fetch(opener: urllib.request.OpenerDirector, url: str, file: Path, digest: str, attempts: int = 3) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": f"medfmc_hf/{__version__}"})
    for attempt in range(attempts):
        try:
            with opener.open(request, timeout=30) as response:
                content = response.read()
            break
        except (OSError, HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429
            if refused or attempt == attempts - 1:
                raise MedfmcError(
                    f"{url} could not be fetched: {error}.\n"
                    "Behind a proxy, set HTTPS_PROXY. Without a network, copy the folder data_backup/MedFMC of a clone of openmedlab/MedFM "
                    "(and data of wllfore/MedFMC_fewshot_baseline) here and give it with --lists."
                ) from None
            time.sleep(2**attempt)
    if digest_of(content) != digest:
        raise MedfmcError(
            f"{url} is not the published list: its SHA-256 is {digest_of(content)}, expected {digest}. A proxy may have changed it."
        )
    with atomic_path(file) as temporary:
        temporary.write_bytes(content)
