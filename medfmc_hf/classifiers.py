"""Teaches transformers to load models that no class of its own can express: import this module, and use its Auto classes and pipelines.

    import medfmc_hf.classifiers
    from transformers import pipeline
    classifier = pipeline("image-classification", model="runs/endo-5shot-seed0/linear-.../adapter")

These are heads on a frozen backbone (prototype, linear, knn), which read normalised features, and weights of a backbone's own that were
trained (full, partial, bitfit, layernorm, linear-sgd). What is saved of them is what was fitted or trained; the backbone is found where its
run found it. Without this import transformers says that it does not recognise the model type `medfmc_hf.classifiers`, and predicts nothing.
"""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageClassification, PretrainedConfig, PreTrainedModel

from .adaptation.adapt import MODEL_TYPE
from .errors import MedfmcError

_OF_THE_HUB = ("token", "cache_dir", "force_download", "local_files_only", "trust_remote_code", "code_revision", "adapter_kwargs")


class AdaptedConfig(PretrainedConfig):
    """The `config.json` beside what was trained: the classes. `backbone.json` names the backbone."""

    model_type = MODEL_TYPE


class AdaptedForImageClassification(PreTrainedModel):
    """Loads a backbone with what was trained on it; see `medfmc_hf.predict.load_adapted`."""

    config_class = AdaptedConfig

    @classmethod
    def from_pretrained(cls, source: str, *_: Any, config: PretrainedConfig | None = None, **options: Any) -> Any:  # type: ignore[override]
        """A classifier of the backbone's own class, or a head on it, with the trained weights, in evaluation mode.

        Args:
            source: a run's `adapter` folder, or a repository on the Hub that `medfmc push model` made.
            config: as `AutoConfig` read it; the backbone has one of its own.
            **options: `subfolder`, such as `seed1` in a repository of several seeds; `dtype`; `backbone`, where the backbone is, if it is a
                local folder that moved.

        Raises:
            MedfmcError: an option is not known here, or as `medfmc_hf.predict.load_adapted` does.
        """
        from .predict import load_adapted, refuse_deep_images

        seed, dtype = _seed_of(options.pop("subfolder", None)), options.pop("dtype", options.pop("torch_dtype", None))
        backbone = options.pop("backbone", None)
        wanted = {name: value for name, value in options.items() if value not in (None, False) and not name.startswith("_")}
        unknown = sorted(set(wanted) - {*_OF_THE_HUB, "revision"})
        if unknown or wanted.get("revision", "main") != "main":
            raise MedfmcError(f"a model of medfmc_hf cannot be loaded with {', '.join(unknown) or 'a revision'}; leave it out.")
        adapted = load_adapted(source, seed=seed, backbone=backbone, device="cpu")
        refuse_deep_images(adapted)
        if isinstance(dtype, str) and dtype != "auto":
            dtype = getattr(torch, dtype, None)
        return adapted.model if dtype in (None, "auto") else adapted.model.to(dtype)


def _seed_of(subfolder: str | None) -> int | None:
    if not subfolder:
        return None
    if not subfolder.strip("/").removeprefix("seed").isdigit():
        raise MedfmcError(f"the subfolders of a repository of ours are seed0, seed1 and so on; got {subfolder!r}.")
    return int(subfolder.strip("/").removeprefix("seed"))


AutoConfig.register(MODEL_TYPE, AdaptedConfig, exist_ok=True)
AutoModelForImageClassification.register(AdaptedConfig, AdaptedForImageClassification, exist_ok=True)
