import argparse
import dataclasses
import shlex

import pytest

from medfmc_hf.adaptation.methods import all_options
from medfmc_hf.runs import MethodOptions, RunConfig
from medfmc_hf.runs.flags import add_run_arguments, flags_of, run_config


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shots": None, "seed": 3},
        {"protocol": "official", "select": "best", "epochs": 3, "predict_challenge": True},
        {"method": "vpt", "method_options": {"num_prompts": 5}, "image_size": 384, "dtype": "bfloat16"},
        {"model": "a folder/with spaces", "learning_rate": 3e-5, "revision": "abc"},
        {"method_options": {"target_modules": ["q", "v"], "bias": "none", "use_rslora": True, "rank_pattern": None}},
    ],
)
def test_the_flags_give_the_config_back(options):
    config = RunConfig.from_dict({"subset": "endo", "method": "lora"} | options)
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    again = run_config(parser.parse_args(shlex.split(flags_of(config))))
    plain = [dataclasses.replace(one, method_options=MethodOptions(), recipe="none") for one in (again, config)]
    assert plain[0] == plain[1]
    assert all_options(config.method, again.method_options) == all_options(config.method, config.method_options)
