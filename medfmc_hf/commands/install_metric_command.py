"""Make evaluate.load("medfm_score") work by its bare name, in every process of this user.

evaluate keeps the code of metrics in its module cache (below HF_HOME). The metric is put there once; a second call changes nothing.
"""

import argparse

from .. import metric


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--space", metavar="FOLDER", help="write the metric's Space, ready to be uploaded, into this new folder instead")


def run(args: argparse.Namespace) -> None:
    if args.space:
        print(metric.write_space(args.space))
    else:
        print(metric.install())
