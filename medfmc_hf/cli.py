"""The `medfmc` command: finds the command's module, runs it, and turns errors into messages.

Each command is a module of `medfmc_hf/commands/` with two functions: `add_arguments(parser)` and `run(args) -> int | None`,
which returns the exit status. A module is imported only when its command is called, so that `medfmc --help` is instant.
"""

import argparse
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType

from .errors import MedfmcError
from .progress import set_quiet
from .version import __version__

# Command -> its summary in `medfmc --help`.
COMMANDS = {
    "quickstart": "an end-to-end run in a minute, on an invented MedFMC: no download, no GPU, no network",
    "build": "make ./medfmc, a dataset folder for load_dataset, from a MedFMC download",
    "check": "audit a build: counts, repeats, and overlap of train, validation and test",
    "benchmark": "run a grid of adaptations: resumable, shared, on one machine or many",
    "score": "score a run, a CSV or a challenge submission, with intervals and a verdict",
    "compare": "compare models on the same test images: differences, intervals, a verdict",
    "report": "make a board of runs: one HTML page, tables, plots, comparisons, and a static Space",
    "submission": "write a challenge submission from runs, or check any submission",
    "cache": "list or clear the cached pixels of earlier runs",
    "predict": "class probabilities of images, from a run's model or one on the Hub (research use only)",
    "demo": "try a model on images in the browser (research use only; needs the extra `demo`)",
    "push": "publish the data set, the metric or a model on the Hub, privately unless told otherwise",
    "install-metric": 'make evaluate.load("medfm_score") work by its bare name',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `medfmc ARGV...` and return the exit status: 0 success, 1 a check failed, 2 a user's mistake, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    return guarded(f"medfmc {chosen}" if chosen in COMMANDS else "medfmc", lambda: _main(argv, chosen))


def _main(argv: list[str], chosen: str | None) -> int | None:
    parser = argparse.ArgumentParser(prog="medfmc", description="MedFMC in the Hugging Face ecosystem.")
    parser.add_argument("--version", action="version", version=f"medfmc_hf {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:
            module = _module_of(name)
            command.description = module.__doc__
            command.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(command)
            command.add_argument("--quiet", action="store_true", help="no progress bars and no messages")
    args = parser.parse_args(argv)
    set_quiet(args.quiet)
    return module.run(args)


def _module_of(command: str) -> ModuleType:
    """Import the module of a command."""
    if command == "quickstart":
        from .commands import quickstart_command

        return quickstart_command
    if command == "build":
        from .commands import build_command

        return build_command
    if command == "check":
        from .commands import check_command

        return check_command
    if command == "benchmark":
        from .commands import benchmark_command

        return benchmark_command
    if command == "score":
        from .commands import score_command

        return score_command
    if command == "compare":
        from .commands import compare_command

        return compare_command
    if command == "report":
        from .commands import report_command

        return report_command
    if command == "submission":
        from .commands import submission_command

        return submission_command
    if command == "cache":
        from .commands import cache_command

        return cache_command
    if command == "predict":
        from .commands import predict_command

        return predict_command
    if command == "demo":
        from .commands import demo_command

        return demo_command
    if command == "push":
        from .commands import push_command

        return push_command
    if command == "install-metric":
        from .commands import install_metric_command

        return install_metric_command
    raise AssertionError(f"the parser lets no other command through; got {command}")


def guarded(name: str, function: Callable[[], int | None]) -> int:
    """Call `function` and return an exit status; a user's mistake or Ctrl-C becomes one message on standard error."""
    try:
        return function() or 0
    except MedfmcError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; what was finished is kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        sys.stderr.close()
        return 0
    except Exception as error:
        if (library := broken_library(error)) is None:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        print(
            f"{name}: the library {library} is missing or broken ({type(error).__name__}: {reason}). Repair it: pip install --upgrade "
            f"{_PACKAGES.get(library, library)}; or install this package in a fresh environment.",
            file=sys.stderr,
        )
        return 2


_PACKAGES = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}
_OPTIONAL = ("gradio", "matplotlib", "timm", "torchvision")  # in extras; the code that needs one reports it


def broken_library(error: BaseException) -> str | None:
    """The library whose import an error comes from; None if it comes from anything else."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        library: str | None = error.name.partition(".")[0]
    else:  # the innermost library whose module was being run for the first time
        bodies = [frame.filename for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
        found = [re.search(r"(?:site|dist)-packages[\\/]([^\\/.]+)", filename) for filename in bodies]
        library = next((match[1] for match in reversed(found) if match), None)
    return library if library not in (None, "medfmc_hf", *_OPTIONAL) else None
