"""MedFMC in the Hugging Face ecosystem: few-shot splits, PEFT methods for vision backbones, and an exact score.

Importing this package loads none of torch, transformers, datasets and evaluate; the names below are looked up when first used.
"""

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .runs import RunConfig, RunRecord
    from .scoring import score
    from .subsets import SUBSETS, ConfigName, Subset
    from .training import train

__all__ = ["SUBSETS", "ConfigName", "RunConfig", "RunRecord", "Subset", "__version__", "score", "train"]


def __getattr__(name: str) -> Any:
    if name in ("SUBSETS", "Subset", "ConfigName"):
        from . import subsets

        return getattr(subsets, name)
    if name == "score":
        from .scoring import score

        return score
    if name in ("RunConfig", "RunRecord"):
        from . import runs

        return getattr(runs, name)
    if name == "train":
        from .training import train

        return train
    raise AttributeError(f"module 'medfmc_hf' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
