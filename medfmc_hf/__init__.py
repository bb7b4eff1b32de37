"""MedFMC in the Hugging Face ecosystem: few-shot splits, PEFT methods for vision backbones, and an exact score.

Importing this package loads none of torch, transformers, datasets and evaluate; the names below are looked up when first used.
"""

from .version import __version__

__all__ = ["SUBSETS", "ConfigName", "RunConfig", "RunRecord", "Subset", "__version__", "score", "train"]


def __getattr__(name: str):
    if name in ("SUBSETS", "Subset", "ConfigName"):
        from . import subsets as home
    elif name == "score":
        from . import scoring as home
    elif name in ("RunConfig", "RunRecord"):
        from . import runs as home
    elif name == "train":
        from .training import one_run as home
    else:
        raise AttributeError(f"module 'medfmc_hf' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(home, name)


def __dir__():
    return sorted(__all__)
