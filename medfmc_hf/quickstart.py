"""An end-to-end run on an invented MedFMC: make it, build it, load it, adapt a small backbone, and score."""

import json
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import MedfmcError
from .files import write_text
from .progress import notify
from .runs import RunConfig, RunRecord, load_predictions
from .runs.recipes import recipe_of

CONFIG = "endo-5shot-seed0"


@dataclass(frozen=True)
class Outcome:
    """The result of the quickstart.

    Attributes:
        folder: folder of the run.
        record: record of the run.
        chance: scores of random guessing: `map` (mean prevalence of the classes) and `auc` (one half).
        seconds: wall time of everything.
    """

    folder: Path
    record: RunRecord
    chance: dict[str, float]
    seconds: float


def quickstart(folder: str | Path = ".", method: str = "lora") -> Outcome:
    """Run everything below `folder`, in medfmc_sample/, medfmc/ and runs/.

    Args:
        folder: working folder. A `medfmc` folder in it that was built from anything but the sample is left alone.
        method: adaptation method.

    Raises:
        MedfmcError: `folder` holds a `medfmc` that was not built from the sample.
    """
    from .data.build import build
    from .data.sample import make_sample

    begin = time.perf_counter()
    folder = Path(folder)
    sample, data = folder / "medfmc_sample", folder / "medfmc"
    refuse_to_replace(data, sample)
    notify("1/5  making a small invented MedFMC: five subsets, in the layout of the figshare release")
    make_sample(sample / "download")
    notify(f"2/5  building {data} from it")
    build([sample / "download"], data)
    notify(f'3/5  load_dataset("{data}", "{CONFIG}")')
    splits = _libraries().load_dataset(str(data), CONFIG)
    backbone = make_backbone(sample / "tiny-vit")
    notify(f"4/5  adapting a small vision transformer by {method} to {len(splits['train'])} images")
    from .training.one_run import train

    config = RunConfig.from_dict(recipe_of(method) | {"subset": "endo", "shots": 5, "seed": 0, "model": str(backbone)})
    run, record = train(replace(config, **SMALL), data=data, out=folder / "runs")
    notify('5/5  evaluate.load("medfm_score", "endo")')
    import evaluate

    from .metric import install

    rows = load_predictions(run)
    # By the path of the script, because evaluate would look up a bare name on the Hub first.
    score = evaluate.load(str(install()), "endo").compute(predictions=rows.probabilities, references=rows.targets)
    if any(abs(score[key] - record.scores["test"][key]) > 1e-9 for key in ("map", "auc")):
        raise MedfmcError(f"the metric gives {score['map']}, {score['auc']} and the record {record.scores['test']}; please report this.")
    chance = {"map": float(rows.targets.mean(axis=0).mean()), "auc": 0.5}
    return Outcome(run, record, chance, time.perf_counter() - begin)


def _libraries() -> ModuleType:
    """Import `datasets`, and silence progress bars and warnings of it, transformers and PEFT that a newcomer need not see."""
    import datasets
    import torch
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    torch.set_num_threads(1)  # the model is too small for more, and on a busy machine more threads would wait for each other for minutes
    return datasets


# A random backbone has nothing to preserve, so it is trained with a larger learning rate than the recipes for pretrained ones.
SMALL: dict[str, Any] = {"learning_rate": 5e-3, "epochs": 20, "batch_size": 8}


def refuse_to_replace(data: Path, sample: Path) -> None:
    """Raise if `data` is a build of anything but the sample: it may be the user's real one."""
    from .data.loading import MANIFEST

    if data.exists():
        manifest = data / MANIFEST
        sources = json.loads(manifest.read_text())["sources"] if manifest.is_file() else []
        if [Path(source).resolve() for source in sources] != [(sample / "download").resolve()]:
            raise MedfmcError(
                f"{data.resolve()} exists and was not made by quickstart. Work in another folder: medfmc quickstart --folder NEW"
            )


def make_backbone(folder: Path) -> Path:
    """Write a vision transformer with 0.7 M random weights for 64 x 64 images, in transformers' format, unless it exists."""
    if not (folder / "model.safetensors").is_file():
        import torch
        from transformers import ViTConfig, ViTModel

        torch.manual_seed(0)
        config = ViTConfig(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=384, image_size=64, patch_size=8)
        ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
        numbers = {
            "size": {"height": 64, "width": 64},
            "resample": 3,
            "rescale_factor": 1 / 255,
            "image_mean": [0.5] * 3,
            "image_std": [0.25] * 3,
        }
        processor = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True} | numbers
        write_text(folder / "preprocessor_config.json", json.dumps(processor, indent=2))
    return folder
