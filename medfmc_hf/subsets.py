"""The five subsets of MedFMC, and the names of the dataset configs made from them.

Source: Wang et al., "A real-world dataset and benchmark for foundation model adaptation in medical image classification",
Scientific Data 10:574 (2023), and the label files of its releases. A fact about a subset is written here and nowhere else.
"""

import re
from dataclasses import dataclass
from typing import Literal, cast

from .errors import MedfmcError

Task = Literal["single-label", "multi-label"]
Variant = Literal["clean", "official", "transfer", "challenge"]

SHOTS = (1, 5, 10)
SEEDS = (0, 1, 2, 3, 4)  # seed s is the challenge's support set exp{s+1}
CHALLENGE_IMAGES = {  # rows of a submission in each phase of the challenge
    "validation": {"chest": 2708, "colon": 4355, "endo": 2055},
    "final": {"chest": 2626, "colon": 10650, "endo": 2199},
}

CITATION = """\
@article{wang2023real,
  title   = {A real-world dataset and benchmark for foundation model adaptation in medical image classification},
  author  = {Wang, Dequan and Wang, Xiaosong and Wang, Lilong and Li, Mengzhang and others},
  journal = {Scientific Data},
  volume  = {10},
  pages   = {574},
  year    = {2023},
  doi     = {10.1038/s41597-023-02460-0}
}
"""


@dataclass(frozen=True)
class Subset:
    """One of the five image sets of MedFMC.

    Attributes:
        key: short name used in configs and on the command line.
        name: name in the paper; also the folder of the figshare release.
        title: short description of the images.
        task: `"single-label"` (one class index per image) or `"multi-label"` (any number of positive classes).
        classes: class names in the official order.
        images: number of published images.
        patients: number of published patients by the rule of `patient_id` (for colon: regions of a slide, which the paper calls patients).
        counts: images per class, in the order of `classes`.
        table: file name of the published label table.
        challenge: whether the NeurIPS 2023 challenge used the subset, so that official few-shot lists exist.
        group: what `patient_id` identifies: patient, region or study.
    """

    key: str
    name: str
    title: str
    task: Task
    classes: tuple[str, ...]
    images: int
    patients: int
    counts: tuple[int, ...]
    table: str
    challenge: bool
    group: str

    @property
    def multilabel(self) -> bool:
        return self.task == "multi-label"

    @property
    def label_column(self) -> str:
        """`label` (a class index) or `labels` (a list of the positive class indices)."""
        return "labels" if self.multilabel else "label"

    @property
    def metric(self) -> str:
        """The primary metric besides AUC: `accuracy` or `map`."""
        return "map" if self.multilabel else "accuracy"

    def patient_id(self, image_id: str) -> str:
        """The patient (study, region) of an image.

        Args:
            image_id: the image's file name without its extension.
        """
        return _PATIENT[self.key](image_id)

    def scan_id(self, image_id: str) -> str | None:
        """The whole-slide scan a colon patch was cut from, which is coarser than its region; None for the other subsets."""
        return image_id.split("-lv1")[0] if self.key == "colon" else None


# Official code: endo name[:18], colon name[:-9] of a name that ends in ".png", neojaundice name[:4], one image a patient elsewhere.
_PATIENT = {
    "chest": lambda image_id: image_id,
    "colon": lambda image_id: image_id[:-5],
    "endo": lambda image_id: image_id[:18],
    "neojaundice": lambda image_id: image_id[:4],
    "retino": lambda image_id: image_id,
}

SUBSETS: dict[str, Subset] = {
    subset.key: subset
    for subset in (
        Subset(
            key="chest",
            name="ChestDR",
            title="thoracic diseases in chest X-rays",
            task="multi-label",
            classes=(
                "pleural_effusion", "nodule", "pneumonia", "cardiomegaly", "hilar_enlargement", "fracture_old", "fibrosis",
                "aortic_calcification", "tortuous_aorta", "thickened_pleura", "TB", "pneumothorax", "emphysema", "atelectasis",
                "calcification", "pulmonary_edema", "increased_lung_markings", "elevated_diaphragm", "consolidation",
            ),
            images=4848,
            patients=4848,
            counts=(1266, 665, 898, 1300, 758, 429, 532, 645, 612, 497, 305, 284, 159, 199, 104, 86, 53, 23, 34),
            table="chestdr_published_19d.csv",
            challenge=True,
            group="patient",
        ),
        Subset(
            key="colon",
            name="ColonPath",
            title="tumour tissue in colonoscopy pathology patches",
            task="single-label",
            classes=("negative", "positive"),
            images=10009,
            patients=396,
            counts=(6494, 3515),
            table="colonpath_published_2.csv",
            challenge=True,
            group="region",
        ),
        Subset(
            key="endo",
            name="Endo",
            title="lesions in colonoscopy images",
            task="multi-label",
            classes=("ulcer", "erosion", "polyp", "tumor"),
            images=3865,
            patients=80,
            counts=(790, 951, 390, 136),
            table="Endo_published_4d.csv",
            challenge=True,
            group="study",
        ),
        Subset(
            key="neojaundice",
            name="NeoJaundice",
            title="neonatal jaundice in skin photographs",
            task="single-label",
            classes=("low_bilirubin", "high_bilirubin"),
            images=2235,
            patients=745,
            counts=(1302, 933),
            table="chd_jaundice_published_2.csv",
            challenge=False,
            group="infant",
        ),
        Subset(
            key="retino",
            name="Retino",
            title="diabetic retinopathy grades in fundus photographs",
            task="single-label",
            classes=("no_dr", "mild", "moderate", "severe", "proliferative_dr"),
            images=1392,
            patients=1392,
            counts=(112, 30, 480, 505, 265),
            table="Retino_published_G5.csv",
            challenge=False,
            group="patient",
        ),
    )
}  # fmt: skip


def subset_of(key: str) -> Subset:
    """The subset with this key.

    Raises:
        MedfmcError: there is none of that name.
    """
    if key not in SUBSETS:
        raise MedfmcError(f"there is no subset {key!r}; MedFMC has {', '.join(SUBSETS)}.")
    return SUBSETS[key]


@dataclass(frozen=True)
class ConfigName:
    """The parts of the name of a dataset config.

    `str(ConfigName("endo", 5, 0))` is `"endo-5shot-seed0"` and `ConfigName.parse` is its inverse.

    Attributes:
        subset: subset key.
        shots: patients per class in the support set; None for the whole pool.
        seed: seed of the split, one of five; None if shots is None.
        variant: `clean`; `official`, the challenge's few-shot lists unchanged, with repeats and leaks; `transfer`, train_20 / val_20;
            `challenge`, the images that a challenge submission predicts.
    """

    subset: str
    shots: int | None = None
    seed: int | None = None
    variant: Variant = "clean"

    def __post_init__(self) -> None:
        subset = subset_of(self.subset)
        if self.variant not in ("clean", "official", "transfer", "challenge"):
            raise MedfmcError(f"there is no variant {self.variant!r}; expected clean, official, transfer or challenge.")
        if (self.shots is None) != (self.seed is None):
            raise MedfmcError(f"shots and seed go together; got shots={self.shots} and seed={self.seed}.")
        if self.shots is not None and (self.shots not in SHOTS or self.seed not in SEEDS):
            raise MedfmcError(f"shots is one of {SHOTS} and seed one of {SEEDS}; got shots={self.shots} and seed={self.seed}.")
        if self.variant == "official" and self.shots is None:
            raise MedfmcError("the official variant is of a few-shot config: give shots and seed.")
        if self.variant in ("transfer", "challenge") and self.shots is not None:
            raise MedfmcError(f"the {self.variant} variant has no shots and no seed.")
        if self.variant != "clean" and not subset.challenge:
            raise MedfmcError(f"{self.subset} was not in the challenge and has no {self.variant} lists; use its clean configs.")

    def __str__(self) -> str:
        few_shot = "" if self.shots is None else f"-{self.shots}shot-seed{self.seed}"
        return self.subset + few_shot + ("" if self.variant == "clean" else f"-{self.variant}")

    @classmethod
    def parse(cls, name: str) -> "ConfigName":
        """Parse a config name.

        Raises:
            MedfmcError: `name` is not the name of a config.
        """
        found = re.fullmatch(r"([a-z]+)(?:-(\d+)shot-seed(\d+))?(?:-(official|transfer|challenge))?", name)
        if not found:
            raise MedfmcError(f"{name!r} is not a config name; expected one like endo, endo-5shot-seed0 or endo-5shot-seed0-official.")
        subset, shots, seed, variant = found.groups()
        return cls(subset, int(shots) if shots else None, int(seed) if seed else None, cast(Variant, variant or "clean"))


def config_names(subset: str) -> list[ConfigName]:
    """Every config a subset can have, in the order the dataset card lists them."""
    few_shot = [(shots, seed) for shots in SHOTS for seed in SEEDS]
    names = [ConfigName(subset), *(ConfigName(subset, shots, seed) for shots, seed in few_shot)]
    if subset_of(subset).challenge:
        names += [ConfigName(subset, shots, seed, "official") for shots, seed in few_shot]
        names += [ConfigName(subset, variant="transfer"), ConfigName(subset, variant="challenge")]
    return names
