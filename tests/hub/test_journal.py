"""What the journal of a long push holds, in another process and after an incomplete write."""

import pytest
from huggingface_hub import CommitOperationAdd

from medfmc_hf.hub.journal import Journal


@pytest.fixture
def home(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    return tmp_path


def journal() -> Journal:
    """The journal as a new process reads it."""
    return Journal("dataset", "clinic/medfmc")


def test_an_uploaded_file_is_known_to_the_next_process(home):
    written = CommitOperationAdd("data/test.parquet", b"rows")
    journal().add("part", written)
    (found,) = journal().uploaded("part").values()
    assert (found.path_in_repo, found.upload_info.sha256) == ("data/test.parquet", written.upload_info.sha256)
    assert found.upload_info.size == 4 and journal().uploaded("other part") == {}


def test_a_part_is_complete_when_all_that_was_expected_is_there(home):
    kept = journal()
    assert not kept.is_complete("part")
    kept.add("part", CommitOperationAdd("a", b"a"))
    assert not kept.is_complete("part"), "what it becomes is not known"
    kept.expect("part", ["a", "b"], {"image": "00"})
    assert not kept.is_complete("part") and not journal().is_complete("part")
    kept.add("part", CommitOperationAdd("b", b"b"))
    assert kept.is_complete("part") and journal().is_complete("part") and not kept.is_complete("other part")
    assert journal().digests("part") == {"image": "00"} and journal().digests("other part") == {}


def test_an_incomplete_line_is_skipped(home):
    kept = journal()
    for name in ("a", "b"):
        kept.add("part", CommitOperationAdd(name, name.encode()))
    text = kept.path.read_text()
    kept.path.write_text(text[:-20])
    assert set(journal().uploaded("part")) == {"a"}


def test_a_line_without_digests_is_read(home):
    """The first builds of version 0.3.0 wrote such lines."""
    kept = journal()
    kept.path.parent.mkdir(parents=True)
    kept.path.write_text('{"key": "part", "expected": []}\n')
    assert journal().is_complete("part") and journal().digests("part") == {}


def test_repositories_and_hubs_do_not_share_one(home, monkeypatch):
    from huggingface_hub import constants

    paths = {journal().path, Journal("model", "clinic/medfmc").path, Journal("dataset", "clinic/other").path}
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    assert len(paths | {journal().path}) == 4


def test_what_is_committed_is_forgotten(home):
    kept = journal()
    kept.expect("part", [])
    kept.add("part", CommitOperationAdd("a", b"a"))
    kept.clear()
    kept.clear()
    assert not kept.path.exists() and not kept.is_complete("part") and not kept.uploaded("part") and not journal().uploaded("part")
