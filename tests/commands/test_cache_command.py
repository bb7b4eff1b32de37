"""`medfmc cache`: what it lists is what is there, and clearing takes only that."""

import datasets
import numpy as np
import pytest
from PIL import Image

from medfmc_hf.cli import main
from medfmc_hf.images.pixels import evaluation_pixels
from medfmc_hf.images.processing import Processing
from medfmc_hf.subsets import SUBSETS


@pytest.fixture
def cache(tmp_path):
    """Three grey and two colour images of endo at two sizes, and of chest at one."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(5):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(rng.integers(0, 256, (20, 30) if number < 3 else (20, 30, 3), dtype=np.uint8)).save(paths[-1])
    rows = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    for key, side in (("endo", 8), ("endo", 16), ("chest", 8)):
        evaluation_pixels(rows, Processing(side, side, (side, side)), subset=SUBSETS[key], cache=tmp_path / "cache")
    return tmp_path / "cache"


def test_the_list_says_what_where_and_how_much(cache, capsys):
    assert main(["cache", "--cache", str(cache)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:-1]] == [
        ["chest-8x8-bicubic-v2", "5"],
        ["endo-16x16-bicubic-v2", "5"],
        ["endo-8x8-bicubic-v2", "5"],
    ]
    assert lines[-1].endswith(f"MB in {cache}")
    pixels = {path.parent.name: path.stat().st_size for path in cache.glob("*/pixels.bin")}
    assert pixels == {"chest-8x8-bicubic-v2": 9 * 64, "endo-16x16-bicubic-v2": 9 * 256, "endo-8x8-bicubic-v2": 9 * 64}


def test_clearing_some_subsets_leaves_the_others(cache, capsys):
    assert main(["cache", "clear", "--subset", "endo", "--cache", str(cache)]) == 0
    assert capsys.readouterr().out.count("removed endo-") == 2
    assert sorted(path.name for path in cache.iterdir()) == [".locks", "chest-8x8-bicubic-v2"]
    assert main(["cache", "--subset", "endo", "--cache", str(cache)]) == 0
    assert capsys.readouterr().out == f"no pixels are kept in {cache} of endo\n"


def test_clearing_all_leaves_foreign_files(cache, capsys):
    (cache / "mine").mkdir()
    (cache / "mine" / "store.json").write_text("[]")
    (cache / "notes.txt").write_text("mine")
    assert main(["cache", "clear", "--cache", str(cache)]) == 0
    assert capsys.readouterr().out.count("removed") == 3
    assert sorted(path.name for path in cache.iterdir()) == [".locks", "mine", "notes.txt"]
    assert main(["cache", "clear", "--cache", str(cache)]) == 0
    assert capsys.readouterr().out == f"no pixels are kept in {cache}\n"


def test_the_default_is_the_hugging_face_home(capsys):
    assert main(["cache"]) == 0
    assert "medfmc/pixels" in capsys.readouterr().out.replace("\\", "/")


def test_a_wrong_folder_and_a_wrong_subset_are_errors(tmp_path, capsys):
    assert main(["cache", "--cache", str(tmp_path / "nowhere")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["cache", "clear", "--subset", "lungs"])
    assert "invalid choice: 'lungs'" in capsys.readouterr().err
