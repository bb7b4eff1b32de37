"""Publish the data set, the metric or a model on the Hub: privately unless --public, by one commit, and only when asked.

    medfmc push dataset medfmc --repo-id ORG/medfmc --i-have-the-rights [--max-side 512]
    medfmc push metric --repo-id ORG/medfm_score
    medfmc push model runs/endo-5shot-seed* --repo-id ORG/vit-lora-endo-5shot

--dry-run shows every file and its bytes and sends nothing. A push that was interrupted is taken up where it stopped by the same command.
The token is that of `hf auth login`, or HF_TOKEN.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    dataset = what.add_parser("dataset", help="a build, with the pictures inside")
    dataset.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that `medfmc build` made, linked or embedded")
    dataset.add_argument("--i-have-the-rights", action="store_true", help="your word that your licence allows to publish it")
    dataset.add_argument("--max-side", type=int, metavar="N", help="shrink pictures whose longer side is above N pixels")
    what.add_parser("metric", help="medfm_score, as a Space that evaluate.load finds")
    model = what.add_parser("model", help="a run, or the draws of one experiment in one repository")
    model.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or folders of runs")
    model.add_argument("--dataset", metavar="ORG/NAME", help="the data set on the Hub of the scores (default: ORG/medfmc)")
    model.add_argument("--base-model", metavar="ORG/NAME", help="the backbone's id on the Hub, where the runs used a local copy")
    for each in (dataset, what.choices["metric"], model):
        each.add_argument("--repo-id", required=True, metavar="ORG/NAME", help="the repository")
        each.add_argument("--public", action="store_true", help="make a new repository public (default: private)")
        each.add_argument("--overwrite", action="store_true", help="write into a repository that holds something else")
        each.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")
        each.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="no progress bars and no messages")


def run(args: argparse.Namespace) -> None:
    from huggingface_hub.utils import disable_progress_bars

    from ..hub.repository import tree_of

    if args.quiet:
        disable_progress_bars()
    common = {"public": args.public, "overwrite": args.overwrite}
    if args.what == "dataset":
        from ..hub.dataset import RIGHTS, DatasetPush

        push = DatasetPush(args.folder, args.repo_id, rights=args.i_have_the_rights, max_side=args.max_side, **common)
        if not args.dry_run:
            print(push())
            return
        print(tree_of(push.sizes(), args.repo_id, "dataset", args.public))
        if args.max_side:
            print("Bytes are those of the pictures before they are shrunk.")
        if not args.i_have_the_rights:
            print(f"To publish it: {RIGHTS}")
    else:
        if args.what == "metric":
            from ..hub.metric import metric_upload, push_metric

            arguments, upload_of, push = (args.repo_id,), metric_upload, push_metric
        else:
            from ..hub.model import model_upload, push_model

            arguments, upload_of, push = (args.runs, args.repo_id), model_upload, push_model
            common |= {"dataset_id": args.dataset, "base_model": args.base_model}
        if not args.dry_run:
            print(push(*arguments, **common))
            return
        upload = upload_of(*arguments, **common)
        print(tree_of(upload.sizes(), args.repo_id, upload.kind, args.public))
