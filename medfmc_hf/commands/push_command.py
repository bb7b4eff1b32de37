"""Publish the data set, the metric, a model or run records on the Hub: privately unless --public, by one commit, and only when asked.

    medfmc push dataset medfmc --repo-id ORG/medfmc --i-have-the-rights [--max-side 512]
    medfmc push metric --repo-id ORG/medfm_score
    medfmc push model runs/endo-5shot-seed* --repo-id ORG/vit-lora-endo-5shot
    medfmc push runs runs --repo-id ORG/medfmc-runs

A push adds to what the repository holds, and replaces the same seed, subset or record alone. --dry-run shows every file and its bytes, and
what would be removed, and sends nothing. A push that was interrupted is taken up where it stopped by the same command. The token is that of
`hf auth login`, or HF_TOKEN.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MedfmcError

if TYPE_CHECKING:
    from ..hub.push_dataset import DatasetPush
    from ..hub.push_metric import MetricPush
    from ..hub.push_model import ModelPush
    from ..hub.push_runs import RecordsPush


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    dataset = what.add_parser("dataset", help="a build, with the images inside")
    dataset.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that `medfmc build` made, linked or embedded")
    dataset.add_argument("--i-have-the-rights", action="store_true", help="your word that your licence allows to publish it")
    dataset.add_argument("--max-side", type=int, metavar="N", help="shrink images whose longer side is above N pixels")
    dataset.add_argument("--prune", action="store_true", help="remove the subsets and configs that are there and not in FOLDER")
    metric = what.add_parser("metric", help="medfm_score, as a Space that evaluate.load finds")
    model = what.add_parser("model", help="a run, or the seeds of one experiment, in one repository")
    model.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or folders of runs")
    model.add_argument("--dataset", metavar="ORG/NAME", help="the data set on the Hub of the scores (default: ORG/medfmc)")
    model.add_argument("--base-model", metavar="ORG/NAME", help="the backbone on the Hub, where the runs used a copy of it; compared")
    model.add_argument("--prune", action="store_true", help="remove the seeds that are there and not in RUN")
    model.add_argument("--all-data", action="store_true", help="file scores on invented or incomplete data, too")
    runs = what.add_parser("runs", help="run records, as a data set: for a board, or to bring a sweep home")
    runs.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or folders of runs")
    runs.add_argument("--with-predictions", action="store_true", help="send image ids, patient ids and labels of the test set, too")
    runs.add_argument("--with-adapters", action="store_true", help="send adapters, too")
    for each in (dataset, metric, model, runs):
        each.add_argument("--repo-id", required=True, metavar="ORG/NAME", help="the repository")
        each.add_argument("--public", action="store_true", help="make a new repository public (default: private)")
        each.add_argument("--overwrite", action="store_true", help="write into a repository that holds something else; its files stay")
        each.add_argument("--dry-run", action="store_true", help="show what would be sent and removed, and send nothing")
        each.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="no progress bars and no messages")


def run(args: argparse.Namespace) -> None:
    from huggingface_hub.utils import disable_progress_bars

    if args.quiet:
        disable_progress_bars()
    push = _push_of(args)
    if not args.dry_run:
        print(push())
        return
    try:
        upload, unseen = push.preview(), None
    except MedfmcError as error:
        upload, unseen = push.preview(offline=True), error
    print(upload.tree())
    if args.what == "dataset" and args.max_side:
        print("Bytes are those of the images before they are shrunk.")
    if args.what == "dataset" and not args.i_have_the_rights:
        from ..hub.push_dataset import RIGHTS

        print(f"To publish it: {RIGHTS}")
    if unseen:
        print(f"What the repository holds was not looked at, so what would be replaced or removed is not known: {unseen}", file=sys.stderr)


def _push_of(args: argparse.Namespace) -> "DatasetPush | MetricPush | ModelPush | RecordsPush":
    """The push that the arguments ask for: call it to send, `preview` it to see."""
    common: dict[str, Any] = {"repo_id": args.repo_id, "public": args.public, "overwrite": args.overwrite}
    if args.what == "dataset":
        from ..hub.push_dataset import DatasetPush

        return DatasetPush(args.folder, rights=args.i_have_the_rights, max_side=args.max_side, prune=args.prune, **common)
    if args.what == "metric":
        from ..hub.push_metric import MetricPush

        return MetricPush(**common)
    if args.what == "runs":
        from ..hub.push_runs import RecordsPush

        return RecordsPush(args.runs, predictions=args.with_predictions, adapters=args.with_adapters, **common)
    from ..hub.push_model import ModelPush

    return ModelPush(args.runs, dataset_id=args.dataset, base_model=args.base_model, prune=args.prune, all_data=args.all_data, **common)
