"""What `medfmc_hf.classifiers` takes and refuses; that its models give what runs recorded is in test_saved_models.py."""

import pytest
import torch
from transformers import AutoModelForImageClassification, pipeline

import medfmc_hf.classifiers
from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig
from medfmc_hf.training.one_run import train


@pytest.fixture(scope="module")
def adapter(sample_build, tiny_backbone, tmp_path_factory):
    config = RunConfig("retino", shots=1, method="linear", model=str(tiny_backbone))
    folder, _ = train(config, data=sample_build, out=tmp_path_factory.mktemp("runs"))
    return folder / "adapter"


def test_a_pipeline_names_the_classes(adapter):
    from PIL import Image

    classifier = pipeline("image-classification", model=str(adapter), top_k=5)
    found = classifier(Image.new("RGB", (90, 70), "brown"))
    assert {each["label"] for each in found} == set(classifier.model.config.id2label.values())
    assert sum(each["score"] for each in found) == pytest.approx(1, abs=1e-5)


def test_another_precision(adapter):
    for dtype in (torch.bfloat16, "bfloat16"):
        model = AutoModelForImageClassification.from_pretrained(str(adapter), dtype=dtype)
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert model(pixel_values=torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16)).logits.shape == (1, 5)


def test_a_head_is_not_saved_in_a_form_that_would_load_with_random_weights(adapter, tmp_path):
    model = AutoModelForImageClassification.from_pretrained(str(adapter))
    with pytest.raises(MedfmcError, match="medfmc push model"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device_map": "auto"}, "cannot be loaded with device_map"),
        ({"num_labels": 3}, "cannot be loaded with num_labels"),
        ({"revision": "v1"}, "a revision"),
        ({"backbone": "nowhere/at/all"}, "nowhere/at/all"),
    ],
)
def test_what_it_cannot_do_is_said(options, says, adapter):
    with pytest.raises(MedfmcError, match=says):
        medfmc_hf.classifiers.AdaptedForImageClassification.from_pretrained(str(adapter), **options)
