"""What a run saved: which weights its folder holds, which library loads them, and the lines that do."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .adapter_files import HEAD, OUR_PEFT_TYPES, PEFT_CONFIG, PEFT_WEIGHTS, TRAINED, WHOLE
from .evaluation.experiments import Experiment, Run, short_name
from .runs import RunRecord

Weights = Literal["peft", "head", "whole", "plain"]
_FILES: dict[str, Weights] = {PEFT_WEIGHTS: "peft", HEAD: "head", WHOLE: "whole", TRAINED: "plain"}
_HELD = {
    "peft": "an adapter in PEFT's format and the head; the backbone is not among them",
    "head": "the head that was fitted; the backbone is not among them",
    "whole": "those of the whole model",
    "plain": "all that was trained; the rest of the backbone is not among them",
}


def adapter_of(run: Run) -> Path | None:
    """The folder of a run's weights: `adapter/` in its own, or what was published of it."""
    return run.folder and (run.folder / "adapter" if (run.folder / "adapter").is_dir() else run.folder)


def weights_of(run: Run) -> Weights | None:
    """What that folder holds: an adapter in PEFT's format, a head on a frozen backbone, a whole model, other trained weights, or none."""
    adapter = adapter_of(run)
    return None if adapter is None else next((kind for name, kind in _FILES.items() if (adapter / name).is_file()), None)


def library_of(run: Run) -> Literal["transformers", "peft", "medfmc_hf"]:
    """The library by which the weights load: transformers or PEFT by itself, or with or through this package.

    PEFT puts an adapter on transformers' own classifier of a backbone, so that it does so by itself where the method is one of PEFT's,
    and the head reads what that classifier pools, of images of the backbone's own size.
    """
    if run.record.data.get("grey_range"):
        return "medfmc_hf"  # image processors of transformers read 8 bits
    if weights_of(run) == "whole":
        return "transformers"
    return "peft" if weights_of(run) == "peft" and _is_on_stock_classifier(run) and not _needs_tuners(run) else "medfmc_hf"


def _is_on_stock_classifier(run: Run) -> bool:
    """Whether the head reads what transformers' own classifier of the backbone pools, of images of the backbone's own size."""
    return run.record.backbone.get("pool", "stock") == "stock" and run.config.image_size is None


def _needs_tuners(run: Run) -> bool:
    """Whether PEFT knows the adapter's type only once `medfmc_hf.tuners` is imported."""
    path = (adapter_of(run) or Path()) / PEFT_CONFIG
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("peft_type") in OUR_PEFT_TYPES


def subfolder_of(run: Run) -> str:
    """The folder of a run in a repository that holds several: `seed0`, or `seed0-training100` where it was trained with another seed."""
    return f"seed{run.seed}" + (f"-training{run.training_seed}" if run.training_seed != run.seed else "")


def backbone_id(record: RunRecord) -> str | None:
    """The backbone's id on the Hub; None for a local folder, which has no commit."""
    return record.backbone.get("name") if record.backbone.get("revision") else None


@dataclass(frozen=True)
class _Place:
    """Where an experiment's weights and backbone are, as the lines that load them say it.

    Attributes:
        adapter: repository or folder.
        subfolder: of the first run, where there are several.
        backbone: id on the Hub, or a folder.
    """

    adapter: str
    subfolder: str | None
    backbone: str


def lines_that_load(experiment: Experiment, repo_id: str | None) -> str:
    """The section `Use` of a card: only what works with the files that are there."""
    run = experiment.first
    weights = weights_of(run)
    if weights is None:
        return "## Use\n\nThere are no weights here. The predictions of the test images are in the run's `predictions.parquet`.\n"
    adapter, several, base = repo_id or "path/to/this/folder", len(experiment.runs) > 1, backbone_id(run.record)
    place = _Place(adapter, subfolder_of(run) if several else None, base or f"path/to/{short_name(run.config.model)}")
    seed = f", seed={run.seed}" if several else ""
    local = "" if base or weights == "whole" else f', backbone="{place.backbone}"'
    flag = f" --backbone {place.backbone}" if local else ""
    others = {"peft": _peft_lines, "whole": _stock_lines, "head": _pipeline_lines, "plain": _pipeline_lines}[weights](run, place)
    if run.record.data.get("grey_range"):
        others = "\nThe images have more than 8 bits, which transformers and PEFT by themselves do not read as the training did.\n"
    return f"""\
## Use

```python
from medfmc_hf.predict import load_classifier
classifier = load_classifier("{adapter}"{seed}{local})  # the `image-classification` pipeline of transformers
classifier("image.png")
```
{others}
Or without Python: `medfmc predict {adapter} image.png{flag}`. The weights are {_HELD[weights]}.
"""


def _peft_lines(run: Run, place: _Place) -> str:
    if not _is_on_stock_classifier(run):
        return "\nThe head reads another vector, or images of another size, than transformers' own classifier: PEFT alone cannot load it.\n"
    tuners, revision = _needs_tuners(run), run.record.backbone.get("revision")
    imports = "import medfmc_hf.tuners  # PEFT knows this method once it is imported\n" if tuners else ""
    pinned = f', revision="{revision}"' if revision else ""
    subfolder = f', subfolder="{place.subfolder}"' if place.subfolder else ""
    names = ", ".join(f'{index}: "{name}"' for index, name in enumerate(run.record.subset.classes))
    return f"""
Or by PEFT{"" if tuners else ", without this package"}:

```python
{imports}from peft import PeftModel
from transformers import AutoImageProcessor, AutoModelForImageClassification
names = {{{names}}}
backbone = AutoModelForImageClassification.from_pretrained("{place.backbone}"{pinned}, id2label=names, ignore_mismatched_sizes=True)
model = PeftModel.from_pretrained(backbone, "{place.adapter}"{subfolder}).eval()
processor = AutoImageProcessor.from_pretrained("{place.adapter}"{subfolder})
```
"""


def _stock_lines(run: Run, place: _Place) -> str:
    subfolder = f', subfolder="{place.subfolder}"' if place.subfolder else ""
    return f"""
Or by transformers, without this package:

```python
from transformers import AutoImageProcessor, AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("{place.adapter}"{subfolder})
processor = AutoImageProcessor.from_pretrained("{place.adapter}"{subfolder})
```
"""


def _pipeline_lines(run: Run, place: _Place) -> str:
    options = {"subfolder": place.subfolder, "backbone": None if backbone_id(run.record) else place.backbone}
    said = "".join(f', {name}="{value}"' for name, value in options.items() if value)
    return f"""
Or by transformers, once the import has made it know the type of model:

```python
import medfmc_hf.classifiers
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("{place.adapter}"{said})
```
"""
