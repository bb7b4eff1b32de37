"""An invented MedFMC at the scale of the real one, with its numbers of images, patients and labels, its sizes and formats; and a backbone.

Making 22,349 large images would take hours, so a few dozen per subset are made, and each of them gets many names. An image is identified by
its path, so all are decoded and stored as if they were different. Nothing in it comes from MedFMC.
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

DISTINCT = 32  # distinct images per subset
TOY = 60  # a toy has this many times fewer images, with an eighth of the side length
PER_STUDY = 12  # images of an endoscopy study that show a class, about as many as in Endo

_NAME = {  # file name by number of the patient, and of the image within the patient
    "chest": lambda patient, place: f"{patient:013X}",
    "colon": lambda patient, place: f"2019-{patient:05d}-lv1-{patient:05d}p{place:04d}",
    "endo": lambda patient, place: f"13333_2021.01_{patient:04d}_{place:08d}",
    "neojaundice": lambda patient, place: f"{patient:04d}-{place + 1}",
    "retino": lambda patient, place: f"2023{patient:016d}",
}


def invented_build(folder: Path, *, toy: bool = False) -> Path:
    """Make and build the data below `folder`, or return what an earlier call has built there.

    Args:
        folder: folder on a disk with 2 GB free.
        toy: whether to make few and small images, to check that it works.

    Returns:
        A linked dataset folder, as made by `medfmc build`.
    """
    source, out = folder / "download", folder / "medfmc"
    if (out / MANIFEST).is_file():
        return out
    jobs = [(key, number) for key in SUBSETS for number in range(2 if toy else DISTINCT)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy and Pillow release the GIL
        made = list(pool.map(lambda job: _make(folder / "made", *job, toy), jobs))
    for key, subset in SUBSETS.items():
        images = images_of(subset, TOY if toy else 1)
        files = [path for (of, _), path in zip(jobs, made) if of == key]
        place = source / subset.name / "images"
        place.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            _stand_for(files[number % len(files)], place / image.name)
        with (source / subset.name / subset.table).open("w", newline="") as handle:
            csv.writer(handle).writerows(table(subset, images))
        if subset.challenge:  # the build samples the lists of the others
            _write_lists(subset, images, source / "data_backup" / "MedFMC" / key)
    return build([source], out).folder


def make_backbone(folder: Path, size: int, *, toy: bool = False) -> Path:
    """Write a ViT-B/16 with random weights (a toy has two small blocks) for images of `size` x `size` pixels."""
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    shape = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128) if toy else {}
    torch.manual_seed(0)
    ViTModel(ViTConfig(image_size=size, **shape), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)
    return folder


def images_of(subset: Subset, shrink: int = 1) -> list[InventedImage]:
    """Invent names, patients and labels. Images are spread evenly over patients, unlike in the real data.

    Args:
        subset: subset of the images.
        shrink: divisor of the numbers of images, patients and labels.
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
    """Give each class its number of images, up to `per_patient` consecutive ones of randomly chosen patients."""
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


def _make(folder: Path, key: str, number: int, toy: bool) -> Path:
    height, width, channels, kind = IMAGES[key]
    shrink = 8 if toy else 1
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}-{number}.{kind.lower()}"
    path.write_bytes(encode(invent(height // shrink, width // shrink, channels, number), kind))
    return path


def _stand_for(made: Path, path: Path) -> None:
    path.unlink(missing_ok=True)  # left by an interrupted call
    try:
        path.hardlink_to(made)
    except OSError:  # file systems without hard links
        path.symlink_to(made.resolve())


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
    """The label in the format of the subset's lists."""
    return str(image.labels[1]) if subset.key == "colon" else {"chest": ","}.get(subset.key, " ").join(map(str, image.labels))
