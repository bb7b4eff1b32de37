"""Brings a published adapter from the Hub, and no more of its repository than that; what is cached works without a network."""

import re
from pathlib import Path

from ..errors import MedfmcError
from ..subsets import SEEDS
from .errors import explained, is_network


def fetch_adapter(repo_id: str, seed: int | None = None) -> Path:
    """Download a repository that `medfmc push model` made, or of several draws the one of `seed` (the first if None).

    Returns:
        The local copy of the repository's root.

    Raises:
        MedfmcError: there is no such repository, or it cannot be reached and is not cached.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    with explained(repo_id):
        try:
            paths = [sibling.rfilename for sibling in HfApi().repo_info(repo_id).siblings or ()]
        except Exception as error:
            if not (isinstance(error, OfflineModeIsEnabled) or is_network(error)):
                raise
            cached = _cached(repo_id, seed)
            if cached is None:
                raise MedfmcError(f"{repo_id} is not in the cache, and the Hub cannot be reached: {error}") from error
            return cached
        folder = ""
        if "backbone.json" not in paths:
            seeds = sorted({found[1] for path in paths if (found := re.match(r"seed(\d+)/backbone\.json$", path))})
            if not seeds:
                raise MedfmcError(f"{repo_id} holds no adapted model of ours: no backbone.json is in it.")
            if seed is not None and str(seed) not in seeds:
                raise MedfmcError(f"{repo_id} has no draw {seed}; it has {', '.join(seeds)}.")
            folder = f"seed{seeds[0] if seed is None else seed}/"
        # Nothing that could run code is brought.
        return Path(snapshot_download(repo_id, allow_patterns=[f"{folder}*.json", f"{folder}*.safetensors"]))


def _cached(repo_id: str, seed: int | None) -> Path | None:
    """The root of a copy that was brought earlier and holds what is asked for."""
    from huggingface_hub import try_to_load_from_cache

    for folder in ("", *(f"seed{draw}/" for draw in (SEEDS if seed is None else (seed,)))):
        found = try_to_load_from_cache(repo_id, f"{folder}backbone.json")
        if isinstance(found, str):
            return Path(found).parent.parent if folder else Path(found).parent
    return None
