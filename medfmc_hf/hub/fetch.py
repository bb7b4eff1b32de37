"""Fetches a published adapter from the Hub, without the rest of its repository; a cached one works without a network."""

import re
from pathlib import Path

from ..errors import MedfmcError
from ..hub_answers import explained, is_unanswered
from ..models.checkpoint import ANSWER_SECONDS
from ..subsets import SEEDS


def fetch_adapter(repo_id: str, seed: int | None = None) -> Path:
    """Download one run from a repository made by `medfmc push model`.

    Args:
        repo_id: `ORG/NAME`.
        seed: seed of the run, if the repository has several; None for the first.

    Returns:
        The local copy of the repository's root.

    Raises:
        MedfmcError: there is no such repository or seed, or it cannot be reached and is not cached.
    """
    from huggingface_hub import HfApi, snapshot_download

    with explained(repo_id, reading=True):
        try:
            paths = [sibling.rfilename for sibling in HfApi().model_info(repo_id, timeout=ANSWER_SECONDS).siblings or ()]
        except Exception as error:
            if not is_unanswered(error):
                raise
            return _cached(repo_id, seed, error)
        folder = ""
        if "backbone.json" not in paths:
            seeds = sorted({found[1] for path in paths if (found := re.match(r"seed(\d+)/backbone\.json$", path))})
            if not seeds:
                raise MedfmcError(f"{repo_id} holds no model pushed by medfmc: it has no backbone.json.")
            if seed is not None and str(seed) not in seeds:
                raise MedfmcError(f"{repo_id} has no seed {seed}; it has {', '.join(seeds)}.")
            folder = f"seed{seeds[0] if seed is None else seed}/"
        # Nothing that could run code is downloaded.
        return Path(snapshot_download(repo_id, allow_patterns=[f"{folder}*.json", f"{folder}*.safetensors"]))


def _cached(repo_id: str, seed: int | None, error: Exception) -> Path:
    """The root of a cached copy that holds the seed.

    Raises:
        MedfmcError: it holds only other seeds, or `seed` is None and the repository has several.
    """
    from huggingface_hub import try_to_load_from_cache

    single = try_to_load_from_cache(repo_id, "backbone.json")
    if isinstance(single, str):
        return Path(single).parent
    found = {each: try_to_load_from_cache(repo_id, f"seed{each}/backbone.json") for each in SEEDS}
    held = {each: Path(path) for each, path in found.items() if isinstance(path, str)}
    if seed in held:
        return held[seed].parent.parent
    if not held:
        raise error
    seeds = ", ".join(map(str, held))
    if seed is not None:
        raise MedfmcError(f"seed {seed} of {repo_id} is not in the cache, which has {seeds}, and the Hub does not answer.") from error
    raise MedfmcError(
        f"the Hub does not answer, so it is not known which seeds {repo_id} has; the cache has {seeds}: choose one, such as --seed "
        f"{next(iter(held))}."
    ) from error
