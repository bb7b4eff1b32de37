"""Makes a dataset folder from a MedFMC download: Parquet files, a README.md that names the configs, and a manifest."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import MedfmcError
from ..files import write_json, write_text
from ..images.grey_range import GreyRange
from ..progress import bar, notify
from ..subsets import SUBSETS, ConfigName, Subset, subset_of
from ..version import __version__
from ..words import first_few
from . import lists
from .audit import Report, Rows, audit_configs
from .build_plan import Plan, make_plans, rows_of
from .dataset_card import dataset_card
from .loading import MANIFEST, SAMPLE_MARK, SCHEMA, images_digest, read_manifest
from .output_folder import replace_folder
from .parquet import EmbeddedImages, linked_files, write_rows
from .release import Release, match_images, read_release
from .sources import Found, find
from .splits import SAMPLER


@dataclass(frozen=True)
class Built:
    """What a build made.

    Attributes:
        folder: where.
        manifest: the content of `medfmc_build.json`.
        report: the audit of its splits.
        absent: why a subset is not in it.
        unpacking: the commands that unpack archives beside the images, which were not read; empty if there are none.
    """

    folder: Path
    manifest: dict
    report: Report
    absent: dict[str, str]
    unpacking: str


def build(
    sources: Sequence[str | os.PathLike],
    out: str | os.PathLike = "medfmc",
    *,
    subsets: Sequence[str] | None = None,
    lists_folder: str | os.PathLike | None = None,
    fetch: bool = False,
    lists_url: str = lists.RAW,
    embed: bool = False,
    max_side: int | None = None,
    allow_missing: bool = False,
    jaundice_threshold: str = "published",
    grey_range: tuple[int, int] | None = None,
) -> Built:
    """Make `out`, a dataset repository that `load_dataset(out, config)` reads, from the folders of a download.

    Everything is read and checked before anything is written, and `out` is replaced in one step when all is written. The same
    input gives the same bytes.

    Args:
        sources: folders to search; they complete each other, and the first that has an image is used.
        out: folder to make. An older build there is replaced; anything else is an error.
        subsets: keys of the subsets to build; None for all that are there.
        lists_folder: where split lists are, besides the sources.
        fetch: download the public lists that the sources lack.
        lists_url: a mirror of the lists' public host.
        embed: put the images' bytes into the files instead of their paths.
        max_side: with `embed`, shrink images whose longer side is above this many pixels.
        allow_missing: go on without images that are missing or damaged.
        jaundice_threshold: `published` (bilirubin above 12.9 mg/dL) or `inclusive` (at or above).
        grey_range: of images of more than 8 bits, the values that become 0 and 255; None for 0 and the highest value of the fewest of 10,
            12, 14 and 16 bits that hold all values of the subset.

    Raises:
        MedfmcError: nothing was recognised, or something is wrong with the input; all that is wrong is named at once.
    """
    if max_side is not None and (not embed or max_side < 1):
        raise MedfmcError("--max-side is a number of pixels and goes with --embed: linked images stay as they are.")
    if any(mark in str(Path(out).resolve()) for mark in ("[", "]", "::")):
        raise MedfmcError(f"{Path(out).resolve()} has [, ] or :: in it, from which `datasets` cannot load; give another --out.")
    window = None if grey_range is None else GreyRange(*grey_range, window=True)
    chosen = [subset_of(key) for key in dict.fromkeys(subsets)] if subsets else list(SUBSETS.values())
    with replace_folder(out) as part:
        notify("looking for images, tables and lists")
        found = find(sources)
        if lists_folder is not None:
            _add_lists(found, find([lists_folder]), chosen)
        present, absent = _present(found, chosen, required=bool(subsets))
        _refuse_loss(Path(out), present)
        lacking = [subset for subset in present if fetch and not _has_lists(found, subset)]
        if lacking:
            _add_lists(found, find([lists.fetch_lists(lacking, base_url=lists_url)]), lacking)
        releases = [read_release(found, subset, jaundice_threshold) for subset in present]
        for release in releases:
            match_images(release, found, window)
        _refuse_problems(releases, found, allow_missing)
        plans = make_plans(releases, absent)
        rows = {config: rows for plan in plans for config, rows in rows_of(plan).items()}
        report = audit_configs(rows)
        if report.all_mistakes:
            raise MedfmcError("the lists make splits that are wrong:\n  " + "\n  ".join(report.all_mistakes[:10]))
        images = _embedded(plans, part / ".spool", max_side) if embed else None
        manifest = {
            "schema": SCHEMA,
            "medfmc_hf": __version__,
            "sampler": SAMPLER,
            "form": "embedded" if embed else "linked",
            "max_side": max_side,
            "jaundice_threshold": jaundice_threshold,
            "sources": [] if embed else [str(folder) for folder in found.searched],
            "subsets": {plan.release.subset.key: _describe(plan, found.searched if embed else []) for plan in plans},
            "configs": _write(plans, rows, part, images),
        }
        write_text(part / "README.md", dataset_card(manifest, report, absent))
        write_json(part / MANIFEST, manifest)
    return Built(Path(out), manifest, report, absent, found.unpacking())


def _add_lists(found: Found, more: Found, subsets: list[Subset]) -> None:
    keys = {subset.key for subset in subsets}
    for (key, kind), paths in more.lists.items():
        if key in keys:
            found.lists[key, kind] += paths


def _has_lists(found: Found, subset: Subset) -> bool:
    """Whether every public list that this subset's configs need is there."""
    known = (lists.kind_of(path.rpartition("/")[2]) for path in lists.published_lists(subset))
    needed = {lists.PAPER_TEST if kind == lists.TEST else kind for kind, _ in filter(None, known)}
    return needed <= {kind for key, kind in found.lists if key == subset.key}


def _present(found: Found, chosen: list[Subset], required: bool) -> tuple[list[Subset], dict[str, str]]:
    """The subsets that have images, and why the others are absent."""
    present = [subset for subset in chosen if found.image_paths[subset.key] or (found.image_paths[""] and found.tables[subset.key])]
    absent = {}
    for subset in chosen:
        if subset not in present:
            has_labels = found.tables[subset.key] or any(key == subset.key for key, _ in found.lists)
            absent[subset.key] = "labels or lists are there, but no image" if has_labels else "neither images nor labels are there"
    searched = ", ".join(map(str, found.searched))
    archives = f"\nThere are archives; unpack them first:\n{found.unpacking()}" if found.archives else ""
    if not present:
        raise MedfmcError(
            f"no images of {first_few([subset.key for subset in chosen], 5)} below {searched}.\n"
            "Expected a layout of a release: MedFMC_train/endo/images (Grand Challenge), Endo/images (figshare, OpenDataLab) or "
            f"MedFMC/endo/images (the official code), and likewise for the other subsets.{archives}"
        )
    if absent and required:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in absent.items())
        raise MedfmcError(f"--subsets names what is not below {searched}: {reasons}.{archives}")
    return present, absent


def _refuse_loss(out: Path, present: list[Subset]) -> None:
    """An embedded build may be the only place where its images are: it is not replaced by one that lacks some of them."""
    if not (out / MANIFEST).is_file():
        return
    manifest = read_manifest(out)
    lost = sorted(set(manifest["subsets"]) - {subset.key for subset in present})
    if manifest["form"] == "embedded" and lost:
        raise MedfmcError(
            f"{out} holds the images of {', '.join(lost)}, which this build lacks and would remove. Give another --out, or remove that "
            "folder first."
        )


def _refuse_problems(releases: list[Release], found: Found, allow_missing: bool) -> None:
    """Name all that is wrong, at once."""
    paragraphs = []
    for release in releases:
        wrong = release.problems + ([] if allow_missing else release.missing_images)
        paragraphs += [f"{release.subset.key}: {text}" for text in wrong[:8]]
        if len(wrong) > 8:
            paragraphs.append(f"{release.subset.key}: ... and {len(wrong) - 8} more")
        if allow_missing:
            release.notes += [f"built without them: {text.rstrip('.')}" for text in release.missing_images]
    if not paragraphs:
        return
    if any(release.missing_images for release in releases) and not allow_missing:
        unpacking = f" There are archives that may hold them; unpack them first:\n{found.unpacking()}\n" if found.archives else ""
        paragraphs.append(f"For missing or damaged images:{unpacking} complete the download, or go on without them by --allow-missing.")
    raise MedfmcError("nothing was written, because\n" + "\n".join(paragraphs))


def _describe(plan: Plan, private: list[Path]) -> dict:
    """What the manifest says of a subset. Of folders in `private` only the last name: an embedded build is made to be given away."""
    release = plan.release
    image_ids = plan.table["image_id"].to_pylist()
    images = images_digest(image_ids, plan.table["image_sha256"].to_pylist(), release.grey_range)
    public, read = release.official
    notes = release.notes
    for folder in private:
        notes = [note.replace(str(folder), folder.name) for note in notes]
    published = [image_id for image_id in image_ids if image_id in release.labels]
    folders = {folder for path in release.image_paths.values() for folder in Path(path).parents}
    return {
        "images": len(published),
        "published_images": release.subset.images,
        "private_test_images": len(image_ids) - len(published),
        "patients": len({release.subset.patient_id(image_id) for image_id in published}),
        "pool": plan.pool,
        "few_shot": plan.few_shot,
        "lists": {"read": read, "as_published": public},
        "notes": notes,
        "invented": any((folder / SAMPLE_MARK).is_file() for folder in folders),
        "incomplete": bool(release.missing_images),  # else it would not be built without --allow-missing
        "grey_range": None if release.grey_range is None else release.grey_range.to_dict(),
        "images_sha256": images,
        "inputs_sha256": hashlib.sha256(f"{release.digest} {images}".encode()).hexdigest(),
    }


def _write(plans: list[Plan], rows: dict[ConfigName, dict[str, Rows]], folder: Path, images: EmbeddedImages | None) -> dict:
    """Write each distinct split once. Returns config -> split -> files, rows, bytes and digest."""
    if images:
        _refuse_full_disk(plans, rows, folder, images)
    written: dict[Rows, dict] = {}
    configs: dict[str, dict] = {}
    for plan in bar(plans, desc="writing", unit="subset"):
        position = {image_id: i for i, image_id in enumerate(plan.table["image_id"].to_pylist())}
        for config in bar(plan.configs, desc=plan.release.subset.key, unit="config"):
            configs[str(config)] = {}
            for split, split_rows in rows[config].items():
                if split_rows not in written:
                    chosen = plan.table.take([position[image_id] for image_id in split_rows.image_ids])
                    files = write_rows(chosen, folder, _file_name(config, split), images)
                    written[split_rows] = {
                        "files": files,
                        "rows": chosen.num_rows,
                        "bytes": sum((folder / file).stat().st_size for file in files),
                        "sha256": split_rows.digest,
                    }
                configs[str(config)][split] = written[split_rows]
    if images and images.spool.exists():
        shutil.rmtree(images.spool)
    return configs


def _embedded(plans: list[Plan], spool: Path, max_side: int | None) -> EmbeddedImages:
    """The files to embed; the tables of the plans get their digests."""
    images = EmbeddedImages(spool, max_side)
    for plan in plans:
        images.prepare(linked_files(plan.table), plan.table["image_sha256"].to_pylist())
        plan.table = images.with_digests(plan.table)
    return images


def _file_name(config: ConfigName, split: str) -> str:
    """Such as `data/endo/test` or `data/endo/5shot-seed0-official/train`; the official test, which 15 configs share, lies apart."""
    rest = str(config).removeprefix(config.subset).removeprefix("-")
    if config.variant == "official" and split == "test":
        rest = "official"
    return "/".join(part for part in ("data", config.subset, rest, split) if part)


def _refuse_full_disk(plans: list[Plan], rows: dict[ConfigName, dict[str, Rows]], folder: Path, images: EmbeddedImages) -> None:
    """Embedding gives every config its own copy of its train and validation images, which can be much: say so in time."""
    sizes = {image_id: images.size(path) for plan in plans for image_id, path in plan.release.image_paths.items()}
    distinct = {split for splits in rows.values() for split in splits.values()}
    needed, free = sum(sizes[image_id] for split in distinct for image_id in split.image_ids), shutil.disk_usage(folder).free
    notify(f"embedding {needed / 1e9:,.1f} GB of images")
    if needed > free:
        raise MedfmcError(
            f"{needed / 1e9:,.1f} GB are needed and {free / 1e9:,.1f} GB are free: every config holds its own train and validation "
            "images. Give --max-side 512, fewer --subsets, or build without --embed."
        )
