"""The experiment: which runs are seeds of one thing, what it is called, and its numbers. Every table, page, card and push asks here.

Runs are of one experiment if they differ in nothing but the seed of the split and the training seed: the same options, content of the
backbone, images and test rows. An *adaptation* is what experiments on several subsets and numbers of shots have in common.
"""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..errors import MedfmcError
from ..runs import SCHEMA, Predictions, RunConfig, RunRecord, load_predictions
from ..runs.config import OF_THE_LOOP
from ..runs.folders import find_runs
from ..runs.identity import BORN
from ..runs.provenance import marks
from ..subsets import SHOTS, Subset
from ..words import ONE_SUPPORT_SET, plural, seed_kind, seeds_words
from .intervals import Estimate, Resampled, estimate
from .jackknife import Jackknife, jackknife

SEEDS_OF_A_RUN = ("seed", "training_seed")
NAMES_AND_EXTRAS = ("model", "revision", "recipe", "predict_challenge")  # names of what counts by its content; and more predictions
AGREEMENT = 1e-6  # between a record's scores and those of its predictions: float32 sums aside, they are the same
_UNKNOWN_EARLY = ("backbone", "images_sha256", "test_rows", "test_size")  # what a record may not say; None then
_OF_THE_DATA = ("subset", "shots", "images_sha256", "test_rows", "test_size")

SHOT_ORDER = (*map(str, SHOTS), *ONE_SUPPORT_SET)

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Run:
    """A run with what is at hand of it.

    Attributes:
        record: its `run.json`.
        folder: where its files lie; None while it is being made.
        test: its test rows; None where they are not at hand.
        problem: why they are not, where they should be.
    """

    record: RunRecord
    folder: Path | None = None
    test: Predictions | None = field(default=None, repr=False)
    problem: str | None = None

    @cached_property
    def config(self) -> RunConfig:
        return self.record.run_config

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def training_seed(self) -> int:
        return self.config.seed_of_training

    @property
    def seed_words(self) -> str:
        """`split seed 1`, and the training seed where it is another, or where there is one split: `training seed 3`."""
        split = [] if self.has_one_split else [f"split seed {self.seed}"]
        return ", ".join(split + self.again)

    @property
    def has_one_split(self) -> bool:
        return shots_of(self.config) in ONE_SUPPORT_SET

    @property
    def again(self) -> list[str]:
        """`training seed 3`, where the name of its dataset config does not say so."""
        return [f"training seed {self.training_seed}"] if self.has_one_split or self.training_seed != self.seed else []

    @property
    def is_finished(self) -> bool:
        return self.record.status == "finished"

    @cached_property
    def traits(self) -> dict[str, Any]:
        """What the runs of its experiment have in common, by name; None where the record does not say."""
        record = self.record
        size = [record.data.get(kind, {}).get("test") for kind in ("rows", "patients")]
        found = options_of(self.config) | {
            "shots": shots_of(self.config),
            "backbone": record.backbone.get("fingerprint"),
            "images_sha256": record.data.get("images_sha256"),
            "test_rows": record.data.get("test_sha256") or (None if self.test is None else _digest_of(self.test)),
            "test_size": None if None in size else size,
        }
        if apart := marks(record):
            found["images"] = ", ".join(apart)
        if record.schema != SCHEMA:
            found["record"] = f"schema {record.schema}"
        return found

    @property
    def options(self) -> dict[str, Any]:
        """What makes its adaptation: of its traits those that are not of the data."""
        return without_data(self.traits)

    @property
    def named_options(self) -> dict[str, Any]:
        """What `names_of` needs of it."""
        return {"model": self.config.model, "revision": self.config.revision, **self.options}

    @property
    def jackknife(self) -> Jackknife | None:
        """Of its test scores over patients; None where there is `no_jackknife`."""
        return self._jackknife if isinstance(self._jackknife, Jackknife) else None

    @property
    def no_jackknife(self) -> str | None:
        """Why its predictions give no interval over patients and no comparison; None where they do."""
        return self._jackknife if isinstance(self._jackknife, str) else None

    @cached_property
    def _jackknife(self) -> Jackknife | str:
        if self.test is None:
            return self.problem or "there is no predictions.parquet"
        if len(set(self.test.patient_ids)) < 2:
            return "there are fewer than two test patients"
        try:
            found = jackknife(self.test.targets, self.test.probabilities, self.test.patient_ids, classes=self.record.subset.classes)
        except (MedfmcError, ValueError) as error:
            return str(error)
        recorded = self.record.scores.get("test", {})
        if any(abs(value - recorded[name]) > AGREEMENT for name, value in found.point.items() if recorded.get(name) is not None):
            return "the scores in run.json are not those of predictions.parquet"
        return found


def _digest_of(test: Predictions) -> str:
    """Hash of the test rows and their labels, whatever their order."""
    targets = test.targets.reshape(len(test.image_ids), -1).tolist()
    rows = sorted(zip(test.image_ids.tolist(), test.patient_ids.tolist(), targets))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def options_of(config: RunConfig) -> dict[str, Any]:
    """All that a person chose about a run but its seeds and what has no say in its scores."""
    return {name: value for name, value in config.acting().items() if name not in (*SEEDS_OF_A_RUN, *NAMES_AND_EXTRAS)}


def without_data(traits: Mapping[str, Any]) -> dict[str, Any]:
    """Traits, or options, without those that say on what was trained and tested."""
    return {name: value for name, value in traits.items() if name not in _OF_THE_DATA}


def adaptation_of(record: RunRecord) -> str:
    """Key of the adaptation that a finished run is of, as its record keeps it and `group` finds it."""
    return _adaptation_key(Run(record).options)


def shots_of(config: RunConfig) -> str:
    """`1`, `5` or `10`; `pool` for the whole pool; `train_20` in the transfer protocol."""
    return "train_20" if config.protocol == "transfer" else str(config.shots or "pool")


def read_run(folder: Path, record: RunRecord) -> Run:
    """A run with its test rows, if they are there and can be read."""
    if record.status != "finished" or not (folder / "predictions.parquet").is_file():
        return Run(record, folder)
    try:
        return Run(record, folder, load_predictions(folder))
    except (MedfmcError, OSError) as error:
        return Run(record, folder, problem=str(error))


@dataclass(frozen=True)
class Experiment:
    """Runs that are seeds of one thing, ordered by seed.

    Attributes:
        runs: the finished ones, one for each seed and training seed.
        failed: the failed ones.
        replaced: finished runs of a seed that another one of `runs`, which finished later, stands for.
        traits: what they have in common, as `Run.traits` names it.
        adaptation: key of the `Adaptation` that it is of.
    """

    runs: tuple[Run, ...]
    failed: tuple[Run, ...] = ()
    replaced: tuple[Run, ...] = ()
    traits: Mapping[str, Any] = field(default_factory=dict)
    adaptation: str = ""

    @property
    def first(self) -> Run:
        return (self.runs or self.failed)[0]

    @property
    def record(self) -> RunRecord:
        return self.first.record

    @property
    def config(self) -> RunConfig:
        """The config of the first run: all others differ in their seeds alone."""
        return self.first.config

    @property
    def subset(self) -> Subset:
        return self.record.subset

    @property
    def shots(self) -> str:
        return shots_of(self.config)

    @property
    def seeds(self) -> list[int]:
        """Of the splits, each once."""
        return sorted({run.seed for run in self.runs})

    @property
    def seeds_words(self) -> str:
        """How many seeds of what its runs are."""
        return seeds_words(self.shots, len(self.seeds), len(self.runs))

    @property
    def listed_seeds(self) -> str:
        """`split seeds 0, 1, 2`, or `training seeds 0, 1, 2` where there is one split."""
        seeds = [run.training_seed for run in self.runs] if self.first.has_one_split else self.seeds
        return f"{plural(seed_kind(self.shots), len(seeds))} {', '.join(map(str, seeds))}"

    @property
    def name(self) -> str:
        """The dataset config; for several seeds without the seed."""
        name = str(self.config.dataset_config)
        return name if len(self.seeds) < 2 else seedless(name)

    def estimate(self, key: str, of: str | None = None, *, resampled: Sequence[Resampled | None] | None = None) -> Estimate:
        """A statistic of the test set over the seeds, with 95 % intervals.

        Args:
            key: `accuracy`, `map`, `auc` or `score`; with `of` also `ap` and `recall`.
            of: a class, for its own statistic.
            resampled: of the runs, in their order; None for their jackknives.
        """
        tests = [run.record.scores["test"] for run in self.runs]
        values = [(test if of is None else test.get("per_class", {}).get(of, {})).get(key) for test in tests]
        name = key if of is None else f"{key} of {of}"
        own = [run.jackknife for run in self.runs] if resampled is None else resampled
        return estimate(name, values, [run.seed for run in self.runs], own)


def seedless(config: str) -> str:
    """`endo-5shot-seed0-official` without its seed: what its five splits share."""
    return "-".join(part for part in config.split("-") if not part.startswith("seed"))


@dataclass(frozen=True)
class Adaptation:
    """What experiments on several subsets and numbers of shots have in common: a row of the board.

    Attributes:
        key: short hash of what makes it.
        label: method and backbone, and what else is needed to tell it from the others.
        method: adaptation method.
        backbone: the name under which the backbone was found.
        protocol: which lists.
        differs: the options in which the adaptations differ, with the values of this one.
        config: all its options.
    """

    key: str
    label: str
    method: str
    backbone: str
    protocol: str
    differs: dict[str, Any]
    config: dict[str, Any]


TestSet = tuple[str | None, str | None, int | None, int | None]
Member = tuple[dict[str, Any], list[Run]]  # traits, and the runs that have them


def group(runs: Iterable[Run]) -> tuple[list[Adaptation], list[Experiment]]:
    """The adaptations that some runs are of, in the order of their labels, and their experiments.

    Runs with the same traits are one experiment. One that does not say everything, because it failed early or its predictions are missing,
    belongs to the largest experiment that agrees in what it says. A copy of a run counts once. Of two runs of one experiment, seed and
    training seed the one that finished last counts.

    Experiments are of one adaptation if their traits differ in nothing but the data. Where a subset comes with several test sets, an
    adaptation is on one of them: the number of the test set is then one of its options.
    """
    members = _members(_without_copies(runs))
    experiments = []
    options: dict[str, dict[str, Any]] = {}
    runs_of: dict[str, list[Run]] = defaultdict(list)
    for (traits, own), number in zip(members, _test_set_numbers(members)):
        shared = without_data(traits)
        key = _adaptation_key(shared | ({"test set": number} if number else {}))
        options[key] = shared | ({"test set": number + 1} if number else {})  # people count from 1
        runs_of[key] += own
        experiments.append(_experiment(traits, own, key))
    options = {key: _first_name(runs_of[key]) | own for key, own in options.items()}
    labels = names_of(options)
    varying = [name for name in _varying(list(options.values())) if name not in ("method", "model", "backbone")]
    adaptations = [
        Adaptation(
            key=key,
            label=labels[key],
            method=own["method"],
            backbone=str(own["model"]),
            protocol=own["protocol"],
            differs={name: own.get(name) for name in varying if name in own or name not in OF_THE_LOOP},
            config={name: value for name, value in own.items() if name != "backbone"},
        )
        for key, own in options.items()
    ]
    return sorted(adaptations, key=lambda row: (row.label, row.key)), experiments


def labels_of(runs: Iterable[Run]) -> dict[str, str]:
    """By id, what the adaptation of each of some runs is called on the board of these runs."""
    adaptations, experiments = group(runs)
    labels = {adaptation.key: adaptation.label for adaptation in adaptations}
    return {run.record.id: labels[e.adaptation] for e in experiments for run in (*e.runs, *e.replaced, *e.failed)}


def _without_copies(runs: Iterable[Run]) -> list[Run]:
    """Each run once; of a failed and a finished copy the finished one."""
    distinct: dict[tuple[int, str], Run] = {}
    for run in runs:
        key = run.record.schema, run.record.id
        if key not in distinct or (run.is_finished and not distinct[key].is_finished):
            distinct[key] = run
    return list(distinct.values())


def _members(runs: list[Run]) -> list[Member]:
    """The traits of each experiment and its runs."""
    members: list[Member] = []
    member_of: dict[str, Member] = {}
    for run in sorted(runs, key=_unknown):  # those that say everything come first
        key = _hash(run.traits)
        if key not in member_of:
            alike = [member for member in members if _agree(run.traits, member[0])] if _unknown(run) else []
            if not alike:
                members.append((run.traits, []))
            member_of[key] = max(alike, key=lambda member: len(member[1])) if alike else members[-1]
        member_of[key][1].append(run)
    return members


def _unknown(run: Run) -> int:
    """How much its record does not say."""
    return sum(run.traits.get(name) is None for name in _UNKNOWN_EARLY)


def _agree(less: Mapping[str, Any], more: Mapping[str, Any]) -> bool:
    """Whether traits are the same wherever the first are known."""
    names = {*less, *more}
    return all(less.get(name) == more.get(name) or (name in _UNKNOWN_EARLY and less.get(name) is None) for name in names)


def _test_set_numbers(members: list[Member]) -> list[int]:
    """For each experiment the number of its test set among those of its subset and protocol; most runs have number 0.

    One that does not say everything is on the test set with the most runs that agrees in what it says.
    """
    counts: dict[tuple[str, str], Counter[TestSet]] = defaultdict(Counter)
    for traits, runs in members:
        counts[traits["subset"], traits["protocol"]][_test_set(traits)] += len(runs)
    sets: dict[tuple[str, str], list[TestSet]] = {}
    for place, each in counts.items():
        ranked = sorted(each, key=lambda data: (-each[data], json.dumps(data)))
        sets[place] = [data for data in ranked if not any(data != other and _is_part(data, other) for other in ranked)]
    return [
        next(number for number, data in enumerate(sets[traits["subset"], traits["protocol"]]) if _is_part(_test_set(traits), data))
        for traits, _ in members
    ]


def _test_set(traits: Mapping[str, Any]) -> TestSet:
    """Images, test rows, and how many images and patients these are; None where it is not known."""
    images, patients = traits.get("test_size") or (None, None)
    return traits.get("images_sha256"), traits.get("test_rows"), images, patients


def _is_part(less: TestSet, more: TestSet) -> bool:
    """Whether the second says all that the first says."""
    return all(a is None or a == b for a, b in zip(less, more))


def _experiment(traits: dict[str, Any], runs: list[Run], adaptation: str) -> Experiment:
    latest: dict[tuple[int, int], Run] = {}
    replaced = []
    for run in sorted((run for run in runs if run.is_finished), key=lambda run: (run.record.finished_at, run.record.id)):
        if (known := latest.get((run.seed, run.training_seed))) is not None:
            replaced.append(known)
        latest[run.seed, run.training_seed] = run
    failed = sorted((run for run in runs if not run.is_finished), key=lambda run: (run.seed, run.training_seed, run.record.id))
    return Experiment(tuple(latest[key] for key in sorted(latest)), tuple(failed), tuple(replaced), traits, adaptation)


def _first_name(runs: list[Run]) -> dict[str, str | None]:
    """The first of the names that the backbone of some runs goes by, so that it is always the same."""
    model, revision = min(((run.config.model, run.config.revision) for run in runs), key=lambda pair: (pair[0], str(pair[1])))
    return {"model": model, "revision": revision}


def names_of(things: Mapping[K, Mapping[str, Any]]) -> dict[K, str]:
    """A name for each of some adaptations: method and backbone, and as little else as tells it from the others.

    Args:
        things: their options by key: `method`, `model`, and `backbone` (the content of the backbone) where it is known.
    """
    keys = {thing: _hash(own) for thing, own in things.items()}
    distinct = {keys[thing]: own for thing, own in things.items()}
    names = {key: _name(own, list(distinct.values())) for key, own in distinct.items()}
    return {thing: names[key] for thing, key in keys.items()}


def _name(own: Mapping[str, Any], others: list[Mapping[str, Any]]) -> str:
    """Such as `lora · dinov2-small, epochs 20`."""
    model = short_name(own["model"])
    alike = [other for other in others if other["method"] == own["method"] and short_name(other["model"]) == model]
    varying = _varying(alike)
    told_apart = [name for name in varying if name not in ("method", "model", "revision", "backbone", "images", "record")]
    told_apart += ["revision"] * ("revision" in varying)
    words = [_words(name, own.get(name)) for name in told_apart]
    words += [str(own[name]) for name in ("images", "record") if own.get(name)]  # said wherever it is so
    weights = {other.get("backbone") for other in alike if other["model"] == own["model"]} - {None}
    if len(weights) > 1 and own.get("backbone"):
        words.append(f"weights {own['backbone'][:8]}")  # one name, different weights
    if "model" in varying:
        model = str(own["model"])
    return ", ".join([f"{own['method']} · {model}", *words])


def short_name(model: Any) -> str:
    """A backbone's name without the folder or organisation before it."""
    return Path(str(model)).name or str(model)


def _varying(options: list[Mapping[str, Any]]) -> list[str]:
    """The names whose values differ; where a method does not read an option, it says nothing of it."""
    names = list(dict.fromkeys(name for own in options for name in own))
    values = {name: [own.get(name) for own in options if name in own or name not in OF_THE_LOOP] for name in names}
    return [name for name in names if len({json.dumps(value, sort_keys=True, default=str) for value in values[name]}) > 1]


def _words(name: str, value: Any) -> str:
    """`epochs 20`, or the options of a method without their common name."""
    if name == "method_options":
        return " ".join(f"{key}={item}" for key, item in sorted((value or {}).items())) or "default options"
    if name == "test set":
        return f"test set {value or 1}"
    return f"{name.replace('_', ' ')} {'default' if value is None else value}"


def _adaptation_key(options: Mapping[str, Any]) -> str:
    """A hash of the options that differ from the default they came with, as in `identity`: a new option at its default splits no row."""
    return _hash({name: value for name, value in options.items() if name not in BORN or value != BORN[name]})[:10]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def one_experiment(runs: Sequence[Run]) -> Experiment:
    """Finished runs as the one experiment that they are.

    Raises:
        MedfmcError: they are of several, or of one seed there are two.
    """
    _, experiments = group(runs)
    if len(experiments) > 1:
        first, other = experiments[:2]
        names = [name for name in {**first.traits, **other.traits} if first.traits.get(name) != other.traits.get(name)]
        values = "; ".join(f"{name}: {first.traits.get(name)} and {other.traits.get(name)}" for name in names)
        raise MedfmcError(f"these runs are not seeds of one experiment, for they differ in {values}. Give those of one.")
    (experiment,) = experiments
    if experiment.replaced:
        seeds = "; ".join(run.seed_words for run in experiment.replaced)
        raise MedfmcError(f"there are several runs of the same seed ({seeds}); give one run a seed.")
    return experiment


def experiment_of(roots: Sequence[str | os.PathLike]) -> Experiment:
    """The finished runs below some folders, as one experiment.

    Raises:
        MedfmcError: there are none, or they are of several experiments.
    """
    runs, failed = [], []
    for folder, record in find_runs(list(roots)):
        if record.status == "finished":
            runs.append(Run(record, folder, load_predictions(folder) if (folder / "predictions.parquet").is_file() else None))
        else:
            failed.append(str(folder))
    if not runs:
        why = f"the runs there failed ({', '.join(failed)})" if failed else "no run.json is there"
        raise MedfmcError(f"there is no finished run in {', '.join(map(str, roots))}: {why}.")
    return one_experiment(runs)
