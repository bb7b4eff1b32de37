"""Audit a build: counts, repeats, and overlap of train, validation and test.

Reads the folder as load_dataset does, without opening an image unless --images is given. Per config: rows, patients, positives of each
class, repeated rows, and what the splits share by image, by patient and, for colon, by scan. What the official lists entail is said as
such; a mistake ends with exit status 1: an overlap that must not be, rows that are not those that were built, a linked image that is gone.

  medfmc check                       the build in ./medfmc
  medfmc check medfmc --json         the same for a program
  medfmc check medfmc --images       and whether every image is the one that was built from
"""

import argparse
import json

_COLUMNS = "{:<30} {:<11} {:>6} {:>8} {:>8} {:>7}  {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `medfmc check`."""
    parser.add_argument("folder", nargs="?", default="medfmc", help="a folder made by medfmc build (default: medfmc)")
    parser.add_argument("--images", action="store_true", help="also read every image, and compare it with its digest from the build")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report. Returns 1 if there is a mistake, else 0."""
    from ..data.audit import check_build, remarks_of
    from ..words import first_few

    report = check_build(args.folder, images=args.images)
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
        return 1 if report.all_mistakes else 0
    print(_COLUMNS.format("config", "split", "rows", "repeats", "patients", "no find.", "positives of each class"))
    for audit in report.configs:
        for name, split in audit.splits.items():
            finding = "" if split.without_finding is None else split.without_finding
            positives = " ".join(map(str, split.positives)) if split.unlabelled < split.rows else "unlabelled"
            print(_COLUMNS.format(audit.config, name, split.rows, split.repeats, split.patients, finding, positives))
        for overlap in audit.overlaps:
            if overlap.images or overlap.patients or overlap.scans:
                scans = "" if overlap.scans is None else f", {overlap.scans} scans"
                print(
                    f"{audit.config:<30} {' and '.join(overlap.splits)} share {overlap.images} images, {overlap.patients} patients{scans}"
                )
    if remarks := remarks_of(report.configs):
        print("\nBy design:")
    for remark, configs in remarks.items():
        print(f"  {first_few(configs, 1)}: {remark}")
    mistakes = report.all_mistakes
    if mistakes:
        print(f"\n{len(mistakes)} mistakes:")
        print("\n".join(f"  {mistake}" for mistake in mistakes))
        return 1
    print(f"\nNo mistakes in {len(report.configs)} configs.")
    return 0
