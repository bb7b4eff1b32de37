"""Challenge submissions: reading and scoring any of them, and writing them from runs. `submission_check` says whether one is valid."""

import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from .. import tables
from ..data.label_tables import Label, image_id_of
from ..errors import MedfmcError
from ..files import atomic_path
from ..runs import RunRecord, load_predictions
from ..subsets import SEEDS, SUBSETS, ConfigName
from ..words import first_few
from .challenge import Place, check_alike, place_of, places, title
from .scored import Scored, has_header, of_submission

Phase = Literal["validation", "final"]
DECIMALS = 8
_SPLIT = {"validation": "validation", "final": "test"}  # of the config `<subset>-challenge`
_FILE = re.compile(r"(?:exp(\d+)/)?(chest|colon|endo)_(\d+)-shot_submission\.csv")


@dataclass
class Submission:
    """The files of a submission as they are.

    Attributes:
        source: where it came from.
        phase: `final` if its files lie in folders exp1 to exp5, else `validation`.
        files: rows of cells by place; the seed is None in the validation phase.
        problems: what the challenge would not accept, one sentence each.
        notes: what is odd but would not matter.
    """

    source: Path
    phase: Phase
    files: dict[Place, list[list[str]]]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def file_name(place: Place) -> str:
    """Such as `endo_5-shot_submission.csv` or `exp2/endo_5-shot_submission.csv`."""
    seed, subset, shots = place
    return ("" if seed is None else f"exp{seed + 1}/") + f"{subset}_{shots}-shot_submission.csv"


def read(path: str | os.PathLike) -> Submission:
    """Read a submission: a zip, or the folder that is in it (or that holds it).

    Raises:
        MedfmcError: it is neither, or holds no CSV of a submission at all.
    """
    path = Path(path)
    contents, shape = _zip_contents(path) if path.is_file() else _folder_contents(path)
    found, strange = {}, []
    for name, content in contents.items():
        match = _FILE.fullmatch(name)
        if match and match[3] in ("1", "5", "10") and (match[1] is None or match[1] in "12345"):
            found[(int(match[1]) - 1 if match[1] else None, match[2], int(match[3]))] = content
        else:
            strange.append(name)
    if not found:
        raise MedfmcError(f"{path} holds no file like result/{file_name((None, 'endo', 5))}; it has {first_few(strange or ['nothing'])}.")
    phase: Phase = "final" if any(seed is not None for seed, _, _ in found) else "validation"
    submission = Submission(path, phase, {}, shape)
    if strange:
        submission.problems.append(f"unexpected files: {first_few(strange)}. A submission holds nothing but its CSV files.")
    for place, content in sorted(found.items(), key=lambda item: file_name(item[0])):
        if phase == "final" and place[0] is None:
            submission.problems.append(f"{file_name(place)} lies beside the folders exp1 to exp5; in the final phase every file is in one.")
            continue
        try:
            table = tables.parse(Path(file_name(place)), content)
        except MedfmcError as error:
            submission.problems.append(str(error))
            continue
        submission.files[place] = rows = [cells for _, cells in table.lines]
        if table.encoding != "utf-8":
            submission.problems.append(f"{file_name(place)} is not UTF-8 text.")
        elif table.separator != ",":
            first = table.separator.join(next(filter(None, rows), []))
            submission.problems.append(f"{file_name(place)} is not separated by commas: its first row is {first[:60]!r}.")
    return submission


def _zip_contents(path: Path) -> tuple[dict[str, bytes], list[str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            files = {name: archive.read(name) for name in names if not _is_junk(name)}
    except (zipfile.BadZipFile, OSError) as error:
        raise MedfmcError(f"{path} is not a zip that can be read ({error}); expected result.zip or the folder in it.") from None
    tops = {PurePosixPath(name).parts[0] for name in files}
    if len(tops) == 1 and all("/" in name for name in files) and not re.fullmatch(r"exp\d", next(iter(tops))):
        return {name.split("/", 1)[1]: content for name, content in files.items()}, []
    problem = "the files lie at the top of the zip; the challenge expects one folder, result/, around them."
    return files, [problem]


def _folder_contents(path: Path) -> tuple[dict[str, bytes], list[str]]:
    if not path.is_dir():
        raise MedfmcError(f"{path} does not exist; expected result.zip or the folder in it.")
    if not any(path.glob("*.csv")) and not any(path.glob("exp*")) and (path / "result").is_dir():
        path = path / "result"
    files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    return {name: file.read_bytes() for name, file in files.items() if not _is_junk(name)}, []


def _is_junk(name: str) -> bool:
    """What archivers of desktop systems leave behind."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or parts[-1] in (".DS_Store", "Thumbs.db")


def challenge_order(data: str | os.PathLike, phase: Phase, subset: str) -> list[str]:
    """The image names of a subset in the order of a submission's rows, from the config `<subset>-challenge` of a build.

    Raises:
        MedfmcError: the build lacks the config or, for the final phase, the challenge's test images.
    """
    from ..data.loading import load_splits

    splits = load_splits(data, ConfigName(subset, variant="challenge"))
    if _SPLIT[phase] not in splits:
        raise MedfmcError(
            f"{data} has no images of the {phase} phase for {subset}: its {subset}-challenge has {', '.join(splits)}. "
            "Build again from a download that has the images of MedFMC_test."
        )
    return [f"{image_id}.png" for image_id in splits[_SPLIT[phase]]["image_id"]]


def scored_files(submission: Submission, labels: Mapping[str, Mapping[str, Label]]) -> dict[Place, Scored]:
    """The files of a submission with labels, ready to be scored.

    Args:
        submission: as `read` returns it.
        labels: labels by image id, by subset key; files of other subsets are left out.

    Raises:
        MedfmcError: a file cannot be read or names images without label.
    """
    scored = {}
    for place, rows in submission.files.items():
        if place[1] not in labels:
            continue
        name = submission.source / file_name(place)
        lines = [(line, cells) for line, cells in enumerate(rows, 1) if cells]
        if not lines or has_header(lines[0][1]):
            raise MedfmcError(f"{name} has a header or no scores; `medfmc submission check {submission.source}` says all that is wrong.")
        scored[place] = of_submission(name, lines, SUBSETS[place[1]], labels[place[1]])
    return scored


def write(
    runs: list[tuple[Path, RunRecord]], phase: Phase, data: str | os.PathLike, out: str | os.PathLike, seed: int | None = None
) -> Path:
    """Write the challenge's zip from runs: `result/`, one CSV per file of the phase, probabilities with 8 decimals, no header.

    Args:
        runs: finished few-shot runs of one method, as `find_runs` yields them.
        phase: `validation` takes one seed, `final` all five.
        data: the build that holds `<subset>-challenge`, which gives the order of the rows.
        out: path of the zip; must not exist.
        seed: the one to submit in the validation phase; None where the runs have but one.

    Raises:
        MedfmcError: runs are missing or ambiguous, or lack predictions of an image; nothing is written.
    """
    out = Path(out)
    if out.exists():
        raise MedfmcError(f"{out} exists already; give another --out, or remove it.")
    chosen = _choose(runs, phase, seed)
    order = {subset: challenge_order(data, phase, subset) for subset in dict.fromkeys(subset for _, subset, _ in chosen)}
    files = {file_name(place): _csv(folder, order[place[1]], phase) for place, folder in chosen.items()}
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(f"result/{name}"), text, zipfile.ZIP_DEFLATED)  # no date: the same runs make the same zip
    return out


def _choose(runs: list[tuple[Path, RunRecord]], phase: Phase, seed: int | None) -> dict[Place, Path]:
    """The run for each file of the submission."""
    candidates: dict[Place, list[Path]] = {}
    check_alike(record for _, record in runs if record.status == "finished" and record.subset.challenge)
    for folder, record in runs:
        if (place := place_of(record)) is not None:
            candidates.setdefault(place, []).append(folder)
    known = sorted({place[0] for place in candidates if place[0] is not None})
    if phase == "validation" and seed is None and len(known) > 1:
        raise MedfmcError(f"the runs have the seeds {', '.join(map(str, known))}; the validation phase takes one: choose it with --seed.")
    wanted = places(SEEDS if phase == "final" else (next(iter(known), None) if seed is None else seed,))
    absent = [title(place) for place in wanted if place not in candidates]
    if absent:
        raise MedfmcError(f"{len(absent)} of {len(wanted)} runs are missing: {first_few(absent, 45)}.")
    for place in wanted:
        if len(candidates[place]) > 1:
            raise MedfmcError(
                f"{len(candidates[place])} runs are of {title(place)}: {first_few(candidates[place])}; a submission is of one method: "
                "give a folder that holds the runs of one."
            )
    return {(place[0] if phase == "final" else None, *place[1:]): candidates[place][0] for place in wanted}


def _csv(folder: Path, order: list[str], phase: Phase) -> str:
    """The text of one file: the run's probabilities in the order of the rows."""
    splits = {"validation": ("challenge-validation", "test"), "final": ("challenge-test",)}[phase]
    problem = ""
    for split in splits:
        try:
            predictions = load_predictions(folder, split)
        except MedfmcError as error:
            problem = problem or str(error)
            continue
        row_of = {str(image_id): row for row, image_id in enumerate(predictions.image_ids)}
        lost = [name for name in order if image_id_of(name) not in row_of]
        if not lost:
            probabilities = predictions.probabilities[[row_of[image_id_of(name)] for name in order]].tolist()
            return "".join(f"{name},{','.join(f'{p:.{DECIMALS}f}' for p in values)}\n" for name, values in zip(order, probabilities))
        problem = f"{folder} has no prediction of {len(lost)} of the {len(order)} images in split {split!r}, such as {lost[0]}."
    raise MedfmcError(f"{problem}\nA run with predict_challenge=true predicts the images of both phases.")
