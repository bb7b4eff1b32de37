"""Writes the board as one HTML page that needs nothing else: no server, no network, no other file."""

import json
import re
from importlib.resources import files
from typing import Any

TITLE = "MedFMC results"


def part(name: str) -> str:
    """The text of a file of `static/`."""
    return (files("medfmc_hf.reporting") / "static" / name).read_text(encoding="utf-8")


def inline_json(value: Any) -> str:
    """JSON that may stand inside a `<script>`: nothing in it can end the element or open another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def fill(template: str, **parts: str) -> str:
    """Put `parts` in the places of a template that are called `{{name}}`, once, so that no part is searched for places."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def to_html(data: dict[str, Any]) -> str:
    """The page of `Board.to_json()`, with `figures` of `medfmc_hf.reporting.plots.page_figures`."""
    script = part("page.js") + '\nrender(JSON.parse(document.getElementById("data").textContent));\n'
    return fill(part("page.html"), title=TITLE, style=part("page.css"), data=inline_json(data), script=script)
