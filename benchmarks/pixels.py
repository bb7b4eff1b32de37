"""Pixels, compared with transformers' PIL image processor: python benchmarks/pixels.py

Invented images of the sizes in the paper (smooth fields and noise; PNG, NeoJaundice JPEG), decoded and processed for a ViT at 384.
The alternatives alternate in each round, in one process on one thread; a number is the median over images and rounds, in milliseconds of
CPU time, which other jobs on a shared machine affect less than wall time.

- floor: the bare decode (Pillow's `Image.load`).
- ours: `decode` + `process` + `normalise`; peer: the bare decode + transformers' PIL processor; from the same bytes to the same tensor.
- processor alone: from the decoded image (an array for ours, a Pillow image for theirs) to the tensor.
- cached: read of a stored evaluation image + `normalise`, in percent of a ViT-S/16 forward pass at 224; both in batches of 8. The first
  read in a process verifies the image's checksum, later ones do not.
- views: a random resized crop from a decoded image, against Pillow's `resize(box=...)`.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
import transformers
from PIL import Image
from PIL import __version__ as pillow_version

from medfmc_hf.images.augmentation import draw_crop
from medfmc_hf.images.pixels import TrainingPixels, decode, decodes, evaluation_pixels
from medfmc_hf.images.processing import Processing, normalise, process
from medfmc_hf.images.resize import channels_first, resize
from medfmc_hf.progress import set_quiet
from medfmc_hf.subsets import SUBSETS

# (height, width, channels) and file type of the releases, from the paper.
IMAGES = {
    "chest": (2965, 2953, 1, "PNG"),
    "colon": (1024, 1024, 3, "PNG"),
    "endo": (1024, 1280, 3, "PNG"),
    "neojaundice": (567, 567, 3, "JPEG"),
    "retino": (1824, 2736, 3, "PNG"),
}


def invent(height: int, width: int, channels: int, seed: int) -> Image.Image:
    """Smooth colours with camera noise: PNGs of about the size of real ones."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 64, width // 64, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = rng.normal(0, 5, (height, width, 1)).astype(np.int16)
    pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def encode(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return file.getvalue()


def load(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def in_turn(alternatives: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each alternative in each round, after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in alternatives}
    for round_number in range(rounds + 1):
        for name, work in alternatives.items():
            start = time.process_time()
            work()
            if round_number:
                times[name].append(1e3 * (time.process_time() - start))
    return times


def medians(data: list[bytes], alternatives: Callable[[bytes], dict[str, Callable]], rounds: int) -> dict[str, float]:
    """The median of each alternative over images and rounds."""
    together: dict[str, list[float]] = {}
    for one in data:
        for name, times in in_turn(alternatives(one), rounds).items():
            together.setdefault(name, []).extend(times)
    return {name: statistics.median(times) for name, times in together.items()}


def pil_processor(processing: Processing):
    """The same processing by transformers."""
    try:
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil as Processor
    except ImportError:  # transformers versions with a single backend
        from transformers import ViTImageProcessor as Processor
    size = {"height": processing.height, "width": processing.width}
    return Processor(size=size, resample=3, image_mean=list(processing.mean), image_std=list(processing.std))


def table(header: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def decode_and_process(subset: str, data: list[bytes], processing: Processing, rounds: int) -> list[str]:
    processor = pil_processor(processing)

    def ours_of(pixels: np.ndarray) -> torch.Tensor:
        return normalise(process(pixels, processing)[None], processing)

    def theirs_of(image: Image.Image) -> torch.Tensor:
        return processor(image if image.mode == "RGB" else image.convert("RGB"), return_tensors="pt")["pixel_values"]

    def alternatives(one: bytes) -> dict[str, Callable]:
        image, pixels = load(one), decode({"bytes": one, "path": None})
        return {
            "floor": lambda: load(one),
            "ours": lambda: ours_of(decode({"bytes": one, "path": None})),
            "peer": lambda: theirs_of(load(one)),
            "our processor": lambda: ours_of(pixels),
            "their processor": lambda: theirs_of(image),
        }

    ms = medians(data, alternatives, rounds)
    level = torch.tensor(processing.std).view(1, 3, 1, 1) * 255
    apart = [((ours_of(np.array(load(one))) - theirs_of(load(one))).abs() * level).max().item() for one in data]
    height, width, channels, kind = IMAGES[subset]
    return [
        subset,
        f"{width}x{height} {'grey' if channels == 1 else 'RGB'} {kind}, {len(data[0]) / 1e6:.1f} MB",
        *(f"{ms[name]:.1f}" for name in ("floor", "ours", "peer")),
        f"{ms['ours'] / ms['floor']:.2f}",
        f"{ms['peer'] / ms['floor']:.2f}",
        *(f"{ms[name]:.1f}" for name in ("our processor", "their processor")),
        f"{ms['their processor'] / ms['our processor']:.1f}",
        f"{max(apart):.2f}",
    ]


def views(subset: str, data: list[bytes], side: int, rounds: int) -> list[str]:
    def alternatives(one: bytes) -> dict[str, Callable]:
        image = load(one)
        pixels = channels_first(decode({"bytes": one, "path": None}))
        crops = [draw_crop(*pixels.shape[1:], torch.Generator().manual_seed(seed)) for seed in range(8)]

        def ours() -> None:
            for top, left, height, width in crops:
                resize(pixels[:, top : top + height, left : left + width], (side, side), "bicubic")

        def pillow() -> None:
            for top, left, height, width in crops:
                np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height)))

        return {"ours": ours, "Pillow": pillow}

    ms = medians(data, alternatives, rounds)
    return [subset, f"{ms['ours'] / 8:.1f}", f"{ms['Pillow'] / 8:.1f}", f"{ms['Pillow'] / ms['ours']:.1f}"]


def cached(folder: Path, data: dict[str, list[bytes]], rounds: int) -> tuple[list[list[str]], list[str]]:
    """The store: decodes of two sweeps, and the cost of reading compared with a forward pass."""
    processing = Processing(224, 224, (224, 224))
    config = transformers.ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    decodes.reset()
    images, stores = 0, {}
    for sweep in range(2):
        first = decodes.count
        for subset, encoded in data.items():
            rows = datasets.Dataset.from_dict({"image": [{"bytes": one, "path": None} for one in encoded * 2]}).cast_column(
                "image", datasets.Image()
            )
            stores[subset] = evaluation_pixels(rows, processing, subset=SUBSETS[subset], cache=folder)
            TrainingPixels(rows, processing)
            images += len(encoded) if sweep == 0 else 0
        counts = [first, decodes.count - first] if sweep else []
    rows = []
    for subset, store in stores.items():
        batch = [number % len(store) for number in range(8)]
        values = normalise(store[batch], processing)

        def forward(values=values) -> None:
            with torch.inference_mode():
                model(values)

        def read(store=store, batch=batch) -> None:
            normalise(store[batch], processing)

        def first(store=store, batch=batch) -> None:
            store.forget_checks()
            normalise(store[batch], processing)

        alternatives = {"first": first, "read": read, "forward": forward}
        ms = {name: statistics.median(times) / 8 for name, times in in_turn(alternatives, 10 * rounds).items()}
        shares = [f"{100 * ms[name] / ms['forward']:.2f} %" for name in ("first", "read")]
        rows.append([subset, f"{ms['first']:.3f}", f"{ms['read']:.3f}", f"{ms['forward']:.1f}", *shares])
    return rows, [str(images), *map(str, counts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subsets", nargs="+", choices=IMAGES, default=list(IMAGES))
    parser.add_argument("--images", type=int, default=3, help="images per subset (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all alternatives (default: %(default)s)")
    parser.add_argument("--size", type=int, default=384, help="side of the processed image (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; Pillow uses one (default: %(default)s)")
    args = parser.parse_args()
    set_quiet(True)
    torch.set_num_threads(args.threads)

    data = {}
    for subset in args.subsets:
        height, width, channels, kind = IMAGES[subset]
        data[subset] = [encode(invent(height, width, channels, seed), kind) for seed in range(args.images)]
    processing = Processing(args.size, args.size, (args.size, args.size))
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Pillow {pillow_version}"
    print(f"{args.threads} thread(s), to {args.size}; {versions}\n")
    header = [
        "subset",
        "image",
        "floor",
        "ours",
        "peer",
        "ours/floor",
        "peer/floor",
        "our processor",
        "their processor",
        "ratio",
        "levels apart",
    ]
    table(header, [decode_and_process(subset, data[subset], processing, args.rounds) for subset in args.subsets])
    table(["a training view", "ours", "Pillow", "ratio"], [views(subset, data[subset], args.size, args.rounds) for subset in args.subsets])
    with tempfile.TemporaryDirectory() as folder:
        rows, counts = cached(Path(folder), data, args.rounds)
    table(["a cached image at 224", "first read + normalise", "later", "ViT-S/16 forward", "share of the first", "share of later"], rows)
    table(["distinct images", "decodes, first sweep", "decodes, second sweep"], [counts])


if __name__ == "__main__":
    main()
