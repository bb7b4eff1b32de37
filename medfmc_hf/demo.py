"""A page in the browser to try an adapted model on an image, by Gradio, an optional extra. Research use only."""

import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from .errors import MedfmcError
from .subsets import Subset

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

    def classify(image: str | None) -> dict[str, float]:
        if image is None:
            raise gradio.Error("Choose an image first.")
        try:
            (row,) = adapted.probabilities([image])
        except MedfmcError as error:
            raise gradio.Error(str(error)) from None
        return dict(zip(subset.classes, map(float, row)))

    kind = "Each class is judged for itself." if subset.multilabel else "The probabilities add up to 1."
    return gradio.Interface(
        classify,
        gradio.Image(type="filepath", label="Image"),
        gradio.Label(label=f"Probabilities. {RESEARCH_ONLY}"),
        examples=[[str(path)] for path in (examples if examples is not None else [example_image(subset)])],
        cache_examples=False,
        flagging_mode="never",
        title=f"MedFMC {subset.name}: {subset.title}",
        description=f"**{RESEARCH_ONLY}** Model: `{adapted.name}`. {kind} The example is invented and shows no patient.",
    )


def example_image(subset: Subset) -> Path:
    """Draw an image of the invented sample that shows the subset's first class. Returns its file, in a temporary folder."""
    from .data.sample import draw, invent

    chosen = next(image for image in invent(subset.key) if image.labels[0])
    path = Path(tempfile.mkdtemp(prefix="medfmc-demo-")) / f"invented-{subset.key}.png"
    draw(subset, chosen).save(path)
    return path
