"""Adapt a vision backbone to one few-shot config of MedFMC, and score it.

    accelerate launch recipes/peft_train.py --subset endo --shots 5 --seed 0 --method lora --model facebook/dinov2-small

--method selects a recipe from recipes/configs (learning rate, epochs, options of the method), --config another recipe
file; flags override its options. The run writes a folder below --out: run.json (options, scores, cost),
predictions.parquet (every test image) and adapter/ (weights and a model card). A finished run is never repeated.

A run is carried out by medfmc_hf.training.one_run.train with the training loop medfmc_hf.training.loop.Loop: copy them if you need more.
"""

import argparse

from medfmc_hf.cli import guarded
from medfmc_hf.progress import set_quiet


def main(argv: list[str] | None = None) -> None:
    from medfmc_hf.runs.flags import add_run_arguments, run_config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument("--data", default="medfmc", help="folder made by `medfmc build`, or a dataset repository (default: medfmc)")
    parser.add_argument("--out", default="runs", help="parent folder of the run's folder (default: runs)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no messages")
    args = parser.parse_args(argv)
    set_quiet(args.quiet)
    config = run_config(args)

    from accelerate import PartialState  # after the arguments are checked: torch takes seconds to import

    from medfmc_hf.training import train

    folder, record = train(config, data=args.data, out=args.out)
    if not PartialState().is_main_process:
        return
    test, metric = record.scores["test"], record.subset.metric
    print(f"{record.data['config']} {config.method}: {metric} {100 * test[metric]:.2f}, AUC {100 * test['auc']:.2f} (test, percent)")
    print(folder)


if __name__ == "__main__":
    raise SystemExit(guarded("peft_train.py", main))
