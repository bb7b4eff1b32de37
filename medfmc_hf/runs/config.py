"""The config of a run: every option, with its type, range, meaning and default, and the recipe that fills what is not given."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_type_hints

from ..errors import MedfmcError
from ..hints import checked
from ..subsets import ConfigName
from .option import Unset, option
from .recipes import NONE, recipe_called, recipe_names, recipe_of

_ROWS, _MODEL, _TRAINING, _PREDICTION = "which rows", "which model and method", "how to train", "what to predict"
_LARGE = 1_000_000


class MethodOptions(dict):
    """The options of a method as a config holds them: complete, where a plain dict is put on top of the recipe's."""


@dataclass(frozen=True)
class RunConfig:
    """All that a person chooses about a run.

    What is not given comes from the recipe: that of the method (`recipes/configs/METHOD.yaml`) unless `recipe` names another, as on the
    command line. So `RunConfig("endo", method="vpt")` is `--subset endo --method vpt`. What the recipe does not say has the default
    that stands below. `method_options` are put on top of the recipe's.

    Attributes:
        subset: subset key.

    The other attributes are the options below, which `medfmc_hf.runs.flags` offers on the command line, with the same words.

    Raises:
        MedfmcError: a value is of another type than its option or out of its range, or subset, shots and seed make no dataset config.
    """

    subset: str = option(dataclasses.MISSING, "which image set", group=_ROWS)
    shots: int | None = option(
        5, "1, 5 or 10 patients per class; none for the whole pool", group=_ROWS, words="1, 5 or 10, or all for the whole pool"
    )
    seed: int = option(0, "which support set: the number of the split (0 to 4)", group=_ROWS, low=0)
    protocol: Literal["clean", "official", "transfer"] = option(
        "clean", "which lists: clean, official (the challenge's lists as they are) or transfer (train_20 / val_20)", group=_ROWS
    )
    model: str = option("google/vit-base-patch16-224-in21k", "Hub id or local folder of the backbone", group=_MODEL)
    revision: str | None = option(None, "branch, tag or commit of the backbone on the Hub", group=_MODEL)
    method: str = option("lora", "adaptation method by name, see medfmc_hf.adaptation.methods.METHODS", group=_MODEL)
    method_options: Mapping[str, Any] = option(MethodOptions(), "options of the method, such as r=16", group=_MODEL)
    image_size: int | None = option(
        None, "side of the square that the backbone sees, in pixels; none for the backbone's own", group=_MODEL, low=1, high=8192
    )
    recipe: str | None = option(None, "recipe by name, or its file; none for the method's own, and `none` for no recipe", group=_TRAINING)
    training_seed: int | None = option(
        None, "seed of initialisation, order and augmentation; none for that of the split", group=_TRAINING, low=0, high=2**31 - 1
    )
    epochs: int = option(20, "passes over the support set", group=_TRAINING, low=0, high=_LARGE)
    batch_size: int = option(4, "images per optimiser step, over all processes", group=_TRAINING, low=1, high=_LARGE)
    learning_rate: float = option(1e-3, "peak learning rate", group=_TRAINING, above=0, high=_LARGE)
    weight_decay: float = option(0.01, "decoupled weight decay of AdamW, or L2 of SGD", group=_TRAINING, low=0, high=100)
    optimizer: Literal["adamw", "sgd"] = option("adamw", "adamw, or sgd with momentum 0.9", group=_TRAINING)
    schedule: Literal["cosine", "linear", "constant"] = option(
        "cosine", "of the learning rate over the whole run, times the warm-up", group=_TRAINING
    )
    final_lr_fraction: float = option(
        0.0, "learning rate at the end of cosine and linear, as a fraction of the peak", group=_TRAINING, low=0, high=1000
    )
    warmup_epochs: float = option(
        1.0, "epochs over which a linear ramp multiplies the schedule, as mmcv does; fractions are allowed", group=_TRAINING, low=0
    )
    gradient_clip: float = option(1.0, "largest gradient norm; 0 for no clipping", group=_TRAINING, low=0, high=_LARGE)
    augmentation: Literal["crop-flip", "fixed-views", "none"] = option(
        "crop-flip",
        "crop-flip (random resized crop and horizontal flip), fixed-views (four such views of each image, the same in every run) or none",
        group=_TRAINING,
    )
    loss: Literal["auto", "weighted", "asymmetric", "focal"] = option(
        "auto", "auto is cross-entropy, or binary cross-entropy for multi-label", group=_TRAINING
    )
    sampling: Literal["uniform", "balanced"] = option(
        "uniform", "uniform, or balanced to draw rows inversely to how frequent their rarest class is", group=_TRAINING
    )
    select: Literal["last", "best"] = option(
        "last", "last (fixed epochs) or best (the epoch with the best validation score)", group=_TRAINING
    )
    dtype: Literal["float32", "bfloat16"] = option("float32", "precision of the network: float32, or bfloat16 by autocast", group=_TRAINING)
    compile: Literal["off", "on", "auto"] = option(
        "off", "off, on (the blocks run through torch.compile) or auto (on where a probe says that it pays on this GPU)", group=_TRAINING
    )
    predict_challenge: bool = option(
        False, "also predict the images of the subset's -challenge config, for a submission", group=_PREDICTION
    )

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        given = {name: value for name, value in values.items() if not isinstance(value, Unset)}
        for name, value in _filled(given).items():
            field = _FIELDS[name]
            if name == "dtype" and value == "auto":
                raise MedfmcError("dtype: auto was removed; write dtype: float32, or dtype: bfloat16 where the device is faster with it.")
            if name == "shots" and value == "all":
                value = None
            object.__setattr__(self, name, checked(name, value, _hints()[name], field.metadata))
        object.__setattr__(self, "method_options", MethodOptions(self.method_options))
        # One thing has one form, and one id.
        if self.training_seed == self.seed:
            object.__setattr__(self, "training_seed", None)
        if self.protocol == "transfer":  # its lists are of no number of shots
            object.__setattr__(self, "shots", None)
        if self.shots is None and self.seed:  # there is one such split, so that a seed can only be that of the training
            object.__setattr__(self, "training_seed", self.seed_of_training or None)
            object.__setattr__(self, "seed", 0)
        if self.epochs and self.warmup_epochs > self.epochs:
            raise MedfmcError(f"warmup_epochs is at most epochs, {self.epochs}; got {self.warmup_epochs:g}.")
        _ = self.dataset_config  # says what is wrong with subset, shots and seed

    @property
    def dataset_config(self) -> ConfigName:
        """The dataset config the run trains and tests on."""
        if self.protocol == "transfer":
            return ConfigName(self.subset, variant="transfer")
        return ConfigName(self.subset, self.shots, None if self.shots is None else self.seed, self.protocol)

    @property
    def seed_of_training(self) -> int:
        """What initialisation, order and augmentation are drawn from."""
        return self.seed if self.training_seed is None else self.training_seed

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """A config from the keys of a YAML file; what it lacks comes from the recipe.

        Raises:
            MedfmcError: a key is unknown; the message lists the known ones.
        """
        _refuse_unknown(values)
        if "subset" not in values:
            recipe = recipe_called(str(values.get("recipe") or NONE))
            if "subset" not in recipe:
                raise MedfmcError("which subset? Give --subset chest, colon, endo, neojaundice or retino.")
            values = {"subset": recipe["subset"], **values}
        return cls(**values)

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> "RunConfig":
        """The config that a record holds, as it is: what it lacks has the plain default, and no recipe is asked.

        Raises:
            MedfmcError: a key is unknown, or a value is none of its option's.
        """
        _refuse_unknown(values)
        values = {**PLAIN, "recipe": NONE, **values}
        if values["dtype"] == "auto":  # of schema 1; the precision that it chose is in the record's cost
            values["dtype"] = "float32"
        return cls(**values | {"method_options": MethodOptions(values["method_options"])})

    def to_dict(self) -> dict[str, Any]:
        """The config as plain JSON values."""
        return {name: getattr(self, name) for name in _FIELDS} | {"method_options": dict(self.method_options)}

    def as_recipe(self) -> "RunConfig":
        """The same rows, backbone and method, and the rest as the recipe alone has it."""
        return RunConfig(**{name: getattr(self, name) for name in (*_ROWS_AND_MODEL, "recipe")})

    def changes(self, base: "RunConfig | None" = None) -> dict[str, Any]:
        """The options of method and training that are not as in `base`, with their values; None for what the recipe alone has."""
        plain = (base or self.as_recipe()).to_dict()
        others = {*_ROWS_AND_MODEL, "recipe", "training_seed", "predict_challenge"}
        return {name: value for name, value in self.to_dict().items() if name not in others and value != plain[name]}

    def without_training(self) -> "RunConfig":
        """The config with what only a training loop reads at its plain default, as a run without one has it."""
        return dataclasses.replace(self, **{name: PLAIN[name] for name in OF_THE_LOOP})

    def acting(self) -> dict[str, Any]:
        """The options that the run reads, with their values: a train-free method reads none of the training loop's."""
        idle = OF_THE_LOOP if self.method in TRAIN_FREE else ()
        return {name: value for name, value in self.to_dict().items() if name not in idle}


_FIELDS = {f.name: f for f in dataclasses.fields(RunConfig)}
_ROWS_AND_MODEL = ("subset", "shots", "seed", "protocol", "model", "revision", "method")
TRAIN_FREE = ("prototype", "linear", "knn")
OF_THE_LOOP = tuple(name for name, field in _FIELDS.items() if field.metadata.get("group") == _TRAINING and name not in ("recipe", "dtype"))
PLAIN = {name: field.default.default for name, field in _FIELDS.items() if isinstance(field.default, Unset)}


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(RunConfig)


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    unknown = sorted(set(map(str, values)) - set(_FIELDS))
    if unknown:
        raise MedfmcError(f"unknown option {', '.join(unknown)}; a run knows {', '.join(_FIELDS)}.")


def _filled(given: dict[str, Any]) -> dict[str, Any]:
    """Every option: as given, else as the recipe has it, else the plain default."""
    options = given.get("method_options")
    name, method = given.get("recipe"), given.get("method")
    if method is not None and name != method and name in recipe_names() and recipe_of(name)["method"] == name:
        raise MedfmcError(f"the recipe {name} is that of the method {name}; got {method!r}. Make a new RunConfig for another method.")
    if len(given) == len(_FIELDS) and isinstance(options, MethodOptions):
        return given
    if given.get("recipe") is None:
        method = given.get("method", PLAIN["method"])
        recipe, name = recipe_of(method) if isinstance(method, str) else {}, method if method in recipe_names() else NONE
    else:
        name = given["recipe"]
        recipe = recipe_called(name) if isinstance(name, str) else {}
    unknown = sorted(set(map(str, recipe)) - set(_FIELDS))
    if unknown:
        raise MedfmcError(f"unknown option {', '.join(unknown)} in the recipe {name}; a run knows {', '.join(_FIELDS)}.")
    filled = {**PLAIN, **recipe, **given, "recipe": name}
    if isinstance(options, Mapping) and not isinstance(options, MethodOptions):
        filled["method_options"] = {**(recipe.get("method_options") or {}), **options}
    return filled
