"""What medfmc_hf keeps of images, and how to get the space back.

Test and validation images are decoded and resized once, and kept as plain pixels for every later run: one store per subset and size,
in `medfmc/pixels` of the Hugging Face home (HF_HOME, by default ~/.cache/huggingface).

  medfmc cache                          list what is kept, where, and how much space it takes
  medfmc cache clear                    remove all of it
  medfmc cache clear --subset chest     remove what is kept of some subsets

Clearing asks nothing, since nothing is lost: what is needed again is made again from the images. Other files are left alone.
"""

import argparse
from pathlib import Path

from ..errors import MedfmcError
from ..images.store import StoreInfo, clear_store, default_cache, list_stores
from ..subsets import SUBSETS
from ._scored import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=["list", "clear"], default="list", help="(default: %(default)s)")
    parser.add_argument("--subset", nargs="+", choices=SUBSETS, metavar="SUBSET", help=f"only of these: {', '.join(SUBSETS)}")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="a pixel cache elsewhere than in the Hugging Face home")


def run(args: argparse.Namespace) -> None:
    root = args.cache or default_cache()
    if args.cache and not root.is_dir():
        raise MedfmcError(f"{root} is not a folder; expected a pixel cache.")
    stores = [store for store in list_stores(root) if args.subset is None or store.subset in args.subset]
    if not stores:
        print(f"no pixels are kept in {root}" + (f" of {', '.join(args.subset)}" if args.subset else ""))
    elif args.action == "list":
        print(table([{"store": store.folder.name, "images": f"{store.images:,}", "size": size(store)} for store in stores]))
        print(f"{size(*stores)} in {root}")
    else:
        for store in stores:
            clear_store(store)
            print(f"removed {store.folder.name}: {store.images:,} images, {size(store)}")


def size(*stores: StoreInfo) -> str:
    return f"{sum(store.bytes for store in stores) / 1e6:,.1f} MB"
