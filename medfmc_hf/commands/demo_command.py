"""Try a run's model, or one on the Hub, on images in the browser. Research use only: not a medical device, not for diagnosis.

    medfmc demo runs/endo-5shot-seed0/lora-...
    medfmc demo ORG/NAME --port 7860

The page is served to this machine alone, and images do not leave it. Needs: pip install "medfmc_hf[demo]"
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN|REPO", help="a run's folder, or ORG/NAME on the Hub")
    parser.add_argument("--example", type=Path, nargs="+", metavar="IMAGE", help="images to offer (default: an invented one)")
    parser.add_argument("--port", type=int, metavar="N", help="port of the page (default: the first free one from 7860)")
    parser.add_argument("--seed", type=int, metavar="N", help="of which split, where there are several (default: the first)")
    parser.add_argument("--backbone", type=Path, metavar="FOLDER", help="where the backbone is, if it is a local one that moved")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, ... (default: a GPU where there is one)")


def run(args: argparse.Namespace) -> None:
    from ..demo import import_gradio, make_demo

    import_gradio()  # its absence is said before a model is loaded
    from ..predict import load_adapted

    adapted = load_adapted(args.model, seed=args.seed, backbone=args.backbone, device=args.device)
    make_demo(adapted, args.example).launch(server_name="127.0.0.1", server_port=args.port, share=False)
