"""`medfmc predict` as a person types it."""

import numpy as np
import pytest
from adapted_runs import adapted_run
from PIL import Image

from medfmc_hf.cli import main
from medfmc_hf.quickstart import make_backbone


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict")
    return adapted_run(root / "runs", make_backbone(root / "backbone"))


def test_predict_prints_and_writes(run, tmp_path, capsys):
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(image)
    assert main(["predict", str(run), str(image), "--csv", str(tmp_path / "out.csv"), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Research use only.") and "ulcer" in out and str(image) in out
    assert (tmp_path / "out.csv").read_text().startswith("image,ulcer,erosion,polyp,tumor,note\n")
    assert main(["predict", str(run), str(tmp_path / "missing.png")]) == 2
    assert "missing.png is not there" in capsys.readouterr().err


def test_predict_as_json_names_what_could_not_be_read(run, tmp_path, capsys):
    import json

    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(image)
    assert main(["predict", str(run), str(image), str(tmp_path), "--json", "--csv", str(tmp_path / "out.csv"), "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert (
        list(said["images"][0]["probabilities"]) == ["ulcer", "erosion", "polyp", "tumor"] and "is a folder" in said["images"][1]["error"]
    )
    assert "not predicted" in captured.err and said["subset"] == "endo"
