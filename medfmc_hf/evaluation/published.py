"""Numbers that others published for MedFMC, each with its source and the test list it was measured on.

They are reference rows, not baselines of ours: a number counts for a comparison only where its test list is the same. mAP depends on how
frequent the classes are, so values from different lists are not comparable at all.
"""

from dataclasses import dataclass

# Images per test list: what tells one list from another.
TEST_LISTS: dict[str, dict[str, int]] = {
    "complement of trainval": {"chest": 3869, "colon": 7651, "endo": 2936},
    "test_WithLabel": {"chest": 1161, "colon": 3296, "endo": 881},
    "challenge validation": {"chest": 2708, "colon": 4355, "endo": 2055},
    "challenge private test": {"chest": 2626, "colon": 10650, "endo": 2199},
}
UNKNOWN = "not stated"


@dataclass(frozen=True)
class Published:
    """One method of one publication.

    Attributes:
        source: short name of the publication.
        where: what to look up to find the numbers.
        method: as the publication names it.
        model: backbone.
        test_list: a key of `TEST_LISTS`, or `UNKNOWN`.
        caveat: what keeps the numbers from being taken at face value.
        values: percent as printed, by (subset, shots, metric); shots is "1", "5", "10" or "train_20", metric `accuracy`, `map` or `auc`.
    """

    source: str
    where: str
    method: str
    model: str
    test_list: str
    caveat: str
    values: dict[tuple[str, str, str], float]

    def test_rows(self, subset: str) -> int | None:
        """Images of the test list in a subset; None where the list is not stated."""
        return TEST_LISTS.get(self.test_list, {}).get(subset)


SHOTS = ("1", "5", "10")
MAIN = {"chest": "map", "colon": "accuracy", "endo": "map"}


def _grid(text: str, shots: tuple[str, ...] = SHOTS) -> dict[tuple[str, str, str], float]:
    """`chest 13.14/56.49 ...` lines as values: one line a subset, one word a shot, main metric/AUC or the main metric alone."""
    values = {}
    for line in text.strip().splitlines():
        subset, *words = line.split()
        for shot, word in zip(shots, words, strict=True):
            for metric, number in zip((MAIN[subset], "auc"), word.split("/")):
                values[subset, shot, metric] = float(number)
    return values


def _row(numbers: str) -> dict[tuple[str, str, str], float]:
    """Nine numbers, three shots each of chest mAP, colon accuracy and endo mAP."""
    words = numbers.split()
    keys = [(subset, shot, metric) for subset, metric in MAIN.items() for shot in SHOTS]
    return dict(zip(keys, map(float, words), strict=True))


_OFFICIAL = "openmedlab/MedFM, README of branch main"
_OFFICIAL_CAVEAT = (
    "The README does not say which list was tested. The numbers are older than the correction of the colon test list (June 2023); their "
    "level suggests the complement of trainval."
)

OFFICIAL = [
    Published(
        "Official baseline", _OFFICIAL, "VPT", "Swin-B IN22k 384", UNKNOWN, _OFFICIAL_CAVEAT,
        _grid("""
            chest 13.14/56.49 17.05/64.86 19.01/66.68
            colon 77.60/84.69 89.29/96.07 91.21/97.14
            endo 19.70/62.18 23.88/67.48 25.62/71.41"""),
    ),
    *(
        Published(
            "Official transfer", _OFFICIAL, "fine-tuned on train_20", model, UNKNOWN, _OFFICIAL_CAVEAT, _grid(values, ("train_20",))
        )
        for model, values in {
            "DenseNet121 384": "chest 24.48/75.25\ncolon 92.73/98.27\nendo 41.13/80.19",
            "EfficientNet-B5 384": "chest 29.08/77.21\ncolon 94.04/98.58\nendo 36.95/78.23",
            "Swin-B 384": "chest 31.07/78.56\ncolon 94.68/98.35\nendo 41.38/79.42",
        }.items()
    ),
    *(
        Published(
            "Official baseline, 10-shot AUC", "openmedlab/MedFM, README of branch master", "VPT", model, UNKNOWN,
            "The README gives 10-shot AUC only and does not say which list was tested.",
            {("chest", "10", "auc"): chest, ("colon", "10", "auc"): colon, ("endo", "10", "auc"): endo},
        )
        for model, chest, colon, endo in (
            ("Swin-B 384", 64.66, 97.62, 64.89),
            ("ViT-B (cls) 384", 67.96, 98.13, 66.18),
            ("EVA02-B 448", 65.69, 97.62, 67.78),
            ("DINOv2-B 518", 67.16, 97.30, 64.40),
            ("CLIP-B 384", 66.60, 98.11, 65.79),
        )
    ),
    Published(
        "User reproduction", "openmedlab/MedFM, issue 3 (hooxizz)", "VPT", "Swin-B IN22k 384", UNKNOWN,
        "One user's attempt to repeat the official baseline. Higher chest mAP at equal AUC suggests the smaller test_WithLabel.",
        _grid("""
            chest 18.29/57.27 20.64/61.66 23.97/66.48
            colon 64.99/83.52 89.08/97.59 88.14/97.75
            endo 23.29/62.96 19.45/58.20 25.26/64.62"""),
    ),
]  # fmt: skip

_EPT = {
    "ViT-B/16 IN21k": """
        Full | 10.61 11.16 11.99 63.90 77.02 83.85 14.05 15.66 17.57
        Linear probe | 11.93 14.88 16.75 70.24 81.22 85.23 15.60 20.18 21.30
        Partial-1 | 11.93 14.48 16.83 73.11 82.55 85.98 16.62 20.86 24.05
        MLP-3 | 12.54 15.85 17.78 70.56 81.63 86.13 16.34 20.29 21.67
        LoRA | 12.30 15.66 17.40 71.91 81.69 84.88 16.01 20.12 21.37
        Bias | 12.12 15.00 17.76 71.68 83.58 86.59 16.68 20.23 21.66
        Adapter | 12.11 15.32 17.36 73.79 83.03 85.52 16.86 22.51 24.95
        VP | 12.22 15.65 17.33 73.70 81.26 85.11 15.67 19.46 20.79
        VPT (deep) | 12.15 14.88 17.54 74.44 82.15 86.25 17.60 21.27 22.89
        EPT | 12.73 16.16 18.09 75.31 83.34 87.23 17.66 22.80 25.07""",
    "ViT-L/16 IN21k": """
        Full | 10.75 11.17 11.84 70.80 82.19 86.22 17.22 20.06 21.72
        Linear | 13.19 16.67 18.44 73.65 80.04 84.49 19.08 23.47 23.87
        Partial-1 | 13.27 17.05 19.12 71.65 81.53 85.98 18.54 24.70 26.54
        MLP-3 | 11.49 12.24 13.47 66.12 83.83 89.53 15.15 17.25 20.64
        LoRA | 13.38 16.80 18.41 75.00 81.04 84.82 19.62 23.94 23.40
        Bias | 13.30 17.28 18.60 73.86 81.20 86.28 18.71 22.47 23.05
        Adapter | 11.12 12.53 15.06 76.53 83.38 86.67 16.76 22.51 24.73
        VP | 13.30 17.30 18.68 73.31 85.54 87.36 18.48 23.00 23.39
        VPT | 13.20 16.05 18.41 73.74 80.90 86.06 18.73 23.91 26.74
        EPT | 13.73 17.67 19.53 76.33 85.91 87.53 18.93 23.38 23.78""",
}

EPT = [
    Published(
        "EPT paper", "Zu et al., Medical Image Analysis 97:103258 (2024), arXiv 2407.01003", method.strip(), model,
        "complement of trainval",
        "The text gives tests of 3869/7651/2936 images, five samplings times four runs; the configs of its repository name "
        "test_WithLabel. Transcribed from the PDF.",
        _row(numbers),
    )
    for model, table in _EPT.items()
    for method, numbers in (line.split("|") for line in table.strip().splitlines())
]  # fmt: skip

_PRIVATE = "Adrian398/MedFM_Challenge_2023, result files of the challenge's final phase (September 2023)"
_PRIVATE_CAVEAT = "Means over exp1-5. The labels of this list were never released, so nobody can repeat the measurement."

CHALLENGE = [
    *(
        Published(
            "Challenge, final phase", _PRIVATE, entry, "backbone not stated", "challenge private test", _PRIVATE_CAVEAT, _row(numbers)
        )
        for entry, numbers in {
            "mcmong (by its name the organisers' baseline)": "8.78 11.69 12.67 71.49 82.08 84.32 20.81 26.34 25.99",
            "another validated entry": "9.98 12.30 13.01 76.52 83.32 86.20 21.92 27.82 24.90",
            "uniwue": "10.68 13.83 14.29 70.30 85.41 91.05 22.40 27.20 34.30",
        }.items()
    ),
    Published(
        "Challenge, validation phase", "Adrian398/MedFM_Challenge_2023, final ensemble of uniwue", "ensemble (uniwue)", "several backbones",
        "challenge validation", "Tuned on the labels of the very list it is measured on.",
        _grid("""
            chest 15.50/64.69 20.43/71.34 22.62/73.36
            colon 86.31/92.79 93.48/98.30 95.53/99.14
            endo 21.91/64.48 30.77/70.60 42.55/77.60"""),
    ),
]  # fmt: skip

OTHERS = [
    *(
        Published(
            "CheXWorld paper", "CheXWorld (CVPR 2025), ChestDR AUROC", "fine-tuned", model, UNKNOWN,
            "Details of the split could not be verified.",
            {("chest", shot, "auc"): float(word) for shot, word in zip(SHOTS, numbers.split(), strict=True)},
        )
        for model, numbers in {
            "LVM-Med": "57.55 66.95 67.44",
            "MAE": "61.31 74.03 75.26",
            "SimMIM": "60.64 72.14 74.42",
            "Adam-v2": "59.16 70.28 70.67",
            "CheXWorld": "64.60 75.19 76.40",
        }.items()
    ),
    Published(
        "Course work", "aRthur08701244/MedFM", "fine-tuned on train_20", "DenseNet121", "test_WithLabel",
        "A student project. Endo test_WithLabel has no image of a tumor.",
        _grid("chest 16.51\ncolon 87.08\nendo 16.71", ("train_20",)),
    ),
]  # fmt: skip

PUBLISHED: tuple[Published, ...] = (*OFFICIAL, *EPT, *CHALLENGE, *OTHERS)


def caveat(reference: Published, subset: str, test_rows: int | None) -> str:
    """What to say beside a published number that stands next to a result on `test_rows` images."""
    theirs = reference.test_rows(subset)
    if theirs is None:
        return f"Test list not stated. {reference.caveat}"
    if test_rows is not None and theirs != test_rows:
        return f"Other test list ({theirs:,} images, here {test_rows:,}): not comparable. {reference.caveat}"
    return reference.caveat
