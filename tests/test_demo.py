import sys

import numpy as np
import pytest
from adapted_runs import adapted_run
from PIL import Image

from medfmc_hf.cli import main
from medfmc_hf.demo import example_image, make_demo
from medfmc_hf.predict import RESEARCH_ONLY, load_adapted
from medfmc_hf.quickstart import make_backbone
from medfmc_hf.subsets import SUBSETS


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "clinic/never-fetched"]) == 2
    assert 'pip install "medfmc_hf[demo]"' in capsys.readouterr().err


@pytest.mark.parametrize("key", SUBSETS)
def test_the_example_is_an_image_of_the_sample(key):
    with Image.open(example_image(SUBSETS[key])) as image:
        assert image.size == (64, 64)


def test_the_page_says_what_it_is_for_and_predicts(tmp_path):
    pytest.importorskip("gradio", reason="the optional extra `demo` is not installed")
    adapted = load_adapted(adapted_run(tmp_path / "runs", make_backbone(tmp_path / "backbone")), device="cpu")
    image = example_image(adapted.subset)
    page = make_demo(adapted, [image])
    assert RESEARCH_ONLY in page.description
    assert page.examples_handler.examples == [[str(image)]]
    answer = page.fn(str(image))
    np.testing.assert_allclose([answer[name] for name in adapted.subset.classes], adapted.probabilities([image])[0])
