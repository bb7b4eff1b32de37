"""All benchmarks in this folder, one after another: python benchmarks/run.py

It prints the output of each script, and with --write saves it in RESULTS.md with the command, the date, the versions and the device. Run it
on an idle machine. Ratios carry over to other machines; seconds do not.
"""

import argparse
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = {
    "adaptation.py": "Whole runs compared with transformers.Trainer",
    "pixels.py": "Pixels compared with transformers' PIL image processor",
    "score.py": "The score compared with the official code, scikit-learn and torchmetrics",
    "overhead.py": "Start-up, few-shot selection, and overhead of a grid",
    "shortcuts.py": "What each shortcut of a run saves",
    "gpu.py": "GPU",
}
SHORT = {
    "adaptation.py": ["--epochs=2", "--validation=8", "--test=24"],
    "pixels.py": ["--images=2", "--rounds=3"],
    "score.py": ["--quick"],
    "shortcuts.py": ["--rounds=1", "--draws=1"],
}


def heading() -> str:
    sys.path.insert(0, str(HERE.parent))
    from medfmc_hf.runs.provenance import versions

    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "") \
        if Path("/proc/cpuinfo").is_file() else platform.processor()  # fmt: skip
    return f"{date.today()}, {cpu}; " + ", ".join(f"{name} {version}" for name, version in versions().items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="smaller sizes: about ten minutes on two cores")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), help="scripts to run (default: all)")
    parser.add_argument("--write", action="store_true", help="also write RESULTS.md")
    args = parser.parse_args()
    parts = ["# Results\n", heading() + "\n"]
    print("\n".join(parts))
    failed = []
    for name in args.only:
        flags = SHORT.get(name, []) if args.short else []
        done = subprocess.run([sys.executable, str(HERE / name), *flags], stdout=subprocess.PIPE, text=True)
        command = " ".join(["python", f"benchmarks/{name}", *flags])
        text = f"## {SCRIPTS[name]}\n\n`{command}`\n\n{done.stdout.strip()}\n"
        if done.returncode:
            failed.append(name)
            text += f"\nThis stopped with status {done.returncode}.\n"
        print(text, flush=True)
        parts.append(text)
        if args.write:  # after each script, in case a later one is interrupted
            (HERE / "RESULTS.md").write_text("\n".join(parts), encoding="utf-8")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
