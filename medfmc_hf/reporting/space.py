"""Writes the board as a static Space: the same page, which reads its results from a data set on the Hub when it is opened."""

import os
import re
from pathlib import Path

from ..errors import MedfmcError
from ..files import write_text
from .board import Board
from .page import TITLE, fill, inline_json, part

README = """\
---
title: {title}
emoji: 🩺
colorFrom: blue
colorTo: gray
sdk: static
pinned: false
license: apache-2.0
datasets:
- {records}
short_description: Few-shot adaptation results on MedFMC
---

# {title}

This page reads the results of [{records}](https://huggingface.co/datasets/{records}) when it is opened: `board.json`, which
`medfmc report` makes with intervals and comparisons, and every `run.json` that is not in it yet, which is shown as new, with the spread
over seeds alone.

To add results, open a pull request on the data set with the records of your runs. `run.json` is enough for a row; `predictions.parquet`
adds the test-set interval and the paired comparison, but it holds patient ids and labels of the test images, so this line leaves it out.

    hf upload {records} runs runs --repo-type dataset --create-pr --include "*/run.json"

Its maintainers then renew the board:

    hf download {records} --repo-type dataset --local-dir records
    medfmc report records --out report
    hf upload {records} report/board.json board.json --repo-type dataset

The data set must be public: a static page has no token.
"""


def write_space(folder: str | os.PathLike, records: str, *, endpoint: str = "https://huggingface.co") -> list[Path]:
    """Write `index.html` and `README.md` of the Space.

    Args:
        folder: where to; pushed as it is, it is a Space.
        records: the data set on the Hub, `ORG/NAME`. A visitor can look at another one with `?records=ORG/NAME`.
        endpoint: the Hub.

    Raises:
        MedfmcError: `records` is not a repository id, or the folder holds another Space.
    """
    if not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", records, re.ASCII):
        raise MedfmcError(f"--records takes the id of a data set on the Hub, such as my-lab/medfmc-runs; got {records!r}.")
    folder = Path(folder)
    readme = folder / "README.md"
    if readme.exists() and "`medfmc report`" not in readme.read_text(encoding="utf-8"):
        raise MedfmcError(f"{readme} exists and is not of such a Space; give an empty folder to --space.")
    script = "\n".join([part("page.js"), part("records.js"), "start();", ""])
    source = inline_json({"records": records, "endpoint": endpoint.rstrip("/"), "empty": Board().to_json()})
    html = fill(part("page.html"), title=TITLE, style=part("page.css"), data=source, script=script)
    write_text(folder / "index.html", html)
    write_text(readme, README.format(title=TITLE, records=records))
    return [folder / "index.html", readme]
