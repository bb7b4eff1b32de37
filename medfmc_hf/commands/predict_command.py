"""Class probabilities of images, by a run's model or one on the Hub. Research use only: not a medical device, not for diagnosis.

medfmc predict runs/endo-5shot-seed0/lora-... image.png
medfmc predict ORG/NAME images/*.png --csv probabilities.csv
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN|REPO", help="a run's folder, or ORG/NAME on the Hub")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the probabilities to FILE: one row an image, one column a class")
    parser.add_argument("--seed", type=int, metavar="N", help="of which split, where there are several (default: the first)")
    parser.add_argument("--backbone", type=Path, metavar="FOLDER", help="where the backbone is, if it is a local one that moved")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, ... (default: a GPU where there is one)")


def run(args: argparse.Namespace) -> None:
    from ..predict import RESEARCH_ONLY, load_adapted, write_csv

    adapted = load_adapted(args.model, seed=args.seed, backbone=args.backbone, device=args.device)
    probabilities = adapted.probabilities(args.images)
    print(RESEARCH_ONLY)
    kind = "each class for itself" if adapted.subset.multilabel else "one class an image"
    print(f"MedFMC {adapted.subset.name}, {adapted.subset.title}; probabilities of {kind}")
    width = max(map(len, adapted.subset.classes))
    for image, row in zip(args.images, probabilities):
        print(image)
        for name, probability in sorted(zip(adapted.subset.classes, row), key=lambda pair: -pair[1]):
            print(f"  {name:<{width}}  {probability:.4f}")
    if args.csv:
        write_csv(args.csv, args.images, probabilities, adapted.subset)
        print(f"written to {args.csv}")
