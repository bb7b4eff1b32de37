"""Publish a dataset folder on the Hub, with the images inside; privately unless --public, and only with your word.

    python dataset_scripts/publish.py medfmc --repo-id ORG/medfmc --i-have-the-rights

It is `medfmc push dataset` as a script: the work is medfmc_hf.hub.push_dataset.DatasetPush.
"""

import sys

from medfmc_hf.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["push", "dataset", *sys.argv[1:]]))
