"""The folders that stand beside the package in a clone and inside it in a wheel."""

import pytest

from medfmc_hf import shipped as module
from medfmc_hf.errors import MedfmcError
from medfmc_hf.shipped import shipped


def test_recipes_and_metric_are_found():
    assert "method: lora" in shipped("recipes/configs/lora.yaml").read_text(encoding="utf-8").splitlines()
    assert (shipped("metrics/medfm_score") / "medfm_score.py").is_file()


def test_what_is_inside_the_package_goes_first(tmp_path, monkeypatch):
    package = tmp_path / "package"
    monkeypatch.setattr(module, "_PACKAGE", package)
    for folder in (tmp_path, package):
        (folder / "recipes").mkdir(parents=True)
        (folder / "recipes" / "both.yaml").touch()
    (tmp_path / "recipes" / "clone.yaml").touch()
    assert shipped("recipes/both.yaml") == package / "recipes" / "both.yaml"
    assert shipped("recipes/clone.yaml") == tmp_path / "recipes" / "clone.yaml"
    with pytest.raises(MedfmcError, match=r"recipes/none\.yaml is not part of this installation") as error:
        shipped("recipes/none.yaml")
    assert str(package / "recipes") in str(error.value) and str(tmp_path / "recipes") in str(error.value)
