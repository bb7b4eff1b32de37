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


@pytest.fixture
def page(tmp_path):
    """The demo of a run, by subset."""
    pytest.importorskip("gradio", reason="the optional extra `demo` is not installed")

    def make(subset: str):
        adapted = load_adapted(adapted_run(tmp_path / "runs", make_backbone(tmp_path / "backbone"), subset=subset), device="cpu")
        return adapted, make_demo(adapted)

    return make


def test_the_page_says_what_it_is_for_and_how_good_the_model_was(page):
    adapted, demo = page("endo")
    score = adapted.record.scores["test"]
    for words in (
        RESEARCH_ONLY,
        "on the backbone `backbone`",
        f"mAP {100 * score['map']:.2f} (",
        f"AUC {100 * score['auc']:.2f} (",
        "95 %",
    ):
        assert words in demo.description


@pytest.mark.parametrize("subset", ["endo", "retino"])
def test_a_client_gets_the_probabilities_of_the_very_file(subset, page, tmp_path, capfd):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    adapted, demo = page(subset)
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (90, 70), np.uint8)).save(tmp_path / "grey.jpg", quality=90)
    Image.fromarray(random.integers(0, 256, (90, 70, 3), np.uint8)).save(tmp_path / "colour.png")
    (tmp_path / "scan.png").write_bytes(b"\0" * 128 + b"DICM")
    demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        client = Client(demo.local_url, verbose=False)
        for name in ("grey.jpg", "colour.png"):
            answer = client.predict(handle_file(tmp_path / name), api_name="/classify")
            if subset == "endo":  # a table without a headline: each class is for itself
                found = {row[0]: float(row[1]) for row in answer["data"]}
            else:
                found = {each["label"]: each["confidence"] for each in answer["confidences"]}
            (expected,) = adapted.probabilities(tmp_path / name)
            np.testing.assert_allclose([found[key] for key in adapted.subset.classes], expected, atol=1e-4)
        capfd.readouterr()
        with pytest.raises(AppError, match="is a DICOM file"):
            client.predict(handle_file(tmp_path / "scan.png"), api_name="/classify")
        assert "Traceback" not in "".join(capfd.readouterr())
    finally:
        demo.close()
