"""Every step in a minute, without a download, a GPU or a network.

It invents a small MedFMC (medfmc_sample/), builds ./medfmc from it, loads endo-5shot-seed0, adapts a small vision transformer with
random weights by LoRA, scores it, and writes the run's record, predictions, adapter and model card below runs/.
Its numbers say that everything works; they say nothing of medicine.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", default=".", help="where to work (default: here)")
    parser.add_argument("--method", default="lora", help="adaptation method (default: lora)")


def run(args: argparse.Namespace) -> None:
    from ..quickstart import CONFIG, quickstart

    outcome = quickstart(args.folder, args.method)
    record, test = outcome.record, outcome.record.scores["test"]
    cost = record.cost
    print(f"""
{CONFIG}, {args.method}, {record.data["rows"]["train"]} training images of {record.data["patients"]["train"]} studies
{"":14}{"test":>8}{"chance":>9}
{"mAP":14}{100 * test["map"]:7.1f}%{100 * outcome.chance["map"]:8.1f}%
{"AUC":14}{100 * test["auc"]:7.1f}%{100 * outcome.chance["auc"]:8.1f}%
{"trained":14}{cost["trainable_parameters"]:,} of {cost["total_parameters"]:,} parameters
{"seconds":14}{cost["seconds"]["total"]:.0f} for the run, {outcome.seconds:.0f} for everything

Record, predictions, adapter and card: {outcome.folder}

Next, with a real download and a backbone from the Hub:
  medfmc build PATH/TO/MedFMC --out medfmc
  medfmc check medfmc
  accelerate launch recipes/peft_train.py --subset endo --shots 5 --seed 0 --method lora --model facebook/dinov2-small""")
