"""What `accelerate launch`, its config file and its environment ask for: it is a run's setting, or the run ends with a sentence."""

import os
from collections.abc import Mapping
from typing import Any

from ..errors import MedfmcError
from .config import RunConfig

_PLUGINS = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
            "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config"}  # fmt: skip
_PRECISIONS = {"bf16": "bfloat16"}


def launcher_options(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The options of a run that the launcher sets: `dtype` and `compile`, where it was told so.

    Raises:
        MedfmcError: it asks for what a run cannot do.
    """
    for name, what in _PLUGINS.items():
        if environment.get(name, "").lower() in ("1", "true", "yes"):
            raise MedfmcError(f"accelerate was configured for {what}, which runs here do not use; choose plain data parallelism instead.")
    options: dict[str, Any] = {}
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision != "no":
        if precision not in _PRECISIONS:
            raise MedfmcError(f"accelerate was told mixed precision {precision}; a run knows bf16 (--dtype bfloat16) and no.")
        options["dtype"] = _PRECISIONS[precision]
    steps = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps not in ("", "1", "auto"):
        raise MedfmcError(
            f"accelerate was told to accumulate gradients over {steps} steps; --batch-size says how many images make one optimiser step. "
            "Set gradient accumulation to 1."
        )
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend != "no":
        if backend != "inductor":
            raise MedfmcError(f"accelerate was told the dynamo backend {backend}; a run knows inductor (--compile on) and no.")
        options["compile"] = "on"
    return options


def check_launcher(config: RunConfig) -> None:
    """Raise where the launcher was told something else than the run."""
    for name, value in launcher_options().items():
        if getattr(config, name) != value:
            flag = {"dtype": "--mixed_precision no", "compile": "--dynamo_backend no"}[name]
            raise MedfmcError(
                f"accelerate was told {name} {value} and the run {name} {getattr(config, name)}: write {name}: {value} into the run's "
                f"options, or launch with {flag}."
            )
