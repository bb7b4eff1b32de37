"""Every command of the README is run, in its order, in an empty folder; every Python line of it that names an API is checked."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

README = Path(__file__).parent.parent / "README.md"
ROOT = README.parent


def commands() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", README.read_text(), flags=re.M | re.S)
    lines = [part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]
    return [line for line in lines if line and not line.startswith("#")]


def test_the_readme_has_the_commands_a_newcomer_needs():
    text = "\n".join(commands())
    for needed in ("pip install -e .", "medfmc quickstart", "medfmc build", "recipes/peft_train.py", "medfmc score"):
        assert needed in text


@pytest.fixture(scope="module")
def desk(tmp_path_factory, sample, tiny_backbone):
    """An empty folder with what the README's placeholders stand for: a download, a backbone, an image and the recipes."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(sample, folder / "MedFMC", ignore=shutil.ignore_patterns(".medfmc_sample"))  # it passes for a real one
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(tiny_backbone, folder / "dinov2-small")
    grid = folder / "recipes" / "grids" / "quick.yaml"
    grid.write_text(grid.read_text().replace("facebook/dinov2-small", "dinov2-small"))
    shutil.copy(next((sample / "Endo" / "images").glob("*.png")), folder / "image.png")
    return folder


def test_every_command_of_the_readme_works(desk):
    stand_ins = {
        "PATH/TO/MedFMC": str(desk / "MedFMC"),
        " --fetch-lists": "",  # the invented download has its lists; fetching has tests of its own
        "--model facebook/dinov2-small": "--model dinov2-small",
        "accelerate launch": f"{sys.executable} -m accelerate.commands.accelerate_cli launch --cpu --num_processes 1 --num_machines 1 "
        "--mixed_precision no --dynamo_backend no",
    }
    binaries = Path(sys.executable).parent
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(desk / "hf"), "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    ran = 0
    for command in commands():
        if command.startswith("pip "):
            continue  # the gate installs, in an environment of its own
        line = command
        for placeholder, real in stand_ins.items():
            line = line.replace(placeholder, real)
        done = subprocess.run(["bash", "-c", line], cwd=desk, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), f"{command} says nothing"
        ran += 1
    assert ran >= 10
    assert (desk / "report" / "board.html").is_file()


def test_what_the_quickstart_prints_is_pasted():
    assert re.search(r"<!-- quickstart -->\n```\nendo-5shot-seed0, lora.*?\n```\n<!-- end -->", README.read_text(), flags=re.S)
