"""Adapted models at work: finds a run or a repository of ours, loads it, and gives class probabilities for images. Research use only."""

import csv
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from .adaptation import adapt
from .adapter_files import ORIGIN, WHOLE
from .errors import MedfmcError
from .files import write_text
from .images.grey_range import FULL
from .images.held import held_images
from .images.processing import Processing, normalise, process
from .models.backbones import origin
from .models.checkpoint import Checkpoint, find_checkpoint, hub_checkpoint
from .models.image_processor import PROCESSOR, image_processor, processing_of
from .progress import bar, notify
from .runs import RunRecord, probabilities_of
from .runs.folders import fault_of
from .subsets import Subset, subset_of

if TYPE_CHECKING:
    from transformers import ImageClassificationPipeline, PreTrainedModel

RESEARCH_ONLY = "Research use only. Not a medical device, not for diagnosis."
BATCH = 16  # images


@dataclass
class Adapted:
    """An adapted model with all it needs.

    Attributes:
        name: the folder or repository it came from.
        model: in evaluation mode, on `device`; `.logits` of its output are (B, classes).
        processing: what lies between a decoded image and the model.
        subset: whose classes it tells apart.
        record: of its run; None where it lies elsewhere.
        run_folder: where that record lies.
    """

    name: str
    model: nn.Module
    processing: Processing
    subset: Subset
    record: RunRecord | None = None
    run_folder: Path | None = None

    @cached_property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def _in_bfloat16(self) -> bool:
        """Whether the run computed its scores so."""
        return self.record is not None and self.record.cost.get("precision") == "bfloat16"

    def probabilities(self, images: Any) -> np.ndarray:
        """Class probabilities of images.

        Args:
            images: paths, Pillow images, arrays or a `datasets` split, see `medfmc_hf.images.held.held_images`.

        Returns:
            float64, (n, classes), in [0, 1]. Rows add up to 1 in single-label tasks; in multi-label tasks each class is for itself.

        Raises:
            MedfmcError: an image cannot be read; `attempt` goes on with the others.
        """
        rows, failed = self.attempt(images)
        if failed:
            more = f" {len(failed) - 1:,} more of the {len(rows):,} images cannot be read either." if len(failed) > 1 else ""
            raise MedfmcError(next(iter(failed.values())) + more)
        return rows

    @torch.no_grad()
    def attempt(self, images: Any) -> tuple[np.ndarray, dict[int, str]]:
        """What `probabilities` returns, with NaN for images that cannot be read, and why not, by row number."""
        held, failed = held_images(images), dict[int, str]()
        logits = np.full((len(held), len(self.subset.classes)), np.nan, np.float32)
        for start in bar(range(0, len(held), BATCH), desc="images", hidden=len(held) <= BATCH):
            pixels: dict[int, torch.Tensor] = {}
            for row, image in enumerate(held[start : start + BATCH], start):
                try:
                    pixels[row] = process(image.pixels(self.processing.grey), self.processing)
                except MedfmcError as error:
                    failed[row] = str(error)
            if not pixels:
                continue
            batch = torch.cat([normalise(each[None], self.processing, device=self.device) for each in pixels.values()])
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16):
                found = self.model(pixel_values=batch).logits.float().cpu().numpy()
            if not np.isfinite(found).all():
                raise MedfmcError(f"the logits of {self.name} are not finite, so nothing is predicted: its weights are damaged.")
            logits[list(pixels)] = found
        return probabilities_of(logits, multilabel=self.subset.multilabel), failed


def load_adapted(
    source: str | os.PathLike, *, seed: int | None = None, backbone: str | os.PathLike | None = None, device: str | None = None
) -> Adapted:
    """Load an adapted model.

    Args:
        source: a run's folder, its `adapter` folder, or a repository on the Hub that `medfmc push model` made.
        seed: which seed, where there are several; None for the first.
        backbone: where the backbone is, if it is a local folder that moved or never was on this machine.
        device: such as `cpu` or `cuda`; None for a GPU where there is one.

    Raises:
        MedfmcError: it is not there, holds no weights, or its backbone is missing or another one.
    """
    folder = locate(source, seed)
    path = _record_path(folder)
    record = None if path is None else RunRecord.load(path)
    _check_files(folder, record, path and path.parent)
    is_whole = (folder / WHOLE).is_file()
    checkpoint = None if is_whole else _backbone_of(folder, record, backbone, published=path == folder / "run.json")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for an attribute that will be renamed
        model = adapt.load(folder, model=checkpoint)
    backbone_origin = origin(model)
    if (folder / PROCESSOR).is_file():
        processing = processing_of(str(folder))
    else:
        processing = processing_of(checkpoint or backbone_origin.model, image_size=backbone_origin.image_size)
    if record is not None and "grey_range" not in record.data:
        processing = replace(processing, grey=FULL)  # it read 16 bits as 16 bits
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Adapted(str(source), model.to(device).eval(), processing, subset_of(backbone_origin.subset), record, path and path.parent)


def load_classifier(
    source: str | os.PathLike, *, seed: int | None = None, backbone: str | os.PathLike | None = None, device: str | None = None
) -> "ImageClassificationPipeline":
    """Load an adapted model as the `image-classification` pipeline of transformers. The arguments are those of `load_adapted`.

    Call it with file names or Pillow images, which are decoded as in training. They go through transformers' image processor, whose pixels
    may differ from those of training by one grey level in 255; `load_adapted` uses the very pixels of training.
    """
    from peft import PeftModel
    from transformers import ImageClassificationPipeline, pipeline

    adapted = load_adapted(source, seed=seed, backbone=backbone, device=device)
    model = adapted.model
    if isinstance(model, PeftModel):
        model = model.get_base_model()  # the adapter is inside its layers; the pipeline knows the class of the backbone

    class DecodedAsInTraining(ImageClassificationPipeline):
        def preprocess(self, image: Any, *args: Any, **options: Any) -> Any:  # type: ignore[override]
            if not isinstance(image, str) or os.path.isfile(image):  # noqa: PTH113 - an address, or an image as text, is transformers' to open
                image = Image.fromarray(held_images(image)[0].pixels(adapted.processing.grey))
            return super().preprocess(image, *args, **options)

    return pipeline(
        "image-classification",
        pipeline_class=DecodedAsInTraining,
        model=cast("PreTrainedModel", model),
        image_processor=image_processor(adapted.processing),
        device=adapted.device,
        top_k=len(adapted.subset.classes),
    )


def refuse_deep_images(adapted: Adapted) -> None:
    """Keep a model of images of more than 8 bits from transformers' pipelines, which cut these to 8 bits in a way of their own."""
    is_deep = adapted.record.data.get("grey_range") if adapted.record is not None else adapted.processing.grey not in (None, FULL)
    if is_deep:
        raise MedfmcError(
            f"{adapted.name} was adapted to images of more than 8 bits, which transformers' pipelines do not read as its training did; use "
            "load_adapted, or medfmc predict."
        )


def locate(source: str | os.PathLike, seed: int | None = None) -> Path:
    """The local folder of an adapter: found on disk, or brought from the Hub.

    Raises:
        MedfmcError: there is none.
    """
    folder = Path(source)
    if folder.is_dir():
        for place in (folder, folder / "adapter"):
            if (place / ORIGIN).is_file():
                return _of_seed(place, str(source), seed)
        return _among_seeds(folder, str(source), seed)
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise MedfmcError(f"there is no folder {source}; expected a run's folder, or ORG/NAME of a repository on the Hub.")
    from .hub.fetch import fetch_adapter

    fetched = fetch_adapter(str(source), seed)
    if (fetched / ORIGIN).is_file():
        return _of_seed(fetched, str(source), seed)
    return _among_seeds(fetched, str(source), seed)


def _of_seed(folder: Path, name: str, seed: int | None) -> Path:
    """The folder of a single run, unless another seed was asked for than it is of."""
    record = _record_path(folder)
    if seed is not None and record is not None and (own := RunRecord.load(record).config["seed"]) != seed:
        raise MedfmcError(f"{name} has no seed {seed}; it has {own}.")
    return folder


def _record_path(folder: Path) -> Path | None:
    """The record of an adapter: beside one that was published, above one of a run; None where there is none."""
    return next((path for path in (folder / "run.json", folder.parent / "run.json") if path.is_file()), None)


def _check_files(folder: Path, record: RunRecord | None, home: Path | None) -> None:
    """Make sure that the adapter is what its run wrote, and that the run counts.

    Args:
        folder: of the adapter.
        record: of its run.
        home: where that record lies.
    """
    if record is None or home is None:
        notify(f"not checked whether {folder} is as its run wrote it: there is no record beside it.")
        return
    if record.status != "finished":
        raise MedfmcError(f"{home} is not used: its run {record.status} ({record.error}).")
    if fault := fault_of(record, home):
        raise MedfmcError(f"{home} is not used: {fault}")
    named = [name for name in record.files if name != "predictions.parquet"]
    for name in named:
        record.check_file(home, name)
    if not named:
        notify(f"not checked whether {folder} is as its run wrote it: its record is from before records held hashes.")


def _among_seeds(folder: Path, name: str, seed: int | None) -> Path:
    """One of the seeds that lie side by side in `folder`."""
    seeds = sorted(path.parent.name.removeprefix("seed") for path in folder.glob(f"seed*/{ORIGIN}"))
    if not seeds:
        raise MedfmcError(f"{name} holds no adapted model: no {ORIGIN} is in it. Give the folder of one run, or a repository of ours.")
    if seed is not None and str(seed) not in seeds:
        raise MedfmcError(f"{name} has no seed {seed}; it has {', '.join(seeds)}.")
    return folder / f"seed{seeds[0] if seed is None else seed}"


def _backbone_of(folder: Path, record: RunRecord | None, given: str | os.PathLike | None, *, published: bool) -> Checkpoint:
    """The files of the backbone that an adapter belongs to, sure to be those that were adapted.

    Args:
        folder: of the adapter.
        record: of its run.
        given: where the user says that the backbone is.
        published: whether the adapter is one that was pushed.
    """
    origin, known = adapt.origin_of(folder), {} if record is None else record.backbone
    fingerprint = known.get("fingerprint") or ""
    sha256 = known.get("sha256") or (fingerprint if len(fingerprint) == 64 else None)
    commit = origin.revision or (fingerprint if len(fingerprint) == 40 else None)
    was_local = commit is None and (Path(origin.model).is_absolute() or not published or "/" not in origin.model)
    if given is None and was_local and not Path(origin.model).is_dir():
        raise MedfmcError(
            f"the model was adapted from a local backbone, {Path(origin.model).name}, and there is no folder {origin.model}. Say where it "
            "is: --backbone FOLDER, or backbone=... in Python."
        )
    if given is not None:
        found = find_checkpoint(given)
    else:  # an id that was adapted at a commit is that of the Hub, whatever folders there are here
        found = find_checkpoint(origin.model) if commit is None else hub_checkpoint(origin.model, commit)
    if commit is not None and found.commit == commit:
        return found
    if sha256 is None:
        notify(f"not checked whether {found.name} is the backbone the model was adapted from: its record holds no hash of it.")
    elif sha256 not in (found.content, found.fingerprint):  # older records hold the latter
        raise MedfmcError(f"{found.name} is not the backbone the model was adapted from: its config or weights have another SHA-256.")
    return found


def write_csv(
    path: str | os.PathLike,
    images: Sequence[str | os.PathLike],
    probabilities: np.ndarray,
    subset: Subset,
    failed: Mapping[int, str] | None = None,
) -> None:
    """Write one row an image: its file, the probability of every class, and what the numbers are for.

    Args:
        path: of the file.
        images: their files.
        probabilities: (n, classes).
        subset: whose classes these are.
        failed: why some images could not be read, by row; they have no numbers, and a last column `error`.
    """
    text, failed = io.StringIO(), failed or {}
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *subset.classes, "note", *(["error"] if failed else [])])
    for number, (image, row) in enumerate(zip(images, probabilities, strict=True)):
        values = [""] * len(row) if number in failed else [f"{value:.6f}" for value in row]
        writer.writerow([os.fspath(image), *values, RESEARCH_ONLY, *([failed.get(number, "")] if failed else [])])
    write_text(path, text.getvalue().encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
