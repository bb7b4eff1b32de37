"""A page in the browser to try an adapted model on an image, by Gradio, an optional extra. Research use only."""

import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import MedfmcError
from .subsets import Subset
from .words import METRICS, interval, percent

if TYPE_CHECKING:
    import gradio

    from .predict import Adapted


def import_gradio() -> ModuleType:
    """The module, told to send nothing home.

    Raises:
        MedfmcError: it is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio reads it at import
    try:
        import gradio
    except ImportError:
        raise MedfmcError('the demo needs Gradio, which is not installed: pip install "medfmc_hf[demo]"') from None
    return gradio


def make_demo(adapted: "Adapted", examples: list[Path] | None = None) -> "gradio.Interface":
    """The page: an image in, class probabilities out.

    Args:
        adapted: as `medfmc_hf.predict.load_adapted` gives it.
        examples: images to offer; None for an invented one of the sample.

    Raises:
        MedfmcError: Gradio is not installed.
    """
    gradio = import_gradio()
    from .predict import RESEARCH_ONLY

    subset = adapted.subset

    def classify(image: str | None) -> Any:
        if image is None:
            raise gradio.Error("Choose an image first.", print_exception=False)
        try:
            (row,) = adapted.probabilities(image)
        except MedfmcError as error:  # no fault of the server's, so no traceback there
            raise gradio.Error(str(error), print_exception=False) from None
        by_class = dict(zip(subset.classes, map(float, row)))
        if not subset.multilabel:
            return by_class
        return [[name, f"{value:.4f}"] for name, value in sorted(by_class.items(), key=lambda pair: -pair[1])]

    title = f"Probabilities. {RESEARCH_ONLY}"
    if subset.multilabel:  # a label would put one class above the others, as if it were the answer
        output = gradio.Dataframe(headers=["class", "probability"], label=title, interactive=False)
    else:
        output = gradio.Label(label=title)
    return gradio.Interface(
        classify,
        _image_input(gradio),
        output,
        examples=[[str(path)] for path in (examples if examples is not None else [example_image(subset)])],
        cache_examples=False,
        flagging_mode="never",
        title=f"MedFMC {subset.name}: {subset.title}",
        description=_description(adapted),
    )


def _image_input(gradio: ModuleType) -> Any:
    """An input that hands on the file as it is: Gradio would convert grey images to colour and compress them again."""
    image = gradio.Image(type="filepath", label="Image", image_mode=None)
    image.preprocess = lambda payload: payload and payload.path
    return image


def _description(adapted: "Adapted") -> str:
    """What stands above the image: what it is for, the model, its backbone, and how good it was on the test images."""
    from .models.backbones import origin
    from .predict import RESEARCH_ONLY

    kind = "Each class is judged for itself." if adapted.subset.multilabel else "The probabilities add up to 1."
    name = origin(adapted.model).model
    backbone = Path(name).name if Path(name).is_absolute() else name
    lines = [
        f"**{RESEARCH_ONLY}** {kind} The example is invented and shows no patient.",
        f"Model: `{adapted.name}`, on the backbone `{backbone}`.",
    ]
    return "\n\n".join(lines + _scores(adapted))


def _scores(adapted: "Adapted") -> list[str]:
    """How good the model was on its test images, with intervals where its predictions lie beside it; empty where no record does."""
    from .evaluation.experiments import one_experiment, read_run
    from .runs.provenance import marks

    if adapted.record is None:
        return []
    experiment = one_experiment([read_run(adapted.run_folder or Path(), adapted.record)])
    metrics = (adapted.subset.metric, "auc")
    found = {key: experiment.estimate(key) for key in metrics}
    ends = {key: interval(each.test_interval, missing="") for key, each in found.items()}
    words = ", ".join(f"{METRICS[key]} {percent(each.mean)}" + (f" ({ends[key]})" if ends[key] else "") for key, each in found.items())
    rows = adapted.record.data.get("rows", {}).get("test")
    apart = "".join(f"; the images are {mark}" for mark in marks(adapted.record))
    brackets = ", with 95 % intervals over patients" if any(ends.values()) else ""
    return [f"On {experiment.name}, {rows:,} test images, percent{brackets}: {words}{apart}."]


def example_image(subset: Subset) -> Path:
    """Draw an image of the invented sample that shows the subset's first class. Returns its file, in a temporary folder."""
    from .data.sample import draw, invent

    chosen = next(image for image in invent(subset.key) if image.labels[0])
    path = Path(tempfile.mkdtemp(prefix="medfmc-demo-")) / f"invented-{subset.key}.png"
    draw(subset, chosen).save(path)
    return path
