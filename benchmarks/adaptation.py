"""Whole runs, compared with transformers.Trainer: python benchmarks/adaptation.py

A ViT-S/16 at 224 (random weights: speed does not depend on them) is adapted by visual prompt tuning to invented images of ColonPath's
size, validated every epoch, tested and saved. Ours is `medfmc_hf.train`; the peer is transformers.Trainer with the same PEFT
method, `datasets`, and transformers' PIL image processor, written as a user would. Same images, batches, epochs, validations and
crops; each in a new process, in alternation. Ours also does five runs, one per seed, in one process.

- wall: seconds of the whole process, including start-up, divided by its runs; median over rounds. cpu: the same in processor time.
- work: wall without importing libraries.
- floor: (training rows x epochs x 2.2 + evaluated rows) x F, where F is one forward pass of one image, timed in the same process.
- memory: peak resident set size, MiB.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BEGIN = time.perf_counter()
CLASSES = ("negative", "positive")


def prepare(folder: Path, images: int) -> None:
    """Write the backbone and the images."""
    import torch
    from pixels import invent
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder / "backbone")
    ViTImageProcessorPil().save_pretrained(folder / "backbone")
    for number in range(images):
        invent(1024, 1024, 3, number).save(folder / f"{number:04}.png")


def splits_of(folder: Path, args: argparse.Namespace, seed: int):
    """The splits of a seed: training images differ between seeds, validation and test do not."""
    import datasets

    train = range(seed * args.train, (seed + 1) * args.train)
    validation = range(args.draws * args.train, args.draws * args.train + args.validation)
    test = range(validation.stop, validation.stop + args.test)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES)),
                                  "image_id": datasets.Value("string"), "patient_id": datasets.Value("string")})  # fmt: skip
    return datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {
                    "image": [{"bytes": None, "path": str(folder / f"{n:04}.png")} for n in numbers],
                    "label": [n % 2 for n in numbers],
                    "image_id": [f"{n:04}" for n in numbers],
                    "patient_id": [f"{n:04}" for n in numbers],
                },
                features=features,
            )
            for name, numbers in (("train", train), ("validation", validation), ("test", test))
        }
    )


def ours(folder: Path, args: argparse.Namespace, seeds: int) -> None:
    from medfmc_hf.runs import RunConfig
    from medfmc_hf.training.one_run import Shared, train

    class Invented(Shared):
        def splits(self, name):
            return self.cached(("splits", name), lambda: splits_of(folder, args, name.seed))

    with tempfile.TemporaryDirectory() as scratch:
        shared = Invented(cache=Path(scratch) / "cache")
        for seed in range(seeds):
            config = RunConfig(
                subset="colon", shots=1, seed=seed, model=str(folder / "backbone"), method="vpt", method_options={"num_prompts": 1},
                epochs=args.epochs, batch_size=4, select="best",
            )  # fmt: skip
            train(config, shared=shared, out=Path(scratch) / "runs")


def trainer(folder: Path, args: argparse.Namespace, seeds: int) -> None:
    import torch
    from peft import get_peft_model
    from PIL import Image
    from transformers import Trainer, TrainingArguments, ViTForImageClassification, ViTImageProcessorPil

    from medfmc_hf.images.augmentation import draw_crop
    from medfmc_hf.tuners import VptConfig

    processor = ViTImageProcessorPil.from_pretrained(folder / "backbone")
    generator = torch.Generator().manual_seed(0)

    def evaluation_view(rows):
        images = [image.convert("RGB") for image in rows["image"]]
        return {"pixel_values": processor(images, return_tensors="pt")["pixel_values"], "labels": rows["label"]}

    def training_view(rows):
        views = []
        for image in rows["image"]:
            top, left, height, width = draw_crop(image.height, image.width, generator)
            view = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
            views.append(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1, generator=generator) < 0.5 else view)
        return {"pixel_values": processor(views, do_resize=False, return_tensors="pt")["pixel_values"], "labels": rows["label"]}

    for seed in range(seeds):
        splits = splits_of(folder, args, seed)
        model = ViTForImageClassification.from_pretrained(folder / "backbone", num_labels=len(CLASSES))
        with tempfile.TemporaryDirectory() as scratch:
            arguments = TrainingArguments(
                scratch, num_train_epochs=args.epochs, per_device_train_batch_size=4, per_device_eval_batch_size=64, learning_rate=1e-3,
                eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True, seed=seed, remove_unused_columns=False,
                disable_tqdm=True, logging_strategy="no",
            )  # fmt: skip
            loop = Trainer(
                get_peft_model(model, VptConfig(num_prompts=1, deep=True)),
                arguments,
                train_dataset=splits["train"].with_transform(training_view),
                eval_dataset=splits["validation"].with_transform(evaluation_view),
            )
            loop.train()
            loop.predict(splits["test"].with_transform(evaluation_view))
            loop.model.save_pretrained(scratch)


def forward_seconds(folder: Path) -> tuple[float, float]:
    """F: wall and processor seconds of a forward pass per image, in a batch of 8, median of five."""
    import torch
    from transformers import ViTForImageClassification

    model, batch, times = ViTForImageClassification.from_pretrained(folder / "backbone").eval(), torch.rand(8, 3, 224, 224), []
    with torch.inference_mode():
        for _ in range(6):
            begin = time.perf_counter(), time.process_time()
            model(pixel_values=batch)
            times.append(((time.perf_counter() - begin[0]) / 8, (time.process_time() - begin[1]) / 8))
    return statistics.median(wall for wall, _ in times[1:]), statistics.median(cpu for _, cpu in times[1:])


def child(args: argparse.Namespace) -> None:
    """Run one alternative in this process and print a line of JSON."""
    import resource

    from medfmc_hf.progress import set_quiet

    set_quiet(True)
    folder, seeds = Path(args.folder), 1 if args.child != "ours x5" else args.draws
    if args.child == "trainer":
        from transformers import Trainer  # noqa: F401
    else:
        import medfmc_hf.training  # noqa: F401
    imported = time.perf_counter()
    if args.child == "trainer":
        trainer(folder, args, seeds)
    else:
        ours(folder, args, seeds)
    work = time.perf_counter() - imported
    usage = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.perf_counter()
    forward = dict(zip(("forward", "forward_cpu"), forward_seconds(folder)))
    print(json.dumps({"work": work / seeds, "cpu": (usage.ru_utime + usage.ru_stime) / seeds, "memory": usage.ru_maxrss / 1024,
                      "probe": time.perf_counter() - begin, **forward}))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"train": 16, "validation": 16, "test": 32, "epochs": 4, "rounds": 3, "draws": 5}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"(default: {value})")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads, one table each (default: 1 2)")
    parser.add_argument("--child", choices=["ours", "ours x5", "trainer"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    evaluated = args.validation * args.epochs + args.test
    forwards = args.train * args.epochs * 2.2 + evaluated
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), args.draws * args.train + args.validation + args.test)
        flags = [f"--{name}={getattr(args, name)}" for name in ("train", "validation", "test", "epochs", "draws")]
        for threads in args.threads:
            results: dict[str, list[dict]] = {"ours": [], "ours x5": [], "trainer": []}
            environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
            for _ in range(args.rounds):
                for name, measured in results.items():
                    begin = time.perf_counter()
                    argv = [sys.executable, __file__, f"--child={name}", f"--folder={folder}", *flags]
                    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
                    if done.returncode:
                        raise SystemExit(done.stderr)
                    wall = time.perf_counter() - begin
                    measured.append(json.loads(done.stdout.splitlines()[-1]))
                    wall -= measured[-1]["probe"]  # without the time to measure F
                    measured[-1]["wall"] = wall / (args.draws if name == "ours x5" else 1)
            show(results, threads, forwards, args)


def show(results: dict[str, list[dict]], threads: int, forwards: float, args: argparse.Namespace) -> None:
    keys = list(results["ours"][0])
    middle = {name: {key: statistics.median(run[key] for run in runs) for key in keys} for name, runs in results.items()}
    print(f"\n{args.train} training images x {args.epochs} epochs at batch 4, {args.validation} validation images each epoch, ", end="")
    print(f"{args.test} test; {threads} thread{'s' * (threads > 1)}, {args.rounds} rounds; seconds per run\n")
    print(f"| what | floor | ours | peer (Trainer) | ours / peer | goal | ours / floor |\n|{'---|' * 7}")
    for name, goal in (("ours", 0.80), ("ours x5", 0.66)):
        for key in ("wall", "work", "cpu"):
            own, peer = middle[name][key], middle["trainer"][key]
            floor = forwards * middle[name]["forward_cpu" if key == "cpu" else "forward"]
            what = {"ours": "one run", "ours x5": f"{args.draws} runs, per run"}[name]
            goal_text = f"{goal:.2f}" if key == "wall" else ""
            print(f"| {what}, {key} | {floor:.1f} | {own:.1f} | {peer:.1f} | {own / peer:.2f} | {goal_text} | {own / floor:.2f} |")
    own, peer = middle["ours"]["memory"], middle["trainer"]["memory"]
    print(f"| peak memory, MiB | | {own:.0f} | {peer:.0f} | {own / peer:.2f} | | |")


if __name__ == "__main__":
    main()
