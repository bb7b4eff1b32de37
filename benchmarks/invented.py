"""An invented MedFMC at the scale of the real one: its numbers of images, patients and labels, its sizes and formats. And a backbone.

To draw 22,349 large images would take hours, so a few dozen of each subset are drawn, and each of them stands under many names. An image
is known by its path, so that all are decoded and stored as if no two were alike. Nothing in it comes from MedFMC.
"""

import csv
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from pixels import IMAGES, encode, invent

from medfmc_hf.data.build import build
from medfmc_hf.data.lists import TRAINVAL, few_shot_list
from medfmc_hf.data.loading import MANIFEST
from medfmc_hf.data.sample import InventedImage, seeded, table
from medfmc_hf.data.splits import draw_pool, sample_support
from medfmc_hf.subsets import SEEDS, SHOTS, SUBSETS, Subset

DISTINCT = 32  # images drawn of each subset
TOY = 60  # by how much a toy has fewer images; its sides are an eighth
PER_STUDY = 12  # images of an endoscopy study that show a class, about as many as in Endo

_NAME = {  # by number of the patient, and of the image within the patient
    "chest": lambda patient, place: f"{patient:013X}",
    "colon": lambda patient, place: f"2019-{patient:05d}-lv1-{patient:05d}p{place:04d}",
    "endo": lambda patient, place: f"13333_2021.01_{patient:04d}_{place:08d}",
    "neojaundice": lambda patient, place: f"{patient:04d}-{place + 1}",
    "retino": lambda patient, place: f"2023{patient:016d}",
}


def invented_build(folder: Path, *, toy: bool = False) -> Path:
    """Draw and build below `folder`, or give what an earlier call has built there.

    Args:
        folder: on a disk with 2 GB to spare.
        toy: few and small images, to see that it works.

    Returns:
        A folder as `medfmc build` makes it, linked.
    """
    source, out = folder / "download", folder / "medfmc"
    if (out / MANIFEST).is_file():
        return out
    jobs = [(key, number) for key in SUBSETS for number in range(2 if toy else DISTINCT)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy and Pillow work outside Python's lock
        drawn = list(pool.map(lambda job: _draw(folder / "drawn", *job, toy), jobs))
    for key, subset in SUBSETS.items():
        images = images_of(subset, TOY if toy else 1)
        files = [path for (of, _), path in zip(jobs, drawn) if of == key]
        place = source / subset.name / "images"
        place.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            _stand_for(files[number % len(files)], place / image.name)
        with (source / subset.name / subset.table).open("w", newline="") as handle:
            csv.writer(handle).writerows(table(subset, images))
        if subset.challenge:  # the others' lists are drawn by the build
            _write_lists(subset, images, source / "data_backup" / "MedFMC" / key)
    return build([source], out).folder


def make_backbone(folder: Path, size: int, *, toy: bool = False) -> Path:
    """Write a ViT-B/16 with random weights, or one of two small blocks, for images of `size` pixels a side."""
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    shape = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128) if toy else {}
    torch.manual_seed(0)
    ViTModel(ViTConfig(image_size=size, **shape), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)
    return folder


def images_of(subset: Subset, shrink: int = 1) -> list[InventedImage]:
    """Names, patients and labels. Images are spread evenly over patients, in the real ones unevenly.

    Args:
        subset: whose.
        shrink: divides the numbers of images, patients and labels.
    """
    counts = [max(1, count // shrink) for count in subset.counts]
    if subset.multilabel:
        images, patients = subset.images // shrink, max(subset.patients // shrink, min(subset.patients, 40))
        owners = np.arange(images) * patients // images
        labels = _multi_hot(owners, counts, 1 if subset.key == "chest" else PER_STUDY, seeded("benchmark", subset.key))
    else:
        classes = np.repeat(np.arange(len(counts)), counts)
        labels, owners, first = np.eye(len(counts), dtype=int)[classes], [], 0
        for count in counts:  # all images of a patient show one class
            patients = max(1, round(count * subset.patients / subset.images))
            owners += (first + np.arange(count) * patients // count).tolist()
            first += patients
    extension = {"PNG": ".png", "JPEG": ".jpg"}[IMAGES[subset.key][3]]
    images, seen = [], Counter()
    for owner, row in zip(owners, labels):
        name = _NAME[subset.key](int(owner), seen[owner])
        seen[owner] += 1
        images.append(InventedImage(name + extension, subset.patient_id(name), tuple(map(int, row))))
    return images


def _multi_hot(owners: np.ndarray, counts: list[int], per_patient: int, rng: np.random.Generator) -> np.ndarray:
    """Give each class its number of images, up to `per_patient` in a row of patients drawn at random."""
    labels, starts = np.zeros((len(owners), len(counts)), int), np.flatnonzero(np.diff(owners, prepend=-1))
    ends = [*starts[1:], len(owners)]
    for index, left in enumerate(counts):
        for patient in rng.permutation(len(starts)):
            size = min(per_patient, left, ends[patient] - starts[patient])
            start = rng.integers(starts[patient], ends[patient] - size + 1)
            labels[start : start + size, index] = 1
            left -= size
            if not left:
                break
    return labels


def _draw(folder: Path, key: str, number: int, toy: bool) -> Path:
    height, width, channels, kind = IMAGES[key]
    shrink = 8 if toy else 1
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}-{number}.{kind.lower()}"
    path.write_bytes(encode(invent(height // shrink, width // shrink, channels, number), kind))
    return path


def _stand_for(drawn: Path, path: Path) -> None:
    path.unlink(missing_ok=True)  # of a call that was cut off
    try:
        path.hardlink_to(drawn)
    except OSError:  # file systems without hard links
        path.symlink_to(drawn.resolve())


def _write_lists(subset: Subset, images: list[InventedImage], folder: Path) -> None:
    """The challenge's pool, a fifth of the patients, and its fifteen support sets."""
    by_id = {image.image_id: image for image in images}
    pool = draw_pool(subset, list(by_id), [max(np.flatnonzero(p.labels), default=0) for p in images])
    labels = np.array([by_id[image_id].labels for image_id in pool])
    lists = {TRAINVAL: pool}
    for shots in SHOTS:
        for seed in SEEDS:
            lists[f"{subset.key}_{few_shot_list(shots, seed, 'train')}"] = sample_support(subset, pool, labels, shots, seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, image_ids in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{by_id[i].name} {_label(subset, by_id[i])}\n" for i in image_ids))


def _label(subset: Subset, image: InventedImage) -> str:
    """As the subset's lists write it."""
    return str(image.labels[1]) if subset.key == "colon" else {"chest": ","}.get(subset.key, " ").join(map(str, image.labels))
