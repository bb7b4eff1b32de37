"""MedFMC in the Hugging Face ecosystem: few-shot splits, PEFT methods for vision backbones, and an exact score.

Importing this package loads none of torch, transformers, datasets and evaluate; the names below are looked up when first used.
"""

from importlib import import_module

__version__ = "0.3.0"

_PUBLIC = {
    "SUBSETS": "medfmc_hf.subsets",
    "Subset": "medfmc_hf.subsets",
    "ConfigName": "medfmc_hf.subsets",
    "score": "medfmc_hf.scoring",
    "RunConfig": "medfmc_hf.runs",
    "RunRecord": "medfmc_hf.runs",
    "train": "medfmc_hf.training",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'medfmc_hf' has no attribute {name!r}; it has {', '.join(_PUBLIC)}")


def __dir__():
    return sorted(__all__)
