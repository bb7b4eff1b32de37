"""Which images each config's train, validation and test hold: the official lists, and our seeded sampler where there are none.

Works on image ids and labels alone. Rows of clean and base configs are sorted by image id, so they do not depend on which release
they were read from; official, transfer and challenge rows are in the order of their lists.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..errors import MedfmcError
from ..subsets import ConfigName, Subset, config_names
from . import lists

# Part of what is hashed to sample patients. A change of the rules below would change the rows of named configs, so it needs a new name.
SAMPLER = "medfmc-sampler-1"

Splits = dict[str, list[str]]  # split name -> image ids


def _rank(*parts: object) -> bytes:
    """A place in an order that looks random, is the same on every machine and does not depend on what else is ordered."""
    return hashlib.sha256("/".join((SAMPLER, *map(str, parts))).encode()).digest()


def sample_support(subset: Subset, image_ids: Sequence[str], labels: np.ndarray, shots: int, seed: int) -> list[str]:
    """Sample a few-shot support set of `shots` patients per class, by the rule of the official code.

    For each class in order: of the patients with at least one image positive for it, `shots` are sampled (all, if there are no
    more); their images positive for the class are taken. So every image of a sampled infant or region is taken, of a sampled endoscopy
    study only those that show the class, and of subsets with one image a patient that image.

    The result depends on patient ids, class, shots and seed only: not on the order of rows, Python's hash seed or the machine.

    Args:
        subset: says which images are one patient's.
        image_ids: n image ids.
        labels: 0 or 1, shape (n, classes).
        shots: patients per class.
        seed: of the split.

    Returns:
        Image ids in blocks by class, sorted within. An image positive for several classes can come several times, as in the
        official lists.

    Raises:
        MedfmcError: the shapes do not fit.
    """
    labels = np.asarray(labels)
    if labels.shape != (len(image_ids), len(subset.classes)):
        raise MedfmcError(f"labels have shape {labels.shape}; expected {(len(image_ids), len(subset.classes))}: images x classes.")
    patients = [subset.patient_id(image_id) for image_id in image_ids]
    support = []
    for index, name in enumerate(subset.classes):
        positive = np.flatnonzero(labels[:, index]).tolist()
        candidates = sorted({patients[i] for i in positive}, key=lambda patient: _rank("support", subset.key, name, shots, seed, patient))
        sampled = set(candidates[:shots])
        support += sorted(image_ids[i] for i in positive if patients[i] in sampled)
    return support


def draw_pool(subset: Subset, image_ids: Sequence[str], classes: Sequence[int]) -> list[str]:
    """Sample the pool of a single-label subset that has no list: one patient in five of each class, by a hash of the patient id.

    Of a rare class ten patients are taken, so that ten shots can be had, but never more than half of them.

    Args:
        subset: says which images are one patient's.
        image_ids: n image ids.
        classes: n class indices; a patient counts for the highest one of its images.

    Returns:
        The pool's image ids, sorted. All images of a patient are on one side.
    """
    class_of: dict[str, int] = {}
    for image_id, index in zip(image_ids, classes):
        patient = subset.patient_id(image_id)
        class_of[patient] = max(index, class_of.get(patient, index))
    pool: set[str] = set()
    for index in range(len(subset.classes)):
        patients = sorted((p for p, c in class_of.items() if c == index), key=lambda patient: _rank("pool", subset.key, patient))
        fifth = (2 * len(patients) + 5) // 10  # a fifth, rounded
        pool.update(patients[: max(fifth, min(10, len(patients) // 2))])
    return sorted(image_id for image_id in image_ids if subset.patient_id(image_id) in pool)


def compose(
    subset: Subset, labels: Mapping[str, np.ndarray], found: Mapping[str, Sequence[str]], pool: Collection[str] | None
) -> dict[ConfigName, Splits]:
    """The splits of every config that can honestly be made.

    Few-shot configs of chest, colon and endo are the official lists, which were drawn without a seed: without its list, a config is left
    out. So is a config of which no training image is there.

    Args:
        subset: whose configs.
        labels: the published images whose label is known, as rows of 0 and 1 by image id.
        found: the lists at hand by kind, see `medfmc_hf.data.lists`.
        pool: the images that may be trained on; None if no list says.
    """
    configs: dict[ConfigName, Splits] = {}
    pool = None if pool is None else sorted(set(pool))
    test = [] if pool is None else sorted(set(labels).difference(pool))
    for config in config_names(subset.key):
        kinds = _lists_of(config, subset)
        splits = {split: list(found[kind]) for split, kind in kinds.items() if kind in found}
        if config.variant != "challenge":
            if pool is None or len(splits) < len(kinds):
                continue
            if config.variant == "transfer":
                splits["test"] = test
            elif config.shots is None or config.seed is None:
                splits = {"train": pool, "test": test}
            elif config.variant == "clean":
                support = splits.get("train")
                if support is None:  # there is no list, so it is sampled
                    of_pool = np.array([labels[image_id] for image_id in pool]).reshape(len(pool), len(subset.classes))
                    support = sample_support(subset, pool, of_pool, config.shots, config.seed)
                splits = {"train": sorted(set(support)), "validation": sorted(set(pool).difference(support)), "test": test}
        splits = {split: rows for split, rows in splits.items() if rows}
        if "train" in splits or (config.variant == "challenge" and splits):
            configs[config] = splits
    return configs


def _lists_of(config: ConfigName, subset: Subset) -> dict[str, str]:
    """The lists that a config is made of: their kinds, by the split whose rows they name."""
    if config.variant == "challenge":
        return {"validation": lists.VALIDATION_PHASE, "test": lists.PRIVATE}
    if config.variant == "transfer":
        return {"train": lists.TRAIN_20, "validation": lists.VAL_20}
    if config.shots is None or config.seed is None or not subset.challenge:
        return {}
    train, validation = (lists.few_shot_list(config.shots, config.seed, split) for split in ("train", "val"))
    return {"train": train} if config.variant == "clean" else {"train": train, "validation": validation, "test": lists.TEST_LABELLED}
