"""Brings a published adapter from the Hub, and no more of its repository than that; what is cached works without a network."""

import re
from pathlib import Path

from ..errors import MedfmcError
from ..hub_answers import explained, is_unanswered
from ..models.checkpoint import ANSWER_SECONDS
from ..subsets import SEEDS


def fetch_adapter(repo_id: str, seed: int | None = None) -> Path:
    """Download a repository that `medfmc push model` made, or of several runs the one of `seed` (the first if None).

    Returns:
        The local copy of the repository's root.

    Raises:
        MedfmcError: there is no such repository, or it cannot be reached and is not cached.
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
                raise MedfmcError(f"{repo_id} holds no adapted model of ours: no backbone.json is in it.")
            if seed is not None and str(seed) not in seeds:
                raise MedfmcError(f"{repo_id} has no seed {seed}; it has {', '.join(seeds)}.")
            folder = f"seed{seeds[0] if seed is None else seed}/"
        # Nothing that could run code is brought.
        return Path(snapshot_download(repo_id, allow_patterns=[f"{folder}*.json", f"{folder}*.safetensors"]))


def _cached(repo_id: str, seed: int | None, error: Exception) -> Path:
    """The root of a copy that was brought earlier and holds what is asked for.

    Raises:
        MedfmcError: the copy has other seeds, or several that one would have to choose from.
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
        raise MedfmcError(f"of {repo_id} the seeds {seeds} are in the cache and {seed} is not, and the Hub does not answer.") from error
    raise MedfmcError(
        f"the Hub does not answer, so it is not known which seeds {repo_id} has; in the cache are {seeds}: say which, such as --seed "
        f"{next(iter(held))}."
    ) from error
