"""Writes rows of images to Parquet, with their Hugging Face features, as links to the files or with the files inside."""

import hashlib
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import ExifTags, Image

from ..errors import MedfmcError
from ..files import sha256_of
from ..images.grey_range import deep_values, is_deep
from ..progress import bar
from ..subsets import Subset
from .label_tables import EXTRA_COLUMNS, SITES
from .release import Release

SHARD_BYTES = 500 << 20  # of images in one embedded file, the size that the Hub advises
_GROUP_BYTES = 64 << 20  # of images in memory at once


def features_of(subset: Subset) -> datasets.Features:
    """The columns of a subset's configs and their types."""
    label = datasets.ClassLabel(names=list(subset.classes))
    columns = {
        "image": datasets.Image(),
        subset.label_column: datasets.List(label) if subset.multilabel else label,
        "image_id": datasets.Value("string"),
        "patient_id": datasets.Value("string"),
        "image_sha256": datasets.Value("string"),
    }
    if subset.key == "colon":
        columns["scan_id"] = datasets.Value("string")
    if subset.key == "neojaundice":
        columns |= {name: datasets.Value("string" if name == "gender" else "float64") for name in EXTRA_COLUMNS.values()}
        columns["site"] = datasets.Value("string")
    return datasets.Features(columns)


def master_table(release: Release) -> pa.Table:
    """Every image of a subset that is there, once, sorted by image id, linked.

    Labels that are not public are -1 (single-label) or null (multi-label: an empty list is an image without a finding).
    """
    subset, image_ids = release.subset, sorted(release.image_paths)
    labels = [release.labels.get(image_id) for image_id in image_ids]
    if not subset.multilabel:
        labels = [-1 if label is None else label for label in labels]
    columns = {
        "image": [{"bytes": None, "path": release.image_paths[image_id]} for image_id in image_ids],
        subset.label_column: labels,
        "image_id": image_ids,
        "patient_id": [subset.patient_id(image_id) for image_id in image_ids],
        "image_sha256": [release.image_sha256[image_id] for image_id in image_ids],
        "scan_id": [subset.scan_id(image_id) for image_id in image_ids],
        "site": [SITES.get(image_id.rpartition("-")[2]) for image_id in image_ids],
    }
    for name in EXTRA_COLUMNS.values():
        columns[name] = [release.extra.get(image_id, {}).get(name) for image_id in image_ids]
    features = features_of(subset)
    return pa.table({name: columns[name] for name in features}, schema=features.arrow_schema)


class EmbeddedImages:
    """The files to embed: the originals, or copies that were made smaller, each once however many configs hold it.

    Args:
        spool: folder for the copies.
        max_side: images with a longer side above this many pixels are shrunk to it; None for none.
    """

    def __init__(self, spool: Path, max_side: int | None) -> None:
        self.spool, self.max_side = spool, max_side
        self.files: dict[str, str] = {}
        self._built_from: dict[str, str] = {}  # digests of the originals

    def prepare(self, paths: Iterable[str], digests: Iterable[str] | None = None) -> None:
        """Make the smaller copies. Pillow works outside Python's lock, so threads help."""
        paths = list(paths)
        if digests is not None:
            self._built_from |= dict(zip(paths, digests))
        paths = [path for path in paths if path not in self.files]
        if self.max_side is None:
            self.files |= {path: path for path in paths}
            return
        self.spool.mkdir(exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            copies = bar(pool.map(self._shrink, paths, repeat(self.max_side)), total=len(paths), desc="shrinking images", unit="image")
            self.files |= dict(zip(paths, copies))

    def _shrink(self, path: str, max_side: int) -> str:
        try:
            with Image.open(io.BytesIO(self._original(path))) as image:
                if image.format == "TIFF":
                    image.load()  # turns it upright, which older Pillow does not tell before
                scale = max_side / max(image.size)
                if scale >= 1:
                    return path
                width, height = (max(1, round(side * scale)) for side in image.size)
                content, extension = _encode(image, (width, height))
        except (MemoryError, MedfmcError, FileNotFoundError):
            raise
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and others for damaged files
            raise MedfmcError(f"{path} cannot be decoded ({error}); replace it, or remove it and give --allow-missing.") from error
        copy = self.spool / (hashlib.sha256(path.encode()).hexdigest() + extension)
        copy.write_bytes(content)
        return str(copy)

    def embedded(self, path: str) -> dict:
        """The image column's value with the bytes inside. Its path is a bare file name, which tells nobody where it lay."""
        file = self.files[path]
        content = self._original(path) if file == path else Path(file).read_bytes()
        return {"bytes": content, "path": Path(path).stem + Path(file).suffix}

    def _original(self, path: str) -> bytes:
        """The bytes of a linked file.

        Raises:
            MedfmcError: it is not the one that the data set was built from.
        """
        content = Path(path).read_bytes()
        if path in self._built_from and hashlib.sha256(content).hexdigest() != self._built_from[path]:
            raise MedfmcError(
                f"{path} is not the image that the data set was built from (another SHA-256); build the data set again (medfmc build)."
            )
        return content

    def with_digests(self, table: pa.Table) -> pa.Table:
        """Linked rows with the digests of the files that will be embedded."""
        column = table.schema.get_field_index("image_sha256")
        paths, known = linked_files(table), table["image_sha256"].to_pylist()
        digests = [digest if self.files[path] == path else sha256_of(Path(self.files[path])) for path, digest in zip(paths, known)]
        return table.set_column(column, table.schema.field(column), pa.array(digests, pa.string()))

    def size(self, path: str) -> int:
        return Path(self.files[path]).stat().st_size


def _encode(image: Image.Image, size: tuple[int, int]) -> tuple[bytes, str]:
    """Shrink with Pillow's bicubic filter. 8-bit images become JPEG (quality 95, full colour), deeper ones stay PNG."""
    buffer = io.BytesIO()
    if is_deep(image):
        original = deep_values(image)
        values = np.asarray(Image.fromarray(original.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
        # Bicubic overshoots, and the range of a build holds every value of the originals.
        values = np.clip(values.round(), original.min(), original.max()).astype(np.uint16)
        Image.fromarray(values).save(buffer, "PNG", **_orientation(image))
        return buffer.getvalue(), ".png"
    small = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB").resize(size, Image.Resampling.BICUBIC)
    metadata = {name: image.info[name] for name in ("exif", "icc_profile") if image.info.get(name)}
    small.save(buffer, "JPEG", quality=95, subsampling=0, **(_orientation(image) | metadata))
    return buffer.getvalue(), ".jpg"


def _orientation(image: Image.Image) -> dict[str, bytes]:
    """How an image is to be turned upright, as an option of saving it; a TIFF says so among its other tags."""
    turn = image.getexif().get(ExifTags.Base.Orientation)
    if turn is None:
        return {}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    return {"exif": exif.tobytes()}


def write_rows(table: pa.Table, folder: Path, name: str, images: EmbeddedImages | None) -> list[str]:
    """Write rows as `<name>-<digest>.parquet` below `folder`, or as several numbered files where they hold much.

    The digest is of the content: `datasets` keeps using its cached copy of a local folder for as long as README.md names the same files,
    so a build with other rows or other paths must name others.

    Returns:
        The files, relative to `folder`.
    """
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shards = shards_of(table, name, images) if images else {f"{name}.parquet": table}
    files = []
    for shard, rows in shards.items():
        if images:
            write_embedded(rows, folder / shard, images)
        else:
            pq.write_table(rows, folder / shard, compression="zstd")
        files.append(f"{shard.removesuffix('.parquet')}-{sha256_of(folder / shard)[:12]}.parquet")
        (folder / shard).rename(folder / files[-1])
    return files


def shards_of(table: pa.Table, name: str, images: EmbeddedImages) -> dict[str, pa.Table]:
    """Linked rows as they are spread over embedded files: `<name>.parquet`, or several numbered ones, and the rows of each."""
    ranges = _chunks([images.size(path) for path in linked_files(table)], SHARD_BYTES)
    names = [name] if len(ranges) == 1 else [f"{name}-{i:05d}-of-{len(ranges):05d}" for i in range(len(ranges))]
    return {f"{shard}.parquet": table.slice(start, stop - start) for shard, (start, stop) in zip(names, ranges)}


def linked_files(table: pa.Table) -> list[str]:
    """The image files of linked rows, in row order."""
    return table["image"].combine_chunks().field("path").to_pylist()


def write_embedded(table: pa.Table, file: Path, images: EmbeddedImages) -> None:
    """Write linked rows as one file with the images inside."""
    paths = linked_files(table)
    position, image_type = table.schema.get_field_index("image"), table.schema.field("image").type
    with pq.ParquetWriter(file, table.schema, compression="none") as writer:
        for start, stop in _chunks([images.size(path) for path in paths], _GROUP_BYTES):
            cells = pa.array([images.embedded(path) for path in paths[start:stop]], image_type)
            writer.write_table(table.slice(start, stop - start).set_column(position, table.schema.field("image"), cells))


def _chunks(sizes: list[int], most: int) -> list[tuple[int, int]]:
    """Consecutive ranges of rows whose sizes add up to about `most`; at least one range."""
    ranges, start, total = [], 0, 0
    for i, size in enumerate(sizes):
        if i > start and total + size > most:
            ranges.append((start, i))
            start, total = i, 0
        total += size
    return [*ranges, (start, len(sizes))]
