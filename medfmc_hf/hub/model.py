"""Publishes an experiment in one repository: adapters, image processor, one card, scores in the Hub's form, and the run records."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from ..errors import MedfmcError
from ..publish import cards
from ..publish.experiment import Draw, Experiment, experiment_of, seedless, setting_of
from ..runs import RunRecord
from .errors import explained
from .repository import Repository, Upload, check_repo_id, commit, open_repository

MARK = ".eval_results/medfmc.yaml"
WEIGHTS = ("adapter_model.safetensors", "trained.safetensors")
_OWNED = ("seed?/*", "run.json", "backbone.json", "adapter_config.json", "preprocessor_config.json", *WEIGHTS)


def push_model(
    roots: Sequence[str | Path],
    repo_id: str,
    *,
    public: bool = False,
    overwrite: bool = False,
    dataset_id: str | None = None,
    base_model: str | None = None,
) -> str:
    """Publish a run, or the draws of one experiment. Returns the commit's page.

    Args:
        roots: run folders, or folders of runs.
        repo_id: `ORG/NAME`.
        public: whether a new repository is public.
        overwrite: write into a repository that holds something else.
        dataset_id: the data set on the Hub that the scores belong to; `ORG/medfmc` if None.
        base_model: id of the backbone on the Hub, where the runs used a local copy of it.

    Raises:
        MedfmcError: the runs are not of one experiment, have no weights, or the Hub did not take them.
    """
    upload = model_upload(roots, repo_id, public=public, overwrite=overwrite, dataset_id=dataset_id, base_model=base_model)
    repository = open_repository(upload)
    if not overwrite:
        _refuse_another_experiment(repository, experiment_of(roots))
    return commit(repository)


def model_upload(
    roots: Sequence[str | Path],
    repo_id: str,
    *,
    public: bool = False,
    overwrite: bool = False,
    dataset_id: str | None = None,
    base_model: str | None = None,
) -> Upload:
    """The files of the repository, without touching the network. The arguments are those of `push_model`.

    One run lies at the root, several in `seed0/`, `seed1/` and so on. Predictions stay at home: they hold the labels of the data set.
    """
    check_repo_id(repo_id)
    dataset_id = dataset_id or f"{repo_id.split('/')[0]}/medfmc"
    check_repo_id(dataset_id)
    experiment = experiment_of(roots)
    public_name = base_model or cards.backbone_id(experiment.record) or Path(experiment.config.model).name
    files: dict[str, str | Path | bytes] = {}
    draws = []
    for draw in experiment.draws:
        folder = f"seed{draw.seed}/" if len(experiment.draws) > 1 else ""
        record = _with_backbone(draw.record, public_name)
        files |= {f"{folder}{name}": content for name, content in _adapter(draw, public_name).items()}
        files[f"{folder}run.json"] = _json(dataclasses.asdict(record))
        draws.append(Draw(record, draw.test, draw.folder))
    experiment = Experiment(tuple(draws))
    files["README.md"] = cards.model_card(experiment, repo_id, dataset_id).encode()
    files[MARK] = eval_results(experiment, dataset_id).encode()
    return Upload(repo_id, "model", files, f"Add {cards.title(experiment)}", MARK, _OWNED, public, overwrite)


def eval_results(experiment: Experiment, dataset_id: str) -> str:
    """What `.eval_results/medfmc.yaml` says: the score in percent, for the task of this name in the data set's eval.yaml."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    subset = experiment.subset
    main, auc, score = (experiment.number(key).draws for key in (subset.metric, "auc", "score"))
    if math.isnan(score.mean):
        raise MedfmcError(f"the score of {experiment.name} is undefined: every class lacks positives or negatives in test.")
    spread = "" if math.isnan(score.sd) else f", sd over draws {cards.percent(score.sd)}"
    notes = (
        f"{cards.METRICS[subset.metric]} {cards.percent(main.mean)}, AUC {cards.percent(auc.mean)}, "
        f"score {cards.percent(score.mean)}{spread}; "
        f"{experiment.config.method}, seeds {', '.join(map(str, experiment.seeds))}, {experiment.config.protocol} protocol"
    )
    date = max(draw.record.finished_at for draw in experiment.draws)
    entry = EvalResultEntry(dataset_id, seedless(experiment.name), round(100 * score.mean, 4), date=date, notes=notes)
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True, width=1000)


def _adapter(draw: Draw, backbone: str) -> dict[str, Path | bytes]:
    """The files of a run's `adapter/`, with the backbone's public name in place of a path of this machine."""
    folder = draw.folder / "adapter"
    if draw.weights is None:
        raise MedfmcError(f"{folder} has no weights: method {draw.record.config['method']} leaves none, so there is no model to publish.")
    files: dict[str, Path | bytes] = {}
    for path in sorted(folder.iterdir()):
        if path.name == "adapter_config.json":
            files[path.name] = _json(json.loads(path.read_text()) | {"base_model_name_or_path": backbone})
        elif path.name == "backbone.json":
            files[path.name] = _json(json.loads(path.read_text()) | {"model": backbone})
        elif path.is_file() and path.name != "README.md":
            files[path.name] = path
    return files


def _with_backbone(record: RunRecord, name: str) -> RunRecord:
    """The record as the world may see it: where the backbone lay on this machine is nobody's business."""
    return dataclasses.replace(record, config=record.config | {"model": name}, backbone=record.backbone | {"name": name})


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _refuse_another_experiment(repository: Repository, experiment: Experiment) -> None:
    """A repository of ours is updated only with draws of the experiment it holds."""
    from huggingface_hub import HfApi

    record = next((path for path in repository.paths if path.rpartition("/")[2] == "run.json"), None)
    if record is None:
        return
    with explained(repository.upload.repo_id):
        there = RunRecord.load(HfApi().hf_hub_download(repository.upload.repo_id, record))
    if setting_of(there) != setting_of(experiment.record):
        there_name = f"{there.config['method']} on {seedless(there.data['config'])}"
        raise MedfmcError(
            f"{repository.upload.url} holds another experiment ({there_name}). Choose another name, or give --overwrite to replace it."
        )
