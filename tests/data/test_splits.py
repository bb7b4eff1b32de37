import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import IMAGES, POOL, stem

from medfmc_hf.data import lists
from medfmc_hf.data.splits import compose, draw_pool, sample_support
from medfmc_hf.errors import MedfmcError
from medfmc_hf.subsets import SEEDS, SHOTS, SUBSETS, ConfigName


def of(key):
    return [stem(name) for name, _ in IMAGES[key]], np.array([row for _, row in IMAGES[key]])


@pytest.mark.parametrize("key", SUBSETS)
@pytest.mark.parametrize("shots", [1, 2, 5])
def test_support_follows_the_official_rule(key, shots):
    """K patients a class, of each all images positive for the class: checked class by class, the slow way."""
    subset, (image_ids, labels) = SUBSETS[key], of(key)
    support = sample_support(subset, image_ids, labels, shots, seed=3)
    for index in range(len(subset.classes)):
        positive = [image_id for image_id, row in zip(image_ids, labels) if row[index]]
        patients = {subset.patient_id(image_id) for image_id in positive}
        block = []
        while support and len({subset.patient_id(i) for i in [*block, support[0]]}) <= shots and support[0] in positive:
            if support[0] in block:
                break
            block.append(support.pop(0))
        drawn = {subset.patient_id(image_id) for image_id in block}
        assert len(drawn) == min(shots, len(patients))
        assert block == sorted(image_id for image_id in positive if subset.patient_id(image_id) in drawn)
    assert support == []


@given(st.permutations(range(len(IMAGES["endo"]))))
@settings(max_examples=20)
def test_support_does_not_depend_on_the_order_of_rows(order):
    image_ids, labels = of("endo")
    assert sample_support(SUBSETS["endo"], [image_ids[i] for i in order], labels[list(order)], 2, 1) == sample_support(
        SUBSETS["endo"], image_ids, labels, 2, 1
    )


def test_support_sets_differ_between_seeds_shots_and_classes():
    image_ids = [f"{i:04d}-{site}" for i in range(200) for site in (1, 2, 3)]
    labels = np.array([[i % 2, 1 - i % 2] for i in range(200) for _ in range(3)])
    supports = {(k, s): sample_support(SUBSETS["neojaundice"], image_ids, labels, k, s) for k in SHOTS for s in SEEDS}
    assert len({tuple(support) for support in supports.values()}) == 15
    assert not set(supports[1, 0]) <= set(supports[5, 0]) or not set(supports[5, 0]) <= set(supports[10, 0])
    low = {SUBSETS["neojaundice"].patient_id(i) for i in supports[10, 0][:30]}
    assert {int(p) % 2 for p in low} == {1}


_GOLDEN = """
import hashlib, json, numpy as np
from medfmc_hf.data.splits import draw_pool, sample_support
from medfmc_hf.subsets import SEEDS, SHOTS, SUBSETS
drawn = {}
for key in SUBSETS:
    subset = SUBSETS[key]
    patients = [f"13333_2021.01_{i:04d}" if key == "endo" else f"{i:04d}" for i in range(150)]
    image_ids = [p + {"colon": f"p{j:04d}", "endo": f"_{j}", "neojaundice": f"-{j}"}.get(key, "") for p in patients for j in (1, 2, 3)]
    image_ids = sorted(set(image_ids))
    classes = [int(hashlib.md5(subset.patient_id(i).encode()).hexdigest(), 16) % len(subset.classes) for i in image_ids]
    labels = np.eye(len(subset.classes), dtype=int)[classes]
    drawn[key] = [draw_pool(subset, image_ids, classes), [sample_support(subset, image_ids, labels, k, s) for k in SHOTS for s in SEEDS]]
print(hashlib.sha256(json.dumps(drawn).encode()).hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_samples_are_frozen(hash_seed):
    """The rows of named configs must never change. If this fails, the sampling has changed: mend it, or rename SAMPLER."""
    answer = subprocess.run(
        [sys.executable, "-c", _GOLDEN], env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True
    )
    assert answer.stdout.strip() == "e81eaf137c81a1cbbd28fb1deb3ab53249274a91a00bfe78eb6c31cf724e8d4e", answer.stderr


def test_support_refuses_labels_of_another_shape():
    with pytest.raises(MedfmcError, match=r"shape \(2,\); expected \(2, 4\)"):
        sample_support(SUBSETS["endo"], ["a", "b"], np.array([0, 1]), 1, 0)


def test_pool_has_a_fifth_of_each_class_and_whole_patients():
    image_ids = [f"{i:04d}-{site}" for i in range(300) for site in (1, 2, 3)]
    classes = [int(i < 200) for i in range(300) for _ in range(3)]
    pool = draw_pool(SUBSETS["neojaundice"], image_ids, classes)
    patients = {SUBSETS["neojaundice"].patient_id(image_id) for image_id in pool}
    assert len(pool) == 3 * len(patients) and pool == sorted(pool)
    assert sum(int(p) < 200 for p in patients) == 40 and sum(int(p) >= 200 for p in patients) == 20
    assert draw_pool(SUBSETS["neojaundice"], image_ids[::-1], classes[::-1]) == pool


def test_pool_has_ten_patients_of_a_rare_class_but_never_more_than_half():
    """By this rule Retino's pool has as many images of each grade as the paper's list."""
    classes = [grade for grade, count in enumerate(SUBSETS["retino"].counts) for _ in range(count)]
    image_ids = [f"{i:020d}" for i in range(len(classes))]
    grade = dict(zip(image_ids, classes))
    pool = draw_pool(SUBSETS["retino"], image_ids, classes)
    assert [sum(grade[i] == g for i in pool) for g in range(5)] == [22, 10, 96, 101, 53]
    assert len(draw_pool(SUBSETS["retino"], image_ids[:6], [0] * 6)) == 3


def test_compose_leaves_out_what_has_no_list():
    image_ids, labels = of("endo")
    known, pool = dict(zip(image_ids, labels)), image_ids[: POOL["endo"]]
    assert compose(SUBSETS["endo"], known, {}, None) == {}
    assert [str(config) for config in compose(SUBSETS["endo"], known, {}, pool)] == ["endo"]
    only = compose(SUBSETS["endo"], known, {lists.few_shot_list(5, 2, "train"): pool[:2]}, pool)
    assert [str(config) for config in only] == ["endo", "endo-5shot-seed2"]
    phase = compose(SUBSETS["endo"], known, {lists.VALIDATION_PHASE: image_ids[-2:]}, None)
    assert phase == {ConfigName("endo", variant="challenge"): {"validation": image_ids[-2:]}}


def test_compose_rows():
    image_ids, labels = of("endo")
    known, pool = dict(zip(image_ids, labels)), image_ids[: POOL["endo"]][::-1]
    support, validation = [pool[3], pool[1], pool[3]], [pool[1], pool[0]]
    found = {
        lists.few_shot_list(1, 0, "train"): support,
        lists.few_shot_list(1, 0, "val"): validation,
        lists.TEST_LABELLED: image_ids[-3:][::-1],
        lists.TRAIN_20: pool[:4],
        lists.VAL_20: pool[4:],
    }
    configs = compose(SUBSETS["endo"], known, found, pool)
    test = sorted(image_ids[POOL["endo"] :])
    assert configs == {
        ConfigName("endo"): {"train": sorted(pool), "test": test},
        ConfigName("endo", 1, 0): {"train": sorted({pool[1], pool[3]}), "validation": sorted({*pool} - {pool[1], pool[3]}), "test": test},
        ConfigName("endo", 1, 0, "official"): {"train": support, "validation": validation, "test": image_ids[-3:][::-1]},
        ConfigName("endo", variant="transfer"): {"train": pool[:4], "validation": pool[4:], "test": test},
    }
