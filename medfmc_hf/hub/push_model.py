"""Publishes an experiment in one repository: adapters, image processor, model card, scores in the Hub's format, and run records.

Runs that the repository already holds stay in it, except those with the same seeds.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import model_card
from ..adapter_files import ORIGIN, PEFT_CONFIG, WEIGHTS
from ..errors import MedfmcError
from ..evaluation.experiments import Experiment, Run, experiment_of, group, one_experiment, seedless
from ..files import names_for_paths, sha256_of
from ..hub_answers import explained
from ..models.checkpoint import Checkpoint, find_checkpoint, hub_checkpoint
from ..progress import notify
from ..runs import RunRecord
from ..runs.provenance import marks, unfit_marks
from ..saved_models import adapter_of, backbone_id, subfolder_of, weights_of
from ..subsets import SEEDS
from ..words import METRICS, is_defined, percent
from .repository import File, Repository, Upload, check_repo_id, commit, look, open_repository

RESULTS = ".eval_results/medfmc.yaml"
MARKS = ("run.json", "seed*/run.json", RESULTS)
_PLACE = r"seed\d+(?:-training\d+)?"
_OF_A_RUN = ("run.json", ORIGIN, "config.json", PEFT_CONFIG, "preprocessor_config.json", *WEIGHTS)
_OF_A_PUSH = re.compile(rf"({_PLACE}/)?({'|'.join(map(re.escape, _OF_A_RUN))})|{re.escape(RESULTS)}")


@dataclasses.dataclass(frozen=True)
class ModelPush:
    """One push of runs. Calling it sends.

    One run is published at the root, several in `seed0/`, `seed1/` and so on. Predictions are not sent: they hold labels of the data set.

    Attributes:
        roots: run folders, or folders of runs.
        repo_id: `ORG/NAME`.
        public: whether a new repository is public.
        overwrite: whether to replace another experiment, or write into a repository not made by medfmc.
        prune: whether to remove the runs that the repository holds and `roots` do not.
        dataset_id: data set on the Hub that the scores belong to; `ORG/medfmc` if None.
        base_model: id of the backbone on the Hub, if the runs used a local copy of it.
        all_data: whether to file the scores of runs on invented or incomplete data, too.
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
        for repo_id in (self.repo_id, self.scores_belong_to, self.base_model):
            if repo_id is not None:
                check_repo_id(repo_id)

    @property
    def scores_belong_to(self) -> str:
        """Id of the data set on the Hub."""
        return f"{self.repo_id.split('/')[0]}/medfmc" if self.dataset_id is None else self.dataset_id

    def __call__(self) -> str:
        """Publish. Returns the commit's URL.

        Raises:
            MedfmcError: the runs are not of one experiment, have no weights, or the Hub rejected the push.
        """
        own = self._own()
        upload = self._upload_of(own)
        repository = open_repository(upload)
        self._fill(upload, own, repository)
        return commit(repository)

    def preview(self, *, offline: bool = False) -> Upload:
        """List what would be sent and removed, without creating or sending anything.

        Args:
            offline: whether to skip looking at the Hub, and not to verify `base_model`.
        """
        own = self._own(check=not offline)
        upload = self._upload_of(own)
        self._fill(upload, own, None if offline else look(upload))
        return upload

    def _upload_of(self, own: Experiment) -> Upload:
        return Upload(self.repo_id, "model", {}, f"Add {model_card.title(own)}", MARKS, [], self.public, self.overwrite)

    def _own(self, check: bool = True) -> Experiment:
        """The local runs, with records as published.

        Args:
            check: whether to compare their backbone with `base_model`.
        """
        experiment = experiment_of(self.roots)
        for run in experiment.runs:
            if run.folder is None or weights_of(run) is None:
                raise MedfmcError(f"{adapter_of(run)} has no weights, so there is no model to publish; run it again with this version.")
            for name in run.record.files:
                run.record.check_file(run.folder, name)
        base = None
        if self.base_model is not None:
            base = same_backbone(experiment.record, self.base_model) if check else Checkpoint(self.base_model, Path(), "0" * 40)
        return one_experiment([dataclasses.replace(run, record=published_record(run.record, base)) for run in experiment.runs])

    def _fill(self, upload: Upload, own: Experiment, repository: Repository | None) -> None:
        """Add to the upload the files to send and the paths to remove, given what the repository holds."""
        there = {} if repository is None else _runs_there(repository)
        remaining = self._remaining(own, there, upload)
        merged = one_experiment([*remaining.values(), *own.runs])
        for run in merged.runs:
            place = f"{subfolder_of(run)}/" if len(merged.runs) > 1 else ""
            files = _stored(run) if subfolder_of(run) in remaining else files_of(run)
            upload.files |= {f"{place}{name}": file for name, file in files.items()}
        upload.files["README.md"] = model_card.model_card(merged, self.repo_id, self.scores_belong_to).encode()
        if (why := why_not_filed(merged, self.all_data)) is None:
            upload.files[RESULTS] = eval_results(merged, self.scores_belong_to).encode()
        else:
            notify(f"no {RESULTS}: {why}")
        paths = [] if repository is None else repository.paths
        upload.removed = [path for path in paths if _OF_A_PUSH.fullmatch(path) and path not in upload.files]
        gone = sorted(set(there) - {subfolder_of(run) for run in merged.runs})
        if gone:
            notify(f"removed from {upload.url}: {', '.join(gone)}")

    def _remaining(self, own: Experiment, there: dict[str, Run], upload: Upload) -> dict[str, Run]:
        """The runs of the repository that stay, by `subfolder_of`.

        Raises:
            MedfmcError: they are of another experiment, and `overwrite` is false.
        """
        foreign = bool(there) and len(group([*there.values(), *own.runs])[1]) > 1
        if foreign and not self.overwrite:
            record = next(iter(there.values())).record
            name = f"{record.config['method']} on {seedless(record.data['config'])}"
            raise MedfmcError(f"{upload.url} holds another experiment ({name}). Choose another name, or give --overwrite to replace it.")
        if foreign or self.prune:
            return {}
        replaced = {subfolder_of(run) for run in own.runs}
        return {place: run for place, run in there.items() if place not in replaced}


def published_record(record: RunRecord, base: Checkpoint | None = None) -> RunRecord:
    """A record for publication, without folders of this machine. Of a local backbone only the name is kept, of an error the last line.

    Args:
        record: record of a run, finished or not.
        base: backbone on the Hub that replaces the local one; None to keep it.
    """
    backbone = dict(record.backbone)
    if base is not None:
        backbone |= {"name": base.name, "revision": base.commit}
    elif not backbone_id(record):
        backbone["name"] = Path(backbone.get("name") or record.config["model"]).name
    config = record.config | {"model": backbone["name"]}
    error = record.error and names_for_paths(record.error.strip().splitlines()[-1])
    data = record.data | {"notes": [names_for_paths(note) for note in record.data.get("notes") or []]}
    return dataclasses.replace(record, config=config, backbone=backbone, error=error, data=data)


def _stored(run: Run) -> dict[str, Path]:
    """The local files of a run that are published, by name."""
    folder = adapter_of(run)
    return {} if folder is None else {path.name: path for path in sorted(folder.iterdir()) if path.name in _OF_A_RUN and path.is_file()}


def files_of(run: Run) -> dict[str, File]:
    """The files of a run by their names in the repository; those that name the backbone agree with the record."""
    backbone = run.record.backbone
    renamed = {
        PEFT_CONFIG: {"base_model_name_or_path": backbone["name"], "revision": backbone.get("revision")},
        ORIGIN: {"model": backbone["name"], "revision": backbone.get("revision")},
    }
    files: dict[str, File] = {}
    for name, path in _stored(run).items():
        if name in renamed:
            files[name] = json_bytes(json.loads(path.read_text(encoding="utf-8")) | renamed[name])
        elif name != "run.json":
            files[name] = path
    return files | {"run.json": record_json(run.record, files)}


def record_json(record: RunRecord, files: Mapping[str, File]) -> bytes:
    """`run.json` as published, with the SHA-256 of the run's other files."""
    hashes = {name: hashlib.sha256(file).hexdigest() if isinstance(file, bytes) else sha256_of(Path(file)) for name, file in files.items()}
    return json_bytes(dataclasses.asdict(dataclasses.replace(record, files=hashes)))


def json_bytes(value: object) -> bytes:
    """A JSON file as published."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _runs_there(repository: Repository) -> dict[str, Run]:
    """The runs that a repository holds, by `subfolder_of`."""
    from huggingface_hub import hf_hub_download

    found = {}
    for path in repository.paths:
        if not re.fullmatch(rf"({_PLACE}/)?run\.json", path):
            continue
        names = [name for name in (path.replace("run.json", name) for name in _OF_A_RUN) if name in repository.paths]
        with explained(repository.upload.repo_id, reading=True):
            # File by file: `snapshot_download` may skip files that it cannot reach, and files missing here would be removed there.
            folders = [Path(hf_hub_download(repository.upload.repo_id, name, revision=repository.sha)).parent for name in names]
        run = Run(RunRecord.load(folders[0]), folders[0])
        found[subfolder_of(run)] = run
    return found


def same_backbone(record: RunRecord, repo_id: str) -> Checkpoint:
    """The checkpoint on the Hub of which a run's local backbone is a copy.

    Raises:
        MedfmcError: it does not exist, or it is another one.
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
            return there  # the same weights in another file format
    raise MedfmcError(
        f"{repo_id} on the Hub (commit {there.fingerprint[:12]}) is not the backbone that was adapted: its config or weights differ from "
        f"those of {local.name}. The published model would give other results; give the id of the repository that the local copy is "
        "from."
    )


def why_not_filed(experiment: Experiment, all_data: bool = False) -> str | None:
    """Why the score is not filed as a result on the Hub; None if it is.

    Args:
        experiment: experiment to publish.
        all_data: whether to file scores on invented or incomplete data.
    """
    words = sorted({words for run in experiment.runs for words in unfit_marks(run.record)})
    if words and not all_data:
        return f"the runs are on images that are {' and '.join(words)} (--all-data files their scores anyway)."
    if experiment.config.dataset_config.seed is not None and set(experiment.seeds) != set(SEEDS):
        held = ", ".join(map(str, experiment.seeds))
        return f"a task's value is the mean of the seeds {SEEDS[0]} to {SEEDS[-1]}, and the repository holds {held}."
    return None


def eval_results(experiment: Experiment, dataset_id: str) -> str:
    """Content of `.eval_results/medfmc.yaml`: the score in percent, for the task of this name in the data set's eval.yaml."""
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
        f"{experiment.config.method}, {experiment.listed_seeds}, {experiment.config.protocol} protocol{apart}"
    )
    date = max(run.record.finished_at for run in experiment.runs)
    entry = EvalResultEntry(dataset_id, seedless(experiment.name), round(100 * score.mean, 4), date=date, notes=notes)
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True, width=1000)
