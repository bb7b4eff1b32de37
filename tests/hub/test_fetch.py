"""Which files of a published experiment are fetched, and that they suffice without a network."""

import pytest

from medfmc_hf.errors import MedfmcError
from medfmc_hf.hub.fetch import fetch_adapter

FILES = {
    "run.json": b"{}",
    "backbone.json": b"{}",
    "adapter_model.safetensors": b"w",
    "code.py": b"print()",
    "adapter_model.bin": b"pickle",
}


def publish(client, repo_id: str, *folders: str) -> None:
    files = {f"{folder}{path}": content for folder in folders for path, content in FILES.items()}
    client.add_repo("model", repo_id, {"README.md": b"card", **files})


def fetched(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_one_run_is_fetched_without_code(client):
    publish(client, "clinic/one-run", "")
    assert fetched(fetch_adapter("clinic/one-run")) == {"run.json", "backbone.json", "adapter_model.safetensors"}


def test_of_several_seeds_one_is_fetched(client):
    publish(client, "clinic/seeds", "seed0/", "seed3/")
    assert fetched(fetch_adapter("clinic/seeds", 3)) == {
        f"seed3/{name}" for name in ("run.json", "backbone.json", "adapter_model.safetensors")
    }
    with pytest.raises(MedfmcError, match="no seed 1; it has 0, 3"):
        fetch_adapter("clinic/seeds", 1)


def test_a_cached_run_is_enough_without_a_network(client, monkeypatch):
    from huggingface_hub import constants

    publish(client, "clinic/cached", "")
    first = fetch_adapter("clinic/cached")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_adapter("clinic/cached") == first
    with pytest.raises(MedfmcError, match="not in the cache"):
        fetch_adapter("clinic/never-seen")


def test_other_repositories_are_told_apart(client):
    client.add_repo("model", "clinic/bert", {"config.json": b"{}"})
    with pytest.raises(MedfmcError, match=r"holds no model pushed by medfmc: it has no backbone\.json"):
        fetch_adapter("clinic/bert")
    with pytest.raises(MedfmcError, match=r"no clinic/nothing on the Hub"):
        fetch_adapter("clinic/nothing")
