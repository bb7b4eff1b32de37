"""Plans a build: of each subset the pool, the configs that its lists allow, and their rows."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..errors import MedfmcError
from ..subsets import ConfigName
from . import lists
from .audit import Rows
from .loading import targets_of_column
from .parquet import master_table
from .release import Release
from .splits import SAMPLER, Splits, compose, draw_pool


@dataclass
class Plan:
    """One subset that will be written.

    Attributes:
        release: its images, labels and lists.
        configs: the rows of each split of each config.
        pool: where the pool is from, in words.
        few_shot: where the support sets are from, in words.
        table: every image once.
    """

    release: Release
    configs: dict[ConfigName, Splits]
    pool: str
    few_shot: str
    table: pa.Table


def make_plans(releases: list[Release], absent: dict[str, str]) -> list[Plan]:
    """One plan a subset. A subset whose lists allow no config goes to `absent`, with the reason.

    Raises:
        MedfmcError: no subset is left.
    """
    plans = []
    for release in releases:
        subset, there = release.subset, release.image_paths
        labels = {image_id: row for image_id, row in release.multi_hot().items() if image_id in there}
        rows = {kind: [image_id for image_id in image_ids if image_id in there] for kind, image_ids in release.lists.items()}
        pool, pool_words = _pool(release, rows, labels)
        configs = compose(subset, labels, rows, pool)
        if not configs:
            no_lists = "its split lists are not there: give them with --lists, or download them with --fetch-lists"
            absent[subset.key] = no_lists if pool is None else "none of the images of its pool is there"
            continue
        few_shot = f"drawn by {SAMPLER}, our seeded sampler of patients"
        if subset.challenge:
            with_list = sum(config.variant == "clean" and config.shots is not None for config in configs)
            few_shot = {
                0: "none: the challenge's lists are not there (--lists, --fetch-lists)",
                15: "the challenge's lists, exp1 to exp5",
            }.get(with_list, f"{with_list} of the 15 lists of the challenge")
        plans.append(Plan(release, configs, pool_words, few_shot, master_table(release)))
    if not plans:
        raise MedfmcError("no config can be built: " + "; ".join(f"{key}: {reason}" for key, reason in absent.items()) + ".")
    return plans


def _pool(release: Release, rows: dict[str, list[str]], labels: dict[str, np.ndarray]) -> tuple[list[str] | None, str]:
    """The images that may be trained on, and where that is from. ColonPath's pool in the paper is another one, so it is not used."""
    subset = release.subset
    if subset.challenge and lists.TRAINVAL in rows:
        return rows[lists.TRAINVAL], "trainval.txt of the challenge"
    if subset.key != "colon" and lists.PAPER_POOL in rows:
        return rows[lists.PAPER_POOL], "fewshot-pool.txt of the paper"
    if subset.challenge:
        return None, "not known: trainval.txt is not there"
    classes = {image_id: label for image_id in sorted(labels) if isinstance(label := release.published.get(image_id), int)}
    pool = draw_pool(subset, list(classes), list(classes.values()))
    return pool, f"drawn by {SAMPLER}: a fifth of the patients of each class, by a hash of the patient id (the paper's lists are not there)"


def rows_of(plan: Plan) -> dict[ConfigName, dict[str, Rows]]:
    """Every split as the audit reads it. Splits of the same images are the same object."""
    subset = plan.release.subset
    targets = targets_of_column(plan.table[subset.label_column], subset)
    position = {image_id: i for i, image_id in enumerate(plan.table["image_id"].to_pylist())}
    shared: dict[tuple[str, ...], Rows] = {}
    rows: dict[ConfigName, dict[str, Rows]] = {}
    for config, splits in plan.configs.items():
        rows[config] = {}
        for name, image_ids in splits.items():
            key = tuple(image_ids)
            if key not in shared:
                shared[key] = Rows(subset, image_ids, targets[[position[image_id] for image_id in image_ids]])
            rows[config][name] = shared[key]
    return rows
