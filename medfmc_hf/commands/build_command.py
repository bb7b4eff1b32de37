"""Make ./medfmc, a dataset folder for load_dataset, from a MedFMC download.

Give the folders of the download: Grand Challenge (MedFMC_train, MedFMC_val, MedFMC_test, MedFMC_trainval_annotation), figshare or
OpenDataLab (ChestDR, ColonPath, Endo, NeoJaundice, Retino), and a clone of openmedlab/MedFM for its split lists. Several folders
complete each other; subsets that are not there are skipped. Label tables may be saved as CSV with `,`, `;` or tabs in UTF-8 or UTF-16, as
Parquet, or as XLSX (which needs: pip install "medfmc_hf[tables]"). Everything is checked before anything is written.

  medfmc build ~/MedFMC                                 all that is there, linked: a few MB, nothing copied
  medfmc build ~/figshare --fetch-lists                 with the public split lists downloaded
  medfmc build ~/MedFMC --subsets endo --embed --max-side 512 --out medfmc-endo      a portable copy
"""

import argparse

from ..subsets import SUBSETS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `medfmc build`."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="folder of a download; where two have an image, the first is used")
    parser.add_argument(
        "--out", default="medfmc", metavar="FOLDER", help="dataset folder to make (default: medfmc); an older build there is replaced"
    )
    parser.add_argument("--subsets", nargs="+", choices=list(SUBSETS), metavar="SUBSET", help=f"only these: {', '.join(SUBSETS)}")
    lists = parser.add_argument_group("split lists")
    lists.add_argument("--lists", metavar="FOLDER", help="folder that holds the official or the paper's lists, if no source does")
    lists.add_argument(
        "--fetch-lists", action="store_true", help="download the lists that the sources lack from GitHub, checked by SHA-256"
    )
    lists.add_argument("--lists-url", metavar="URL", help="a mirror of https://raw.githubusercontent.com for --fetch-lists")
    form = parser.add_argument_group("form")
    form.add_argument("--embed", action="store_true", help="put the images into the files, to move or publish the folder (can be large)")
    form.add_argument("--max-side", type=int, metavar="N", help="with --embed, shrink images with a side above N pixels (JPEG, quality 95)")
    parser.add_argument(
        "--grey-range",
        type=int,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of images of more than 8 bits, the values that become black and white (default: 0 and the highest of 10, 12, 14 or 16 bits, "
        "the fewest that hold all values of a subset)",
    )
    parser.add_argument("--allow-missing", action="store_true", help="go on without images that are missing or damaged")
    parser.add_argument(
        "--jaundice-threshold",
        choices=["published", "inclusive"],
        default="published",
        help="NeoJaundice: high is above 12.9 mg/dL (published) or at and above it (inclusive, the authors' lists); default: published",
    )


def run(args: argparse.Namespace) -> None:
    """Build, and print what was built."""
    from ..data.build import build
    from ..data.dataset_card import example_config
    from ..data.lists import RAW
    from ..metric import install

    built = build(
        args.sources,
        args.out,
        subsets=args.subsets,
        lists_folder=args.lists,
        fetch=args.fetch_lists,
        lists_url=args.lists_url or RAW,
        embed=args.embed,
        max_side=args.max_side,
        allow_missing=args.allow_missing,
        jaundice_threshold=args.jaundice_threshold,
        grey_range=None if args.grey_range is None else tuple(args.grey_range),
    )
    install()  # so that the next lines of the README work
    names = list(built.manifest["configs"])
    print(f"{'subset':<12}{'images':>9}{'patients':>10}{'configs':>9}  support sets")
    for key, entry in built.manifest["subsets"].items():
        configs = sum(name.split("-")[0] == key for name in names)
        print(f"{key:<12}{entry['images']:>9,}{entry['patients']:>10,}{configs:>9}  {entry['few_shot']}")
    for key, entry in built.manifest["subsets"].items():
        for note in entry["notes"]:
            print(f"{key}: {note}.")
    for key, reason in built.absent.items():
        print(f"{key}: not built; {reason}.")
    if built.absent and built.unpacking:
        print(f"There are archives, which were not read; these commands unpack them:\n{built.unpacking}")
    example = example_config(built.manifest)
    print(f"\n{built.folder} is ready, with {len(names)} configs. Next:")
    print(f"  medfmc check {built.folder}")
    print(f"  python -c \"from datasets import load_dataset; print(load_dataset('{built.folder}', '{example}'))\"")
