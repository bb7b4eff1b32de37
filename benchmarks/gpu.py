"""What the hardware allows on a GPU, and how near a sweep comes: python benchmarks/gpu.py

Random weights (speed does not depend on them) and pictures made here. Without a GPU it says so and runs at a toy size, to show that it
runs: its numbers then mean nothing, and are not printed as results.

- product: rate of a bfloat16 matrix product, TFLOP/s. evaluation: the same of a forward pass, and its share (goal 60 %).
- data wait: share of a training step spent on cutting views and normalising (goal 5 %).
- grouped: K = 5 runs at batch 4 in one pass against one by one (goal 3 times).
- grid: 5 subsets x 15 draws x methods, 20 epochs (goal 15 minutes with LoRA, VPT and the bottleneck), and one process a run (goal 10
  times). These take long: --grid.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch


def median_seconds(work, device: torch.device, rounds: int = 5) -> float:
    times = []
    for _ in range(rounds + 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return sorted(times[2:])[rounds // 2]


def make_backbone(folder: Path, toy: bool, size: int) -> Path:
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    shape = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128) if toy else {}
    torch.manual_seed(0)
    ViTModel(ViTConfig(image_size=size, **shape), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)
    return folder


def floating_operations(model, size: int) -> float:
    """Of a forward pass of one picture, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixel_values=torch.zeros(1, 3, size, size, device=device))
    return counter.get_total_flops()


def evaluation(backbone: Path, size: int, device: torch.device, toy: bool) -> None:
    from medfmc_hf.models.backbones import load_backbone
    from medfmc_hf.subsets import SUBSETS

    side = 256 if toy else 8192
    matrix = torch.randn(side, side, dtype=torch.bfloat16, device=device)
    product = 2 * side**3 / median_seconds(lambda: matrix @ matrix, device) / 1e12
    model = load_backbone(str(backbone), SUBSETS["endo"]).to(device)
    count = 8 if toy else 256
    pictures = torch.randn(count, 3, size, size, device=device)
    flops = floating_operations(model, size)

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            model(pixel_values=pictures)

    rate = count * flops / median_seconds(forward, device) / 1e12
    print(f"| evaluation against a bf16 product, TFLOP/s | {product:.1f} | {rate:.1f} | {rate / product:.0%} | at least 60 % |")


def data_wait(backbone: Path, data: Path, device: torch.device) -> None:
    from medfmc_hf import training
    from medfmc_hf.data.pixels import TrainingPixels
    from medfmc_hf.data.processing import normalise
    from medfmc_hf.models import adapt
    from medfmc_hf.runs import RunConfig

    shared = training.Shared(data, cache=data.parent / "cache")
    config = RunConfig(subset="colon", shots=5, model=str(backbone), method="vpt", batch_size=4)
    process, generator = shared.processing(config), torch.Generator().manual_seed(0)
    views = TrainingPixels(shared.splits(config.dataset_config)["train"], process, device=device)
    views.warm()
    with shared.lend(config) as loan:
        loan.adapted = adapt.adapt(loan.backbone, "vpt").to(device).train()

        def batch() -> torch.Tensor:
            return normalise(views.batch([0, 1, 2, 3], generator), process, device=device)

        def step() -> None:
            with torch.autocast(device.type, torch.bfloat16):
                loss = loan.adapted(pixel_values=batch()).logits.float().sum()
            loss.backward()

        waits, steps = median_seconds(batch, device), median_seconds(step, device)
    print(f"| data wait of a training step at batch 4, ms | {1e3 * steps:.2f} | {1e3 * waits:.2f} | {waits / steps:.0%} | at most 5 % |")


def train_alone(config, shared, accelerator) -> None:
    """A run by the plain loop, without test and files."""
    from medfmc_hf import training
    from medfmc_hf.data import loading
    from medfmc_hf.data.pixels import TrainingPixels
    from medfmc_hf.subsets import subset_of

    with shared.lend(config) as loan:
        rows = shared.splits(config.dataset_config)["train"]
        loop = training.Loop(config, subset_of(config.subset), shared.processing(config), accelerator, training.Stopwatch())
        model = training.adapted(loan, config, len(rows)).to(accelerator.device)
        views = TrainingPixels(rows, loop.process, store=shared.pictures, device=accelerator.device)
        loop.fit(model, views, loading.targets_of(rows, loop.subset))


def grouped_training(backbone: Path, data: Path, device: torch.device, epochs: int) -> None:
    from medfmc_hf import training
    from medfmc_hf.benchmark import grouped
    from medfmc_hf.benchmark.grid import Grid

    shared = training.Shared(data, cache=data.parent / "cache")
    for method, options in (("lora", {"lora_dropout": 0.0}), ("vpt", {}), ("adaptformer", {"bottleneck_dropout": 0.0})):
        chosen = {"method": method, "method_options": options}
        values = {"backbones": [str(backbone)], "methods": [chosen], "subsets": ["colon"], "shots": [1]}
        configs = Grid.from_dict(values | {"overrides": {"epochs": epochs, "batch_size": 4, "dtype": "bfloat16"}}).configs()
        accelerator = training.make_accelerator(configs[0])
        seconds: dict[str, float] = {}
        for _ in range(2):  # the first round warms up
            begin = time.perf_counter()
            for config in configs:
                train_alone(config, shared, accelerator)
            middle = time.perf_counter()
            if grouped.train_group(configs, shared, accelerator) is None:
                raise SystemExit(f"{method} was not grouped: something in it draws random numbers.")
            seconds = {"alone": middle - begin, "together": time.perf_counter() - middle}
        ratio = seconds["alone"] / seconds["together"]
        what = f"{method}: {len(configs)} runs in one pass against one by one"
        print(f"| {what} | {seconds['alone']:.1f} s | {seconds['together']:.1f} s | {ratio:.2f} times | at least 3 |")


def whole_grid(backbone: Path, data: Path, epochs: int) -> None:
    grid = data.parent / "grid.yaml"
    grid.write_text(f"""backbones: [{backbone}]
methods:
  - {{method: lora, method_options: {{lora_dropout: 0.0}}}}
  - vpt
  - {{method: adaptformer, method_options: {{bottleneck_dropout: 0.0}}}}
overrides: {{epochs: {epochs}, dtype: auto}}
""")
    begin = time.perf_counter()
    recipe = Path(__file__).resolve().parent.parent / "recipes" / "benchmark.py"
    where = ["--data", str(data), "--out", str(data.parent / "runs"), "--cache", str(data.parent / "cache")]
    subprocess.run([sys.executable, str(recipe), str(grid), *where, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    print(f"| the whole grid, 225 runs | | {(time.perf_counter() - begin) / 60:.1f} min | | 15 min |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="side of the pictures the backbone sees (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="a build with pictures of real sizes; the invented MedFMC's are 64 pixels wide")
    parser.add_argument("--grid", action="store_true", help="also run the whole grid")
    args = parser.parse_args()
    toy = not torch.cuda.is_available()
    device, size = torch.device("cpu" if toy else "cuda"), 32 if toy else args.size
    if toy:
        print("No GPU here: every number is OPEN. What follows is a toy on the CPU, to show that the script runs; it measures nothing.\n")
    else:
        print(f"{torch.cuda.get_device_name()}, ViT-B/16 at {size}\n")
    print(f"| what | floor or peer | ours | ratio | goal |\n|{'---|' * 5}")
    from medfmc_hf.progress import set_quiet

    set_quiet(True)
    warnings.simplefilter("ignore")  # the CPU's attention has no batching rule, which torch says at every size
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        backbone, data = make_backbone(scratch / "backbone", toy, size), args.data
        if data is None:
            from medfmc_hf.data.build import build
            from medfmc_hf.data.sample import make_sample

            data = build([make_sample(scratch / "sample")], scratch / "medfmc").folder
        evaluation(backbone, size, device, toy)
        data_wait(backbone, data, device)
        grouped_training(backbone, data, device, epochs=1 if toy else 20)
        if args.grid:
            whole_grid(backbone, data, epochs=1 if toy else 20)


if __name__ == "__main__":
    main()
