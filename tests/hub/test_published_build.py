"""What happens to the content of a repository when a build is pushed to it."""

import json

import pytest

from medfmc_hf.errors import MedfmcError
from medfmc_hf.hub.published_build import PublishedBuild, files_named, published_build
from medfmc_hf.hub.repository import Repository, Upload
from medfmc_hf.subsets import SUBSETS


def manifest(*configs: str, max_side: int | None = None) -> dict:
    """A manifest of configs, each with a test split in a separate file."""
    files = {name: {"test": {"files": [f"data/{name}.parquet"]}} for name in configs}
    return {"schema": 3, "max_side": max_side, "subsets": {name.split("-")[0]: {"of": [*configs]} for name in configs}, "configs": files}


def repository(*paths: str) -> Repository:
    return Repository(Upload("clinic/medfmc", "dataset", {}, "Add", ("medfmc_build.json",)), paths=list(paths))


def there(held: dict, replaced=("endo",)) -> PublishedBuild:
    return PublishedBuild(repository("README.md", *files_named(held["configs"])), held, replaced)


def test_in_an_empty_repository_nothing_stays_or_is_removed():
    pushed = manifest("retino", "endo")
    for empty in (published_build(None, pushed["subsets"], 3), published_build(repository("data.csv"), pushed["subsets"], 3)):
        empty.check_beside(pushed)
        assert empty.merged(pushed) == pushed and empty.stale([]) == [] and empty.card() == ""


def test_merged_subsets_are_in_the_usual_order():
    held, pushed = manifest("retino", "endo", "chest"), manifest("endo", "endo-5shot-seed0") | {"form": "embedded"}
    merged = there(held).merged(pushed)
    assert list(merged["subsets"]) == ["chest", "endo", "retino"] and merged["form"] == "embedded"
    assert list(merged["configs"]) == ["chest", "endo", "endo-5shot-seed0", "retino"]
    assert merged["subsets"]["endo"] == pushed["subsets"]["endo"] and merged["subsets"]["chest"] == held["subsets"]["chest"]


def test_only_unused_files_of_replaced_configs_are_removed():
    held = manifest("retino", "endo", "endo-5shot-seed0")
    build = there(held)
    assert build.stale(["data/endo.parquet"]) == ["data/endo-5shot-seed0.parquet"]
    assert there(held, SUBSETS).stale([]) == sorted(files_named(held["configs"]))
    build.repository.paths.remove("data/endo-5shot-seed0.parquet")
    assert build.stale(["data/endo.parquet"]) == [], "it is not there"


def test_images_of_two_sizes_and_missing_configs_are_refused():
    held = manifest("retino", "endo", "endo-5shot-seed0", max_side=512)
    with pytest.raises(MedfmcError, match="holds retino with images of at most 512 pixels a side, and this push has any number of"):
        there(held).check_beside(manifest("endo", "endo-5shot-seed0"))
    with pytest.raises(MedfmcError, match="1 configs that this build lacks, such as endo-5shot-seed0"):
        there(held).check_beside(manifest("endo", max_side=512))
    there(held).check_beside(manifest("endo", "endo-5shot-seed0", max_side=512))
    there(manifest("endo", max_side=512)).check_beside(manifest("endo"))  # all of it is replaced


def test_it_is_read_at_the_commit_that_was_looked_at(cache):
    held = manifest("retino")
    repo = cache.add_repo("dataset", "clinic/medfmc", {"medfmc_build.json": json.dumps(held).encode(), "README.md": b"card"})
    looked_at = repository(*repo.files)
    looked_at.sha = repo.sha
    cache.commit(repo, "later", {**repo.files, "medfmc_build.json": b"{}", "README.md": b"another"})
    build = published_build(looked_at, ["endo"], 3)
    assert build.manifest == held and build.card() == "card"
    assert published_build(looked_at, ["retino"], 3).card() == "", "nothing that it speaks of stays"
    with pytest.raises(MedfmcError, match="build with another layout"):
        published_build(looked_at, ["endo"], 4)
