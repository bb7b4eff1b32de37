"""`Processing`s of image processors and their pixels, against transformers' own PIL processors."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from textures import image
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
from transformers.models.pvt.image_processing_pil_pvt import PvtImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.processing import Processing, normalise, process
from medfmc_hf.models.image_processor import image_processor, processing_of, save_processor

PIL = {
    "ViTImageProcessor": ViTImageProcessorPil,
    "DeiTImageProcessor": DeiTImageProcessorPil,
    "BeitImageProcessor": BeitImageProcessorPil,
    "SiglipImageProcessor": SiglipImageProcessorPil,
    "PvtImageProcessor": PvtImageProcessorPil,
    "CLIPImageProcessor": CLIPImageProcessorPil,
    "BitImageProcessor": BitImageProcessorPil,
    "ConvNextImageProcessor": ConvNextImageProcessorPil,
    "EfficientNetImageProcessor": EfficientNetImageProcessorPil,
}
# Processor files as on the Hub, in the formats of different years.
FILES = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}, "resample": 2, "image_mean": [0.5] * 3},
    "swin": {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "resample": 3, "image_mean": [0.485, 0.456, 0.406],
             "image_std": [0.229, 0.224, 0.225], "do_normalize": True, "do_resize": True},
    "swin-fast": {"image_processor_type": "ViTImageProcessorFast", "size": 384, "resample": 3},
    "deit": {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224, "do_center_crop": True, "resample": 3},
    "beit": {"feature_extractor_type": "BeitFeatureExtractor", "size": 224, "crop_size": 224, "do_center_crop": False, "resample": 2},
    "clip": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3, "do_convert_rgb": True},
    "clip-large": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 336}, "crop_size": 336},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 256, "width": 256}, "rescale_factor": 1 / 255},
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224},
               "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3},
    "convnext": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875, "resample": 3},
    "convnext-384": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 384, "crop_pct": None, "resample": 3},
    "resnet": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.95, "resample": 2},
    "efficientnet": {"image_processor_type": "EfficientNetImageProcessor", "size": {"height": 224, "width": 224}, "resample": 0,
                     "include_top": True, "image_std": [0.47853944, 0.4732864, 0.47434163]},
    "efficientnet-offset": {"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True, "rescale_factor": 1 / 127.5,
                            "include_top": False, "do_center_crop": True, "resample": 1},
    "efficientnet-only-top": {"image_processor_type": "EfficientNetImageProcessor", "do_normalize": False},
    "raw": {"image_processor_type": "ViTImageProcessor", "do_rescale": False, "do_normalize": False},
    "wide": {"image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 112}, "resample": 2},
    "padding": {"image_processor_type": "ViTImageProcessor", "size": [60, 61], "do_center_crop": True, "crop_size": [83, 96]},
}  # fmt: skip
SHAPES = [(300, 300), (211, 517), (640, 401), (1, 1), (3, 50), (24, 17), (224, 224), (256, 256)]


def save(folder, values, name="preprocessor_config.json"):
    (folder / name).write_text(json.dumps(values))
    return str(folder)


def theirs_of(values):
    name = values.get("image_processor_type") or values["feature_extractor_type"].replace("FeatureExtractor", "ImageProcessor")
    return PIL[name.removesuffix("Fast")](**{key: value for key, value in values.items() if not key.endswith("_type")})


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_transformers_to_one_grey_level(name, tmp_path):
    processing, theirs = processing_of(save(tmp_path, FILES[name])), theirs_of(FILES[name])
    level = processing.rescale / np.array(processing.std)
    for height, width in SHAPES:
        for channels in (1, 3):
            pixels = image(height, width, channels)
            ours = normalise(process(pixels, processing)[None], processing)[0].numpy()
            expected = theirs(Image.fromarray(pixels).convert("RGB"), return_tensors="np")["pixel_values"][0]
            assert ours.shape == expected.shape == (3, processing.height, processing.width)
            difference = np.abs(ours - expected) / level[:, None, None]
            assert difference.max() <= 1.001, (height, width, channels)
            if min(height, width) > 32:
                assert difference.mean() <= 0.2, (height, width, channels)  # and mostly equal


@pytest.mark.parametrize("name", PIL)
def test_defaults_of_a_class_are_those_of_transformers(name, tmp_path):
    theirs = PIL[name]()
    theirs.save_pretrained(tmp_path / "whole")
    (tmp_path / "bare").mkdir()
    bare = save(tmp_path / "bare", {"image_processor_type": name})
    assert processing_of(bare) == processing_of(str(tmp_path / "whole"))
    assert processing_of(bare) == processing_of(
        save(tmp_path, {"image_processor": json.loads((tmp_path / "whole/preprocessor_config.json").read_text())}, "processor_config.json")
    )


def test_dinov3_is_resized_before_it_is_rescaled_to_half_a_grey_level(tmp_path):
    processing = processing_of(save(tmp_path, {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 96, "width": 96}}))
    pixels = image(211, 517, 3)
    floats = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    expected = torch.nn.functional.interpolate(floats, size=(96, 96), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    difference = (normalise(process(pixels, processing)[None], processing) - (expected - mean) / std).abs() * std * 255
    assert difference.max() <= 1.0


@pytest.mark.parametrize(
    ("name", "image_size", "expected"),
    [
        ("vit", 384, (384, 384, (384, 384))),
        ("deit", 448, (448, 448, (512, 512))),
        ("clip", 336, (336, 336, (336,))),
        ("dinov2", 518, (518, 518, (592,))),
        ("convnext", 288, (288, 288, (int(288 / 0.875),))),
        ("convnext", 384, (384, 384, (384, 384))),
        ("convnext-384", 224, (224, 224, (256,))),
        ("wide", 112, (112, 112, (112, 112))),
        ("efficientnet-offset", 289, (289, 289, (346, 346))),
    ],
)
def test_image_size_scales_what_the_processor_does(name, image_size, expected, tmp_path):
    processing = processing_of(save(tmp_path, FILES[name]), image_size=image_size)
    assert (processing.height, processing.width, processing.resize) == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, "does not resize"),
        ({"image_processor_type": "ViTImageProcessor", "do_pad": True}, "pads"),
        ({"image_processor_type": "CLIPImageProcessor", "do_center_crop": False}, "does not crop"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 200, "longest_edge": 300}}, "longest_edge"),
        ({"image_processor_type": "ViTImageProcessor", "resample": 17}, "cannot be used"),
        ({"image_processor_type": "ViTImageProcessor", "size": "large"}, "cannot be used"),
        ({"image_processor_type": "ViTImageProcessor", "image_std": [0, 1, 1]}, "nonzero"),
        ({"image_processor_type": "DonutImageProcessor", "do_thumbnail": True}, "DonutImageProcessor"),
        ({"do_resize": True}, "None"),
    ],
)
def test_an_unsupported_processor_is_refused(values, said, tmp_path):
    with pytest.raises(MedfmcError, match=said):
        processing_of(save(tmp_path, values))


def test_a_processor_that_does_more_than_its_config_is_refused(tmp_path, monkeypatch):
    real = ViTImageProcessorPil.__call__

    def darker(self, *args, **kwargs):
        result = real(self, *args, **kwargs)
        result["pixel_values"] = result["pixel_values"] - 3 / 127.5
        return result

    folder = save(tmp_path, FILES["vit"])
    processing_of(folder)
    monkeypatch.setattr(ViTImageProcessorPil, "__call__", darker)
    with pytest.raises(MedfmcError, match=r"differ by [34]"):
        processing_of(folder)


def test_image_size_fixes_a_size_that_varies(tmp_path):
    for values in ({"do_resize": False}, {"size": {"shortest_edge": 200, "longest_edge": 300}}):
        processing = processing_of(save(tmp_path, {"image_processor_type": "ViTImageProcessor", **values}), image_size=64)
        assert (processing.height, processing.width, processing.resize) == (64, 64, (64, 64))


@pytest.mark.parametrize("image_size", [0, -3, 2.5, True])
def test_image_size_is_checked(image_size, tmp_path):
    with pytest.raises(MedfmcError, match="image_size"):
        processing_of(save(tmp_path, FILES["vit"]), image_size=image_size)


def test_a_backbone_without_a_processor_gets_the_documented_default(tmp_path, capsys):
    transformers.ViTConfig(image_size=96, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8).save_pretrained(
        tmp_path
    )
    assert processing_of(str(tmp_path)) == Processing(96, 96, (96, 96), "bicubic", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert "has no image processor" in capsys.readouterr().err
    assert processing_of(str(tmp_path), image_size=48).height == 48


def test_a_backbone_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(MedfmcError, match="nothing-here"):
        processing_of(str(tmp_path / "nothing-here"))
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(MedfmcError, match="is not JSON"):
        processing_of(str(tmp_path))


def test_an_unlisted_class_is_supported_if_it_only_resizes_crops_and_normalises(tmp_path):
    processing = processing_of(save(tmp_path, {"image_processor_type": "MobileNetV2ImageProcessor"}))
    assert (processing.height, processing.resize, processing.mean) == (224, (256,), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    "processing",
    [
        Processing(64, 64, (64, 64), mean=(0.5,) * 3, std=(0.25,) * 3),
        Processing(48, 48, (64,)),
        Processing(48, 48, (64, 60), resample="bilinear"),
    ],
)
def test_the_saved_processor_is_the_one_of_training(tmp_path, processing):
    save_processor(processing, tmp_path)
    assert processing_of(str(tmp_path)) == processing
    pixels = image(90, 70, 3)
    theirs = image_processor(processing)(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    ours = normalise(process(pixels, processing)[None], processing)
    grey_levels = (theirs - ours).abs() * torch.tensor(processing.std).view(3, 1, 1) * 255
    assert grey_levels.max() <= 1.01
