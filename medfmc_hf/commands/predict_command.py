"""Class probabilities of images, by a run's model or one on the Hub. Research use only: not a medical device, not for diagnosis.

medfmc predict runs/endo-5shot-seed0/lora-... image.png
medfmc predict ORG/NAME images/*.png --csv probabilities.csv

Files that cannot be read are named, and the others predicted; the exit status is then 1 (2 where there
is no other).
"""

import argparse
import json
import sys
from pathlib import Path

from ..errors import MedfmcError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN|REPO", help="a run's folder, or ORG/NAME on the Hub")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the probabilities to FILE: one row an image, one column a class")
    parser.add_argument("--json", action="store_true", help="print the probabilities as JSON")
    parser.add_argument("--seed", type=int, metavar="N", help="of which split, where there are several (default: the first)")
    parser.add_argument("--backbone", type=Path, metavar="FOLDER", help="where the backbone is, if it is a local one that moved")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, ... (default: a GPU where there is one)")


def run(args: argparse.Namespace) -> int:
    """Predict and print. Returns 1 if a file could not be read, else 0."""
    from ..predict import RESEARCH_ONLY, load_adapted, write_csv

    if args.csv and args.csv.is_dir():
        raise MedfmcError(f"--csv {args.csv} is a folder; give the name of a file.")
    adapted = load_adapted(args.model, seed=args.seed, backbone=args.backbone, device=args.device)
    subset = adapted.subset
    probabilities, failed = adapted.attempt(args.images)
    if len(failed) == len(args.images):
        raise MedfmcError("\n".join(failed.values()))
    if args.json:
        rows = [
            {"image": str(image)} | ({"error": failed[n]} if n in failed else {"probabilities": dict(zip(subset.classes, map(float, row)))})
            for n, (image, row) in enumerate(zip(args.images, probabilities))
        ]
        about = {"model": adapted.name, "subset": subset.key, "task": subset.task, "note": RESEARCH_ONLY}
        print(json.dumps(about | {"images": rows}, indent=2))
    else:
        print(RESEARCH_ONLY)
        kind = "each class for itself" if subset.multilabel else "one class an image"
        print(f"MedFMC {subset.name}, {subset.title}; probabilities of {kind}")
        width = max(map(len, subset.classes))
        for number, (image, row) in enumerate(zip(args.images, probabilities)):
            if number in failed:
                continue
            print(image)
            for name, probability in sorted(zip(subset.classes, row), key=lambda pair: -pair[1]):
                print(f"  {name:<{width}}  {probability:.4f}")
    if args.csv:
        write_csv(args.csv, args.images, probabilities, subset, failed)
        print(f"written to {args.csv}", file=sys.stderr if args.json else sys.stdout)
    for why in failed.values():
        print(f"not predicted: {why}", file=sys.stderr)
    return 1 if failed else 0
