"""What a card says of loading: its lines run in a process that has imported nothing else, and give the logits that the run recorded."""

import re
import subprocess
import sys

import pytest
import torch
import transformers
from patience import PATIENCE
from tiny_models import tiny

from medfmc_hf.runs import RunConfig
from medfmc_hf.training.one_run import train

BY_METHOD = {  # method: a backbone, and the library that loads it
    "linear": ("vit", "medfmc_hf"),
    "prototype": ("convnext", "medfmc_hf"),
    "knn": ("vit", "medfmc_hf"),
    "linear-sgd": ("vit", "medfmc_hf"),
    "full": ("resnet", "transformers"),
    "partial": ("vit", "medfmc_hf"),
    "lora": ("vit", "peft"),
    "vpt": ("vit", "medfmc_hf"),
    "houlsby": ("swin", "medfmc_hf"),
    "dora": ("clip with text", "medfmc_hf"),  # the head reads what CLIP pools, and transformers' classifier of CLIP another vector
}
CHECK = """
import numpy as np, torch
from medfmc_hf.runs import load_predictions
from medfmc_hf.subsets import subset_of
from medfmc_hf.training.shared import Shared
from medfmc_hf.training.one_run import evaluation_pixels
from medfmc_hf.runs import RunRecord
from medfmc_hf.images.processing import normalise
from pathlib import Path
run = Path({folder!r})
shared = Shared({data!r}, cache=Path({cache!r}))
resolved = shared.resolve(RunRecord.load(run).run_config)
pixels = evaluation_pixels(resolved, shared)["test"]
loaded = globals().get("model") or classifier.model
expected = load_predictions(run).logits
with torch.no_grad():
    found = torch.cat([loaded(pixel_values=normalise(pixels[i : i + 1], resolved.processing)).logits for i in range(len(expected))]).numpy()
assert found.shape == expected.shape and len(expected) > 10
assert np.allclose(found, expected, atol=1e-4), np.abs(found - expected).max()
print("as recorded")
"""


def clip_with_text():
    """CLIP as it is on the Hub, with its text encoder in the same file."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text, vision = {**size, "vocab_size": 64, "max_position_embeddings": 8}, {**size, "image_size": 16, "patch_size": 4}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))


@pytest.fixture(scope="module")
def saved(sample_build, tmp_path_factory):
    """Folders of runs by method, each on a tiny backbone."""
    root = tmp_path_factory.mktemp("saved")

    def run(method: str):
        name, _ = BY_METHOD[method]
        backbone = root / name.replace(" ", "-")
        if not backbone.exists():
            (clip_with_text() if name == "clip with text" else tiny(name)).save_pretrained(backbone)
        config = RunConfig("endo", shots=1, method=method, model=str(backbone), epochs=1)
        folder, _ = train(config, data=sample_build, out=root / "runs")
        return folder, backbone

    return run


def blocks_of(card: str, folder, backbone) -> list[str]:
    """The Python of a card, with the places that it leaves open."""
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    blocks = [block.replace("path/to/this/folder", str(folder / "adapter")).replace('classifier("image.png")\n', "") for block in blocks]
    return [re.sub(r"path/to/[\w.-]+", str(backbone), block) for block in blocks]


@pytest.mark.parametrize("method", BY_METHOD)
def test_the_lines_of_a_card_load_what_the_run_recorded(method, saved, sample_build, tmp_path):
    folder, backbone = saved(method)
    card = (folder / "adapter" / "README.md").read_text()
    assert f"library_name: {BY_METHOD[method][1]}\n" in card
    blocks = blocks_of(card, folder, backbone)
    assert len(blocks) == (1 if method == "dora" else 2)
    for number, block in enumerate(blocks):
        assert number == 0 or method not in ("lora", "full") or "medfmc_hf" not in block
        check = CHECK.format(folder=str(folder), data=str(sample_build), cache=str(tmp_path))
        done = subprocess.run([sys.executable, "-c", block + check], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0 and "as recorded" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("linear", "medfmc_hf.classifiers"),
        ("knn", "medfmc_hf.classifiers"),
        ("linear-sgd", "medfmc_hf.classifiers"),
        ("houlsby", "BOTTLENECK"),
        ("vpt", "VPT"),
        ("dora", "target"),
    ],
)
def test_what_stock_libraries_cannot_load_ends_with_an_error_and_predicts_nothing(method, says, saved):
    folder, backbone = saved(method)
    adapter = folder / "adapter"
    if method in ("houlsby", "vpt", "dora"):
        lines = f"""
from peft import PeftModel
from transformers import AutoModelForImageClassification
backbone = AutoModelForImageClassification.from_pretrained({str(backbone)!r}, num_labels=4, ignore_mismatched_sizes=True)
PeftModel.from_pretrained(backbone, {str(adapter)!r})
"""
    else:
        lines = f"from transformers import pipeline\npipeline('image-classification', model={str(adapter)!r})"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode != 0 and says in done.stderr, done.stderr
