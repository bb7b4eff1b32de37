import os
import subprocess
import sys

import pytest

from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig
from medfmc_hf.runs.launcher import check_launcher, launcher_options


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "fp16"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "--batch-size"),
        ({"ACCELERATE_DYNAMO_BACKEND": "CUDAGRAPHS"}, "cudagraphs"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP"),
    ],
)
def test_what_a_run_cannot_do_ends_it(environment, says):
    with pytest.raises(MedfmcError, match=says):
        launcher_options(environment)


def test_what_it_can_do_is_its_setting():
    assert launcher_options({}) == launcher_options({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"}) == {}
    asked = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1"}
    assert launcher_options(asked) == {"dtype": "bfloat16", "compile": "on"}


def test_a_run_that_says_something_else_ends(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    check_launcher(RunConfig("endo", dtype="bfloat16"))
    with pytest.raises(MedfmcError, match="dtype: bfloat16"):
        check_launcher(RunConfig("endo"))


def test_accelerates_own_launcher_sets_the_precision(tmp_path):
    """The real `accelerate launch`, with a configuration file, and the flags of a run."""
    (tmp_path / "config.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: bf16\n"
        "num_machines: 1\nnum_processes: 1\nuse_cpu: true\n"
    )
    (tmp_path / "script.py").write_text(
        "import argparse\nfrom medfmc_hf.runs.flags import add_run_arguments, run_config\n"
        "from medfmc_hf.runs.launcher import check_launcher\n"
        "parser = argparse.ArgumentParser()\nadd_run_arguments(parser)\nconfig = run_config(parser.parse_args())\ncheck_launcher(config)\n"
        "print(config.dtype)\n"
    )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "config.yaml")]
    command += [str(tmp_path / "script.py"), "--subset", "endo"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert done.stdout.splitlines()[-1] == "bfloat16", done.stderr
    done = subprocess.run([*command, "--dtype", "float32"], capture_output=True, text=True)
    assert done.returncode and "--mixed_precision no" in done.stderr
