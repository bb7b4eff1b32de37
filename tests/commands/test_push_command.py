"""`medfmc push` as a person types it."""

import pytest
from adapted_runs import adapted_run
from hub_server import environment, python, serve

from medfmc_hf.cli import main
from medfmc_hf.quickstart import make_backbone


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("push")
    return adapted_run(root / "runs", make_backbone(root / "backbone"))


def test_a_dry_run_shows_the_tree_and_the_bytes(run, capsys):
    assert main(["push", "model", str(run), "--repo-id", "clinic/x", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("private model clinic/x\n") and out.endswith("Nothing was sent.\n")
    assert f"{(run / 'adapter' / 'adapter_model.safetensors').stat().st_size:,}  adapter_model.safetensors" in out
    assert main(["push", "metric", "--repo-id", "clinic/medfm_score", "--dry-run", "--public"]) == 0
    assert "public space clinic/medfm_score" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["metric", "--repo-id", "clinic/other"], "--repo-id ORG/medfm_score"),
        (["metric", "--repo-id", "medfm_score"], "expected ORG/NAME"),
        (["model", "nowhere", "--repo-id", "clinic/x"], "nowhere does not exist"),
        (["dataset", "nowhere", "--repo-id", "clinic/x"], "no folder nowhere"),
        (["metric", "--repo-id", "clinic/medfm_score"], "HF_TOKEN"),
    ],
)
def test_mistakes_end_in_one_message(arguments, says, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert main(["push", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("medfmc push: ") and says in error and "Traceback" not in error


def test_a_mistake_in_a_real_process_shows_no_traceback(run, tmp_path):
    with serve() as hub:
        hub.add_repo("model", "clinic/x", {"README.md": b"mine"})
        code = "import sys; from medfmc_hf.cli import main; sys.exit(main(sys.argv[1:]))"
        done = python(code, environment(hub, tmp_path), "push", "model", run, "--repo-id", "clinic/x")
    assert done.returncode == 2
    assert "holds something else" in done.stderr and "Traceback" not in done.stderr
