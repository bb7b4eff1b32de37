import os
import subprocess
import sys

import pytest

from medfmc_hf import cli
from medfmc_hf.errors import MedfmcError

HEAVY = ("torch", "transformers", "datasets", "evaluate", "peft", "sklearn", "pandas", "matplotlib")


def loaded_by(code: str) -> set[str]:
    """Which heavy libraries a fresh interpreter has loaded after running `code`."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint(*[m for m in {HEAVY} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(output.splitlines()[-1].split())


def test_importing_the_package_loads_no_heavy_library():
    assert loaded_by("import medfmc_hf; medfmc_hf.SUBSETS, medfmc_hf.RunConfig") == set()


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in cli.COMMANDS)], ids=" ".join)
def test_help_loads_no_heavy_library(argv):
    assert loaded_by(f"from medfmc_hf import cli; cli.main({argv})") == set()


def test_public_names_exist():
    import medfmc_hf

    for name in medfmc_hf.__all__:
        assert getattr(medfmc_hf, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        medfmc_hf.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("raised", "status", "says"), [(MedfmcError("a, not b"), 2, "name: a, not b"), (KeyboardInterrupt(), 130, "interrupted")]
)
def test_mistakes_become_one_message(capsys, raised, status, says):
    def fail():
        raise raised

    assert cli.guarded("name", fail) == status
    assert says in capsys.readouterr().err


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.guarded("name", lambda: 1 / 0)


REFUSES = "raise ImportError('pyarrow requires NumPy 2.0 or newer, found 1.26.0')"


@pytest.mark.parametrize(
    ("library", "code", "argv", "says"),
    [
        ("pyarrow", REFUSES, ["quickstart"], "the library pyarrow is missing or broken (ImportError: pyarrow requires NumPy 2.0"),
        (
            "torch",
            "raise OSError('libcudart.so.13: cannot open')",
            ["quickstart"],
            "the library torch is missing or broken",
        ),
        ("transformers", "import no_such_module_at_all", ["quickstart"], "the library no_such_module_at_all is missing"),
        ("numpy", None, ["score", "runs"], "the library numpy is missing or broken"),
        ("tqdm", None, ["quickstart"], "the library tqdm is missing or broken"),
        ("yaml", None, ["benchmark", "grid.yaml"], "pip install --upgrade pyyaml"),
        ("peft", "x = {}['a']", ["quickstart"], "the library peft is missing or broken (KeyError"),
    ],
)
def test_a_library_that_is_missing_or_broken_is_one_sentence(tmp_path, library, code, argv, says):
    folder = tmp_path / "site-packages"
    (folder / library).mkdir(parents=True)
    missing = f"raise ModuleNotFoundError(\"No module named '{library}'\", name='{library}')"
    (folder / library / "__init__.py").write_text(code or missing)
    (tmp_path / "runs").mkdir()
    script = "import sys; from medfmc_hf.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", script, *argv], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
