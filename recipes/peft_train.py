"""Adapt a vision backbone to one few-shot config of MedFMC, and score it.

    accelerate launch recipes/peft_train.py --subset endo --shots 5 --seed 0 --method lora --model facebook/dinov2-small

--method picks a recipe from recipes/configs (learning rate, epochs, options of the method); --config names another
recipe file; every flag overrides it. The run leaves a folder below --out: run.json (what it was, its scores, its cost),
predictions.parquet (every test image) and adapter/ (weights and a model card). A finished run is never repeated.

The path of a run is medfmc_hf.training.one_run.train, and its loop is medfmc_hf.training.loop.Loop: copy them where you need more.
"""

import argparse

from medfmc_hf.cli import guarded
from medfmc_hf.progress import set_quiet


def main(argv: list[str] | None = None) -> None:
    from medfmc_hf.runs.flags import add_run_arguments, run_config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument("--data", default="medfmc", help="folder that `medfmc build` made, or a dataset repository (default: medfmc)")
    parser.add_argument("--out", default="runs", help="folder below which the run's folder is made (default: runs)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no messages")
    args = parser.parse_args(argv)
    set_quiet(args.quiet)
    config = run_config(args)

    from accelerate import PartialState  # after the arguments are known to be right: torch takes seconds to load

    from medfmc_hf.training import train

    folder, record = train(config, data=args.data, out=args.out)
    if not PartialState().is_main_process:
        return
    test, metric = record.scores["test"], record.subset.metric
    print(f"{record.data['config']} {config.method}: {metric} {100 * test[metric]:.2f}, AUC {100 * test['auc']:.2f} (test, percent)")
    print(folder)


if __name__ == "__main__":
    raise SystemExit(guarded("peft_train.py", main))
