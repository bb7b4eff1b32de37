"""A small invented MedFMC for a first run and for tests: the names, tables and lists of a real download, images made up.

Nothing in it comes from MedFMC. Every image is a base colour, a smooth texture of its patient, a smooth pattern for each of its
classes and noise, so that a model can learn the classes and must not learn the patients.
"""

import csv
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import MedfmcError
from ..progress import bar
from ..subsets import SEEDS, SHOTS, SUBSETS, Subset
from .loading import SAMPLE_MARK
from .splits import sample_support

VERSION = 1  # raise it when the images or lists change, so that old folders are made anew
SIDE = 64  # pixels

_COLOUR = {
    "chest": (110, 110, 110),
    "colon": (190, 145, 185),
    "endo": (170, 85, 65),
    "neojaundice": (205, 160, 130),
    "retino": (140, 65, 30),
}


@dataclass(frozen=True)
class InventedImage:
    """An invented image: its file name, patient and labels (0 or 1 for each class)."""

    name: str
    patient: str
    labels: tuple[int, ...]

    @property
    def image_id(self) -> str:
        return Path(self.name).stem


def make_sample(out: str | Path) -> Path:
    """Write the sample below `out`, in the layout of the figshare release with the challenge's lists beside it.

    A complete sample of this version is left as it is. Takes about two seconds and 10 MB.

    Returns:
        `out`, to be given to `medfmc build`.

    Raises:
        MedfmcError: `out` exists and is not a sample.
    """
    out = Path(out)
    mark = out / SAMPLE_MARK
    if mark.is_file() and mark.read_text() == str(VERSION):
        return out
    if out.exists() and not mark.is_file() and any(out.iterdir()):
        raise MedfmcError(f"{out} exists and is not a sample made by this command; name another folder or remove it.")
    shutil.rmtree(out, ignore_errors=True)
    for key, subset in SUBSETS.items():
        images = invent(key)
        folder = out / subset.name
        (folder / "images").mkdir(parents=True)
        for image in bar(images, desc=f"drawing {subset.name}", unit="image"):
            draw(subset, image).save(folder / "images" / image.name, quality=95)  # of JPEG alone
        with (folder / subset.table).open("w", newline="") as handle:
            csv.writer(handle).writerows(table(subset, images))
        if subset.challenge:
            write_lists(subset, images, out / "data_backup" / "MedFMC" / key)
    mark.write_text(str(VERSION))
    return out


def seeded(*parts: object) -> np.random.Generator:
    """A generator that depends on its arguments alone, on every machine."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big"))


def invent(key: str) -> list[InventedImage]:
    """The images of a subset, with names that follow the subset's patient rule."""
    rng = seeded("sample", key)
    classes = len(SUBSETS[key].classes)

    def one_of(index: int) -> tuple[int, ...]:
        return tuple(int(i == index) for i in range(classes))

    if key == "chest":
        some = rng.random((320, classes)) < 0.13
        some[rng.random(320) < 0.25] = False  # images without a finding
        names = [f"{rng.integers(16**12, 16**13):X}.png" for _ in some]
        return [InventedImage(name, name[:-4], tuple(map(int, row))) for name, row in zip(names, some)]
    if key == "colon":
        # Two regions of each scan, one of either class, as a leak that `medfmc check` can find.
        regions = [f"2019-{i // 2:05d}-1-1-1_2019-05-28 23_17_50-lv1-{rng.integers(9999)}-{i}-6526-5268" for i in range(60)]
        patches = [(i, j) for i in range(60) for j in range(rng.integers(3, 8))]
        return [InventedImage(f"{regions[i]}p{j:04d}.png", regions[i], one_of(i % 2)) for i, j in patches]
    if key == "endo":
        images = []
        for i in range(48):
            study = f"13333_2021.{1 + i // 16:02d}_{i:04d}"
            can_show = rng.random(classes) < 0.5
            for _ in range(rng.integers(8, 13)):
                shows = can_show & (rng.random(classes) < 0.4)
                images.append(InventedImage(f"{study}_{rng.integers(10**7, 10**8)}.png", study, tuple(map(int, shows))))
        return images
    if key == "neojaundice":
        return [InventedImage(f"{i:04d}-{site}.jpg", f"{i:04d}", one_of(i % 2)) for i in range(1, 91) for site in (1, 2, 3)]
    stems = [f"20230{rng.integers(101, 130)}{rng.integers(10**11, 10**12)}" for _ in range(180)]
    return [InventedImage(f"{stem}.png", stem, one_of(int(rng.integers(classes)))) for stem in stems]


def draw(subset: Subset, image: InventedImage) -> Image.Image:
    """The image itself, SIDE x SIDE; grey for chest, RGB elsewhere."""
    pixels = np.array(_COLOUR[subset.key], np.float32) + 20 * _field(seeded("patient", subset.key, image.patient), 5)
    for index in np.flatnonzero(image.labels):
        pixels += 26 * _field(seeded("class", subset.key, index), 6)
    pixels += 8 * seeded("noise", image.name).standard_normal((SIDE, SIDE, 1), dtype=np.float32)
    values = np.clip(pixels, 0, 255).astype(np.uint8)
    return Image.fromarray(values[..., 0] if subset.key == "chest" else values)


def _field(rng: np.random.Generator, cells: int) -> np.ndarray:
    """A smooth random image in [-1, 1], shape (SIDE, SIDE, 3)."""
    small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1


def table(subset: Subset, images: list[InventedImage]) -> list[list]:
    """The rows of the published label table, header first, in the columns of the real one."""
    if subset.key == "chest":
        return [["", "img_id", *subset.classes], *([i, p.name, *p.labels] for i, p in enumerate(images, 1))]
    if subset.key == "colon":
        return [["slide_id", "img_id", "tumor"], *([p.patient, p.name, p.labels[1]] for p in images)]
    if subset.key == "endo":
        return [["", "img_id", "study_id", *subset.classes], *([i, p.name, p.patient, *p.labels] for i, p in enumerate(images, 1))]
    if subset.key == "neojaundice":
        header = ["patient_id", "image_idx", "gender", "gestational_age", "age(day)", "weight", "blood(mg/dL)", "Treatment"]
        return [header, *([p.patient, p.name, "M", 38, 5, 3200, 16.4 if p.labels[1] else 8.1, p.labels[1]] for p in images)]
    return [["image", "grade"], *([p.name, p.labels.index(1)] for p in images)]


def write_lists(subset: Subset, images: list[InventedImage], folder: Path) -> None:
    """The challenge's lists for invented images, drawn the way the official ones were, leak included."""
    folder.mkdir(parents=True)
    patients = sorted({p.patient for p in images}, key=lambda patient: hashlib.sha256(patient.encode()).digest())
    pool_patients = set(patients[: round(0.45 * len(patients))])
    others = [patient for patient in patients if patient not in pool_patients]
    withlabel_patients = set(others[: len(others) // 3])
    pool = [p for p in images if p.patient in pool_patients]

    def write(name: str, chosen: list[InventedImage], labels: bool = True) -> None:
        separator = "," if subset.key == "chest" else " "
        lines = []
        for p in chosen:
            label = str(p.labels[1]) if subset.key == "colon" else separator.join(map(str, p.labels))
            lines.append(f"{p.name} {label}\n" if labels else f"{p.name}\n")
        (folder / f"{name}.txt").write_text("".join(lines))

    # train_20 and val_20 split endo by image and the others by patient, as the official lists do.
    unit = "image_id" if subset.key == "endo" else "patient"
    first = set(sorted({getattr(p, unit) for p in pool})[::5])
    write("trainval", pool)
    write("train_20", [p for p in pool if getattr(p, unit) not in first])
    write("val_20", [p for p in pool if getattr(p, unit) in first])
    write("test_WithLabel", [p for p in images if p.patient in withlabel_patients])
    write("test_WithoutLabel", [p for p in images if p.patient not in pool_patients | withlabel_patients], labels=False)

    by_id = {p.image_id: p for p in pool}
    labels = np.array([p.labels for p in pool])
    for shots in SHOTS:
        for seed in SEEDS:
            support = sample_support(subset, list(by_id), labels, shots, seed)
            # The official bug: multi-label support is not left out of validation.
            rest = [p for p in pool if subset.multilabel or p.image_id not in support]
            order = seeded("validation", subset.key, shots, seed).permutation(len(rest))[: len(pool) - len(support)]
            write(f"{subset.key}_{shots}-shot_train_exp{seed + 1}", [by_id[image_id] for image_id in support])
            write(f"{subset.key}_{shots}-shot_val_exp{seed + 1}", [rest[i] for i in sorted(order)])
