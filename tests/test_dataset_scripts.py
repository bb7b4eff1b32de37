"""The scripts that make, audit and publish the data set, as a person runs them."""

import subprocess
import sys
from pathlib import Path

import pytest
from trees import figshare

SCRIPTS = Path(__file__).parents[1] / "dataset_scripts"

if not SCRIPTS.is_dir():
    pytest.skip("not a clone", allow_module_level=True)


def run(name: str, *words: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPTS / name), *map(str, words)], capture_output=True, text=True, cwd=cwd)


def test_make_audit_and_publish(tmp_path):
    figshare(tmp_path / "download", "retino")
    made = run("build.py", tmp_path / "download", "--out", "data", "--quiet", cwd=tmp_path)
    assert made.returncode == 0 and "data is ready" in made.stdout, made.stderr
    audited = run("check.py", "data", "--quiet", cwd=tmp_path)
    assert audited.returncode == 0 and "retino-1shot-seed0" in audited.stdout, audited.stderr
    shown = run("publish.py", "data", "--repo-id", "clinic/data", "--dry-run", cwd=tmp_path)
    assert shown.returncode == 0 and "data/retino/test.parquet" in shown.stdout and "Nothing was sent" in shown.stdout, shown.stderr
    refused = run("publish.py", "data", "--repo-id", "clinic/data", cwd=tmp_path)
    assert refused.returncode == 2 and "--i-have-the-rights" in refused.stderr and "Traceback" not in refused.stderr
    next((tmp_path / "download/Retino/images").iterdir()).unlink()
    broken = run("check.py", "data", "--quiet", cwd=tmp_path)
    assert broken.returncode == 1 and "1 linked images are not there any more" in broken.stdout, broken.stderr
    wrong = run("build.py", tmp_path / "nowhere", cwd=tmp_path)
    assert wrong.returncode == 2 and "\nbuild.py: there is no" in wrong.stderr
