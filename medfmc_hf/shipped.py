"""Finds `metrics/` and `recipes/`, which are at the top of the repository and inside the wheel."""

from pathlib import Path

from .errors import MedfmcError

_PACKAGE = Path(__file__).resolve().parent


def shipped(relative: str) -> Path:
    """The path of a file or folder below `metrics/` or `recipes/`, in an installed wheel or in a clone.

    Args:
        relative: relative path, such as `"metrics/medfm_score"` or `"recipes/configs/lora.yaml"`.
    """
    places = [_PACKAGE / relative, _PACKAGE.parent / relative]
    for place in places:
        if place.exists():
            return place
    raise MedfmcError(f"{relative} is not part of this installation (looked at {places[0]} and {places[1]}); reinstall medfmc_hf.")
