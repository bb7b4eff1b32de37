"""Publish a dataset folder on the Hub with embedded images; privately unless --public, and only with your confirmation.

    python dataset_scripts/publish.py medfmc --repo-id ORG/medfmc --i-have-the-rights

This is `medfmc push dataset` as a script; medfmc_hf.hub.push_dataset.DatasetPush does the work.
"""

import sys

from medfmc_hf.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["push", "dataset", *sys.argv[1:]]))
