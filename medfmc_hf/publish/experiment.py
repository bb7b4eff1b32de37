"""The experiment: runs that differ in nothing but the draw of the support set, and their numbers with both kinds of uncertainty."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import MedfmcError
from ..evaluation import bootstrap, statistics
from ..runs import Predictions, RunConfig, RunRecord, load_predictions
from ..runs.folders import find_runs
from ..runs.provenance import marks
from ..subsets import Subset


@dataclass(frozen=True)
class Draw:
    """One run of an experiment.

    Attributes:
        record: what it was.
        test: its test rows; None where the predictions are not at hand.
        folder: where its files lie; None while it is being made.
    """

    record: RunRecord
    test: Predictions | None = None
    folder: Path | None = None

    @property
    def seed(self) -> int:
        return self.record.config["seed"]

    @property
    def adapter(self) -> Path | None:
        """The folder of the weights: `adapter/` of a run, or what was published of it."""
        return self.folder and (self.folder / "adapter" if (self.folder / "adapter").is_dir() else self.folder)

    @property
    def weights(self) -> Literal["peft", "plain"] | None:
        """What the folder holds: an adapter in PEFT's format, other trained weights, or none, as train-free methods leave it."""
        adapter = self.adapter
        if adapter and (adapter / "adapter_model.safetensors").is_file():
            return "peft"
        return "plain" if adapter and (adapter / "trained.safetensors").is_file() else None


@dataclass(frozen=True)
class Number:
    """A statistic of the test set. All are fractions; NaN where undefined.

    Attributes:
        draws: its mean and spread over the draws of the support set.
        low: lower end of the 95 % bootstrap interval of the mean over test patients.
        high: upper end.
    """

    draws: statistics.Draws
    low: float
    high: float


@dataclass(frozen=True)
class Experiment:
    """Draws of one setting, ordered by seed."""

    draws: tuple[Draw, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", tuple(sorted(self.draws, key=lambda draw: draw.seed)))
        first, *others = self.draws
        for draw in others:
            differing = [name for name, value in setting_of(draw.record).items() if value != setting_of(first.record)[name]]
            if differing:
                values = "; ".join(f"{name}: {setting_of(first.record)[name]} and {setting_of(draw.record)[name]}" for name in differing)
                raise MedfmcError(f"these runs are not draws of one experiment, for they differ in {values}. Give those of one setting.")
        seeds = [draw.seed for draw in self.draws]
        if len(set(seeds)) < len(seeds):
            raise MedfmcError(f"there are several runs of the same seed ({', '.join(map(str, seeds))}); give one run a seed.")

    @property
    def config(self) -> RunConfig:
        """The config of the first draw: all others differ in the seed alone."""
        return self.draws[0].record.run_config

    @property
    def record(self) -> RunRecord:
        return self.draws[0].record

    @property
    def subset(self) -> Subset:
        return self.record.subset

    @property
    def seeds(self) -> list[int]:
        return [draw.seed for draw in self.draws]

    @property
    def name(self) -> str:
        """The dataset config; for several draws without the seed."""
        return self.record.data["config"] if len(self.draws) == 1 else seedless(self.record.data["config"])

    @cached_property
    def _bootstrap(self) -> bootstrap.Bootstrap | None:
        tests = [draw.test for draw in self.draws]
        if any(test is None or len(set(test.patient_ids)) < 2 for test in tests):
            return None
        if any(not np.array_equal(test.image_ids, tests[0].image_ids) for test in tests):
            return None
        return bootstrap.mean_of(
            [bootstrap.bootstrap(test.targets, test.probabilities, test.patient_ids, classes=self.subset.classes) for test in tests]
        )

    def number(self, key: str, of: str | None = None) -> Number:
        """One statistic over the draws.

        Args:
            key: `accuracy`, `map`, `auc` or `score`; with `of` also `ap` and `recall`.
            of: a class, for its own statistic.
        """
        tests = [draw.record.scores["test"] for draw in self.draws]
        values = [(test if of is None else test["per_class"][of]).get(key) for test in tests]
        over = statistics.over_draws([float("nan") if value is None else value for value in values])
        name = key if of is None else f"{key} of {of}"
        known = self._bootstrap is not None and name in self._bootstrap.point
        low, high = self._bootstrap.interval(name) if known else (float("nan"), float("nan"))
        return Number(over, max(low, 0.0), min(high, 1.0))  # in this order a NaN stays


def setting_of(record: RunRecord) -> dict:
    """What the draws of an experiment have in common: their options but the seed, the content of their backbone, and their images."""
    config = {name: value for name, value in record.config.items() if name not in ("seed", "model", "revision", "predict_challenge")}
    return config | {"backbone": record.backbone.get("fingerprint"), "images": ", ".join(marks(record)) or "as published"}


def seedless(config: str) -> str:
    """`endo-5shot-seed0-official` without its seed: what its five draws share."""
    return "-".join(part for part in config.split("-") if not part.startswith("seed"))


def experiment_of(roots: Sequence[str | os.PathLike]) -> Experiment:
    """The finished runs below some folders, as one experiment.

    Raises:
        MedfmcError: there are none, or they are of several experiments.
    """
    draws, failed = [], []
    for folder, record in find_runs(list(roots)):
        if record.status != "finished":
            failed.append(str(folder))
            continue
        test = load_predictions(folder) if (folder / "predictions.parquet").is_file() else None
        draws.append(Draw(record, test, folder))
    if not draws:
        why = f"the runs there failed ({', '.join(failed)})" if failed else "no run.json is there"
        raise MedfmcError(f"there is no finished run in {', '.join(map(str, roots))}: {why}.")
    return Experiment(tuple(draws))
