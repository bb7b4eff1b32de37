"""Publishes an experiment in one repository: adapters, image processor, one card, scores in the Hub's form, and the run records.

A push adds: runs that the repository holds already stay in it, but for those of the same seeds.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from .. import model_card
from ..errors import MedfmcError
from ..evaluation.experiments import Experiment, Run, experiment_of, group, one_experiment, seedless
from ..files import names_for_paths, sha256_of
from ..hub_answers import explained
from ..models.checkpoint import Checkpoint, find_checkpoint, hub_checkpoint
from ..progress import notify
from ..runs import RunRecord
from ..runs.provenance import marks, unfit_marks
from ..subsets import SEEDS
from ..words import METRICS, is_defined, percent
from .repository import Repository, Upload, check_repo_id, commit, look, open_repository

RESULTS = ".eval_results/medfmc.yaml"
WEIGHTS = ("adapter_model.safetensors", "trained.safetensors")
MARKS = ("run.json", "seed*/run.json", RESULTS)
_PLACE = r"seed\d+(?:-training\d+)?"
_OF_A_RUN = ("run.json", "backbone.json", "adapter_config.json", "preprocessor_config.json", *WEIGHTS)


@dataclasses.dataclass(frozen=True)
class ModelPush:
    """One push of runs. Making it reads the runs; calling it sends.

    One run lies at the root, several in `seed0/`, `seed1/` and so on. Predictions stay at home: they hold the labels of the data set.

    Attributes:
        roots: run folders, or folders of runs.
        repo_id: `ORG/NAME`.
        public: whether a new repository is public.
        overwrite: replace another experiment, or write into a repository that is not ours.
        prune: remove the runs that the repository holds and `roots` do not.
        dataset_id: the data set on the Hub that the scores belong to; `ORG/medfmc` if None.
        base_model: id of the backbone on the Hub, where the runs used a local copy of it.
        all_data: file the scores of runs on invented or incomplete data, too.
    """

    roots: Sequence[str | Path]
    repo_id: str
    public: bool = False
    overwrite: bool = False
    prune: bool = False
    dataset_id: str | None = None
    base_model: str | None = None
    all_data: bool = False

    def __post_init__(self) -> None:
        check_repo_id(self.repo_id)
        if self.dataset_id is None:
            object.__setattr__(self, "dataset_id", f"{self.repo_id.split('/')[0]}/medfmc")
        check_repo_id(self.dataset_id)
        if self.base_model is not None:
            check_repo_id(self.base_model)

    def __call__(self) -> str:
        """Publish. Returns the commit's page.

        Raises:
            MedfmcError: the runs are not of one experiment, have no weights, or the Hub did not take them.
        """
        experiment, base = self._local()
        upload = self._upload_of(experiment)
        repository = open_repository(upload)
        self._fill(upload, experiment, base, repository)
        return commit(repository)

    def preview(self, *, offline: bool = False) -> Upload:
        """What would be sent and removed; nothing is made or sent.

        Args:
            offline: do not look at what the Hub holds, and take `base_model` by its word.
        """
        experiment, base = self._local(check=not offline)
        upload = self._upload_of(experiment)
        self._fill(upload, experiment, base, None if offline else look(upload))
        return upload

    def _upload_of(self, experiment: Experiment) -> Upload:
        return Upload(self.repo_id, "model", {}, f"Add {model_card.title(experiment)}", MARKS, [], self.public, self.overwrite)

    def _local(self, check: bool = True) -> tuple[Experiment, Checkpoint | None]:
        """The runs at hand, and the backbone on the Hub that stands for their local one."""
        experiment = experiment_of(self.roots)
        for run in experiment.runs:
            if model_card.weights_of(run) is None:
                method = run.record.config["method"]
                raise MedfmcError(
                    f"{model_card.adapter_of(run)} has no weights: method {method} leaves none, so there is no model to publish."
                )
            for name in run.record.files:
                run.record.check_file(run.folder, name)
        if self.base_model is None:
            return experiment, None
        return experiment, same_backbone(experiment.record, self.base_model) if check else Checkpoint(self.base_model, Path(), "0" * 40)

    def _fill(self, upload: Upload, experiment: Experiment, base: Checkpoint | None, repository: Repository | None) -> None:
        """Put into the upload what goes, and what leaves, given what the repository holds."""
        there = {} if repository is None else _runs_there(repository)
        own = _published(experiment, base)
        foreign = bool(there) and len(group([*there.values(), *own.runs])[1]) > 1
        if foreign and not self.overwrite:
            record = next(iter(there.values())).record
            name = f"{record.config['method']} on {seedless(record.data['config'])}"
            raise MedfmcError(f"{upload.url} holds another experiment ({name}). Choose another name, or give --overwrite to replace it.")
        places = [place_of(run) for run in own.runs]
        kept = {} if self.prune or foreign else {place: run for place, run in there.items() if place not in places}
        merged = one_experiment([*kept.values(), *own.runs])
        for run in merged.runs:
            place = f"{place_of(run)}/" if len(merged.runs) > 1 else ""
            files = files_there(run) if place_of(run) in kept else files_of(run)
            upload.files |= {f"{place}{name}": file for name, file in files.items()}
        upload.files["README.md"] = model_card.model_card(merged, self.repo_id, self.dataset_id).encode()
        if (why := why_not_filed(merged, self.all_data)) is None:
            upload.files[RESULTS] = eval_results(merged, self.dataset_id).encode()
        else:
            notify(f"no {RESULTS}: {why}")
        paths = [] if repository is None else repository.paths
        sent = [path for path in paths if path.rpartition("/")[2] in _OF_A_RUN and re.fullmatch(rf"({_PLACE}/)?[^/]+", path)]
        upload.removed += [path for path in [*sent, *(path for path in paths if path == RESULTS)] if path not in upload.files]
        gone = sorted(set(there) - {place_of(run) for run in merged.runs})
        if gone:
            notify(f"removed from {upload.url}: {', '.join(gone)}")


def place_of(run: Run) -> str:
    """The folder of a run in a repository that holds several: `seed0`, or `seed0-training100` where it was trained with another seed."""
    return f"seed{run.seed}" + (f"-training{run.training_seed}" if run.training_seed != run.seed else "")


def _published(experiment: Experiment, base: Checkpoint | None) -> Experiment:
    """The experiment as the world may see it: where the backbone lay on this machine is nobody's business."""
    runs = []
    for run in experiment.runs:
        backbone = dict(run.record.backbone)
        if base is not None:
            backbone |= {"name": base.name, "revision": base.commit}
        elif not model_card.backbone_id(run.record):
            backbone |= {"name": Path(backbone.get("name") or run.record.config["model"]).name}
        config = run.record.config | {"model": backbone["name"]}
        record = dataclasses.replace(run.record, config=config, backbone=backbone, data=without_paths(run.record.data))
        runs.append(Run(record, run.folder, run.test))
    return one_experiment(runs)


def without_paths(data: dict) -> dict:
    """The data part of a record whose notes name files and no folders of this machine."""
    return data | {"notes": [names_for_paths(note) for note in data.get("notes") or []]}


def files_there(run: Run) -> dict[str, Path | bytes]:
    """The files of a run that the repository holds already."""
    return {path.name: path for path in sorted(model_card.adapter_of(run).iterdir()) if path.name in _OF_A_RUN}


def files_of(run: Run) -> dict[str, Path | bytes]:
    """The files of a run by their names in the repository; those that name the backbone say what the record says."""
    backbone = run.record.backbone
    renamed = {
        "adapter_config.json": {"base_model_name_or_path": backbone["name"], "revision": backbone.get("revision")},
        "backbone.json": {"model": backbone["name"], "revision": backbone.get("revision")},
    }
    files: dict[str, Path | bytes] = {}
    for path in sorted(model_card.adapter_of(run).iterdir()):
        if path.name in renamed:
            files[path.name] = json_bytes(json.loads(path.read_text(encoding="utf-8")) | renamed[path.name])
        elif path.name in _OF_A_RUN and path.is_file():
            files[path.name] = path
    record = dataclasses.replace(run.record, files={name: hash_of(file) for name, file in files.items()})
    return files | {"run.json": json_bytes(dataclasses.asdict(record))}


def hash_of(file: Path | bytes) -> str:
    """SHA-256 (hex) of what is sent."""
    return hashlib.sha256(file).hexdigest() if isinstance(file, bytes) else sha256_of(file)


def json_bytes(value: object) -> bytes:
    """A JSON file as it is sent."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _runs_there(repository: Repository) -> dict[str, Run]:
    """The runs that a repository holds, by `place_of`."""
    from huggingface_hub import hf_hub_download

    found = {}
    for record_path in repository.paths:
        if not re.fullmatch(rf"({_PLACE}/)?run\.json", record_path):
            continue
        place = record_path.removesuffix("run.json")
        names = [path for path in repository.paths if path.startswith(place) and path.removeprefix(place) in _OF_A_RUN]
        with explained(repository.upload.repo_id, reading=True):
            paths = [Path(hf_hub_download(repository.upload.repo_id, name, revision=repository.sha)) for name in names]
        run = Run(RunRecord.load(next(path for path in paths if path.name == "run.json")), paths[0].parent)
        found[place_of(run)] = run
    return found


def same_backbone(record: RunRecord, repo_id: str) -> Checkpoint:
    """The checkpoint on the Hub that a run's local backbone is a copy of.

    Raises:
        MedfmcError: it is not there, or it is another one.
    """
    from ..models.backbones import same_model

    there = hub_checkpoint(repo_id)
    known = record.backbone.get("sha256") or record.backbone.get("fingerprint")
    if known in (there.content, there.commit, find_checkpoint(str(there.folder)).fingerprint):
        return there
    local = Path(record.backbone.get("name") or record.config["model"])
    if local.is_dir():
        here = find_checkpoint(str(local))
        if known in (here.content, here.fingerprint) and same_model(here, there, record.subset):
            return there  # the same numbers in files of another form
    raise MedfmcError(
        f"{repo_id} on the Hub (commit {there.commit[:12]}) is not the backbone that was adapted: its config or weights differ from those "
        f"of {local.name}. Whoever loaded the model would get other numbers; give the id of the repository that the local copy is from."
    )


def why_not_filed(experiment: Experiment, all_data: bool = False) -> str | None:
    """Why the score is not filed as a result on the Hub; None if it is.

    Args:
        experiment: what is published.
        all_data: file it on whatever data it was obtained.
    """
    words = sorted({words for run in experiment.runs for words in unfit_marks(run.record)})
    if words and not all_data:
        return f"the runs are on images that are {' and '.join(words)} (--all-data files their scores all the same)."
    if experiment.config.dataset_config.seed is not None and set(experiment.seeds) != set(SEEDS):
        held = ", ".join(map(str, experiment.seeds))
        return f"a task's value is the mean of the seeds {SEEDS[0]} to {SEEDS[-1]}, and the repository holds {held}."
    return None


def eval_results(experiment: Experiment, dataset_id: str) -> str:
    """What `.eval_results/medfmc.yaml` says: the score in percent, for the task of this name in the data set's eval.yaml."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    subset = experiment.subset
    main, auc, score = (experiment.estimate(key) for key in (subset.metric, "auc", "score"))
    if score.mean is None:
        raise MedfmcError(f"the score of {experiment.name} is undefined: every class lacks positives or negatives in test.")
    spread = f", sd over seeds {percent(score.sd)}" if is_defined(score.sd) else ""
    apart = "".join(f"; on images that are {words}" for words in marks(experiment.record))
    notes = (
        f"{METRICS[subset.metric]} {percent(main.mean)}, AUC {percent(auc.mean)}, score {percent(score.mean)}{spread}; "
        f"{experiment.config.method}, seeds {', '.join(map(str, experiment.seeds))}, {experiment.config.protocol} protocol{apart}"
    )
    date = max(run.record.finished_at for run in experiment.runs)
    entry = EvalResultEntry(dataset_id, seedless(experiment.name), round(100 * score.mean, 4), date=date, notes=notes)
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True, width=1000)
