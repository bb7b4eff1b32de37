"""Which runs belong in one row of the board: those whose configs differ in subset, shots and seed alone, tested on the same rows."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs import Predictions, RunRecord
from ..runs.provenance import marks

AXES = ("subset", "shots", "seed")  # the dimensions of the board
NOT_OF_THE_RESULT = ("predict_challenge",)  # asks for more predictions; the score stays the same


@dataclass(frozen=True)
class Run:
    """A run as the report sees it.

    Attributes:
        folder: where its files lie.
        record: its `run.json`.
        test_key: what tells its test rows from others: `rows/patients`, and a hash of the rows where there are predictions.
        shots: `1`, `5` or `10`; `pool` for the whole pool; `train_20` in the transfer protocol.
    """

    folder: Path
    record: RunRecord
    test_key: str

    @property
    def subset(self) -> str:
        return self.record.config["subset"]

    @property
    def seed(self) -> int:
        return self.record.config.get("seed", 0)

    @property
    def shots(self) -> str:
        name = self.record.run_config.dataset_config
        return "train_20" if name.variant == "transfer" else str(name.shots or "pool")


@dataclass(frozen=True)
class Setting:
    """One row of the board: everything a person chose but subset, shots and seed.

    Attributes:
        key: short hash of what makes the row.
        label: method and backbone, and what else is needed to tell it from the other rows.
        method: adaptation method.
        backbone: the name under which the backbone was found.
        protocol: which lists.
        differs: the options in which rows of the board differ, with the values of this one.
        config: all options of the row.
    """

    key: str
    label: str
    method: str
    backbone: str
    protocol: str
    differs: dict[str, Any]
    config: dict[str, Any]


def test_key(predictions: Predictions) -> str:
    """Hash of the test rows and their labels, whatever their order."""
    targets = predictions.targets.reshape(len(predictions.image_ids), -1).tolist()
    rows = sorted(zip(predictions.image_ids.tolist(), predictions.patient_ids.tolist(), targets))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def group(runs: Iterable[Run]) -> list[tuple[Setting, list[Run]]]:
    """Runs by the row they belong to, rows in the order of their labels.

    A row never holds two sets of test rows of one subset: where a subset was tested on several, each further one opens another row.
    """
    runs = list(runs)
    editions, contents_of = _editions(runs), _contents(runs)
    members: dict[str, list[Run]] = defaultdict(list)
    options: dict[str, dict[str, Any]] = {}
    contents: dict[str, str] = {}
    for run in runs:
        config = run.record.run_config.to_dict()  # with the defaults of what the record leaves out
        chosen = {name: value for name, value in config.items() if name not in (*AXES, *NOT_OF_THE_RESULT, "model", "revision")}
        edition = editions.get((config["protocol"], run.subset, run.test_key), 0)
        content = run.record.backbone.get("fingerprint") or contents_of.get(config["model"], f"{config['model']}@{config['revision']}")
        apart = ", ".join(marks(run.record))
        identity = chosen | {"backbone": content, "test rows": edition} | ({"images": apart} if apart else {})
        key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:10]
        members[key].append(run)
        contents[key] = content
        shown = (
            {"model": config["model"], "revision": config["revision"]}
            | chosen
            | ({"test_rows": f"edition {edition + 1}"} if edition else {})
            | ({"images": apart} if apart else {})
        )
        known = options.setdefault(key, shown)
        if (shown["model"], str(shown["revision"])) < (known["model"], str(known["revision"])):
            options[key] = shown  # one backbone under two names: always take the same
    settings = [_setting(key, options, contents) for key in options]
    return [(setting, members[setting.key]) for setting in sorted(settings, key=lambda s: (s.label, s.key))]


def _editions(runs: list[Run]) -> dict[tuple[str, str, str], int]:
    """A number for each set of test rows of a subset and protocol; 0 is the most frequent.

    Where predictions are missing, only the number of rows is known: such a run belongs to the most frequent set of that many.
    """
    counts: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for run in runs:
        if run.record.status == "finished":
            counts[run.record.run_config.protocol, run.subset][run.test_key] += 1
    editions = {}
    for place, counter in counts.items():
        hashed = sorted((key for key in counter if " " in key), key=lambda key: (-counter[key], key))
        distinct = [*hashed, *sorted(key for key in counter if " " not in key and not any(h.startswith(f"{key} ") for h in hashed))]
        editions |= {(*place, key): number for number, key in enumerate(distinct)}
        for key in set(counter) - set(distinct):
            editions[(*place, key)] = editions[(*place, next(h for h in hashed if h.startswith(f"{key} ")))]
    return editions


def _contents(runs: list[Run]) -> dict[str, str]:
    """The content of each backbone by its name, where one name stands for one: a run that failed early does not know its own."""
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        if fingerprint := run.record.backbone.get("fingerprint"):
            found[run.record.run_config.model].add(fingerprint)
    return {name: next(iter(fingerprints)) for name, fingerprints in found.items() if len(fingerprints) == 1}


def _setting(key: str, options: Mapping[str, dict], contents: Mapping[str, str]) -> Setting:
    own = options[key]
    short = Path(str(own["model"])).name or str(own["model"])
    alike = [other for other in options if options[other]["method"] == own["method"] and Path(str(options[other]["model"])).name == short]
    told_apart = [name for name in _varying([options[other] for other in alike]) if name not in ("method", "model")]
    words = [_words(name, own.get(name)) for name in told_apart if name != "images"]
    words += [own["images"]] if own.get("images") else []  # said wherever it is so, not only where rows differ in it
    if len({options[other]["model"] for other in alike}) > 1:
        short = str(own["model"])
    if len({contents[other] for other in alike if options[other]["model"] == own["model"]}) > 1:
        words.append(f"weights {contents[key][:8]}")  # one name, different weights
    varying = _varying(list(options.values()))
    return Setting(
        key=key,
        label=", ".join([f"{own['method']} · {short}", *words]),
        method=own["method"],
        backbone=str(own["model"]),
        protocol=own["protocol"],
        differs={name: own.get(name) for name in varying if name not in ("method", "model")},
        config=own,
    )


def _varying(configs: list[dict]) -> list[str]:
    names = list(dict.fromkeys(name for config in configs for name in config))
    return [name for name in names if len({json.dumps(config.get(name), sort_keys=True, default=str) for config in configs}) > 1]


def _words(name: str, value: Any) -> str:
    """`epochs 20`, or the options of a method without their common name."""
    if name == "method_options":
        return " ".join(f"{key}={item}" for key, item in sorted((value or {}).items())) or "default options"
    return f"{name} {'default' if value is None else value}"
