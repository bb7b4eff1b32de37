"""Pushes to a Hub that fails: each ends in one clear message or in exactly one commit."""

import socket

import pytest
from hub_server import Fault, Pointer

from medfmc_hf.errors import MedfmcError
from medfmc_hf.hub.repository import Upload, commit, open_repository

COMMIT = "POST /api/models/clinic/thing/commit"


def upload(**changes) -> Upload:
    files = {"README.md": b"---\ntags: [a]\n---\n", "mark.json": b"{}", "weights.safetensors": b"w" * 1000, "seed0/x.json": b"1"}
    values = {"repo_id": "clinic/thing", "kind": "model", "files": files, "message": "Add", "marks": ("mark.json",)}
    return Upload(**values | changes)


def push(**changes) -> str:
    return commit(open_repository(upload(**changes)))


def committed(hub) -> dict:
    repo = hub.repos["model", "clinic/thing"]
    return {path: hub.content("model", "clinic/thing", path) for path in repo.files if path != ".gitattributes"}


def test_everything_appears_with_one_commit_and_privately(client):
    page = push()
    repo = client.repos["model", "clinic/thing"]
    assert committed(client) == upload().files
    assert isinstance(repo.files["weights.safetensors"], Pointer)
    assert len(repo.commits) == 2 and repo.private
    assert page == f"{client.url}/clinic/thing/tree/{repo.sha}"


def test_public_only_if_told(client):
    push(public=True)
    assert not client.repos["model", "clinic/thing"].private


@pytest.mark.parametrize("public", [False, True])
def test_an_existing_repository_keeps_its_visibility_or_the_push_is_refused(client, public):
    client.add_repo("model", "clinic/thing", {"mark.json": b"{}"}, private=public)
    if public:
        push(public=True)
        assert client.repos["model", "clinic/thing"].private
    else:
        with pytest.raises(MedfmcError, match="is public"):
            push()
        assert len(client.repos["model", "clinic/thing"].commits) == 1


def test_a_second_push_adds_and_removes_only_what_it_names(client, capsys):
    push()
    new = {"README.md": b"---\ntags: [b]\n---\n", "mark.json": b"{}", "seed1/x.json": b"2"}
    push(files=new, removed=["seed0/x.json", "never/there.json", "mark.json"])
    assert set(committed(client)) == {"README.md", "mark.json", "seed1/x.json", "weights.safetensors"}
    assert "1 files of" in (said := capsys.readouterr().err) and "removed: seed0/x.json" in said
    assert len(client.repos["model", "clinic/thing"].commits) == 3


def test_the_same_push_twice_makes_no_second_commit(client):
    first, second = push(), push()
    assert first == second and len(client.repos["model", "clinic/thing"].commits) == 2


def test_somebody_elses_repository_is_left_alone(client):
    repo = client.add_repo("model", "clinic/thing", {"README.md": b"mine"})
    with pytest.raises(MedfmcError, match=r"holds something else .* --overwrite"):
        push()
    assert len(repo.commits) == 1
    push(overwrite=True)
    assert committed(client) == upload().files


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("POST /api/repos/create", 401, message="Invalid token"), "does not accept the token .*Invalid token.*hf auth login"),
        (Fault("POST /api/repos/create", 403, message="read-only token"), "may not write to clinic/thing .*read-only token"),
        (Fault("POST /api/repos/create", 500), "fails on its own side .500."),
        (Fault("GET /api/models/clinic/thing", 404), "was created but is not visible yet"),
        (Fault("GET /api/models/clinic/thing", 401, message="Invalid token"), "does not accept the token .*Invalid token.*hf auth login"),
        (Fault("POST .*/preupload", 403), "may not write"),
        (Fault("POST .*/preupload", 429, message="too many requests"), "slow down .429.*too many requests.*again"),
        (Fault("POST .*objects/batch", 500), "fails on its own side"),
        (Fault("PUT /lfs", 403), "may not write"),
        (Fault("PUT /lfs", "cut"), "cannot be reached"),
        (Fault("POST /api/validate-yaml", 400), "card's metadata"),
        (Fault(COMMIT, 409, message="conflict"), "at the same time .409."),
        (Fault(COMMIT, 412), "at the same time"),
        (Fault(COMMIT, 429), "slow down"),
        (Fault(COMMIT, 503), "fails on its own side .503."),
        (Fault(COMMIT, "cut"), "cannot be reached .*run the same command again"),
    ],
)
def test_a_permanent_failure_ends_in_one_message_and_changes_nothing(client, fault, says):
    client.faults.append(fault)
    with pytest.raises(MedfmcError, match=says):
        push()
    repo = client.repos.get(("model", "clinic/thing"))
    assert repo is None or len(repo.commits) == 1
    client.faults.clear()
    push()  # and the same command then works
    assert committed(client) == upload().files
    assert len(client.repos["model", "clinic/thing"].commits) == 2


@pytest.mark.parametrize("answer", [429, 500, 503, "cut", "cut-after"])
@pytest.mark.parametrize("request_", ["POST /api/repos/create", "POST .*/preupload", "POST .*objects/batch", "PUT /lfs", COMMIT])
def test_a_transient_failure_is_retried(client, request_, answer):
    client.faults.append(Fault(request_, answer, times=2 if answer != "cut-after" else 1))
    push()
    assert client.faults[0].times == 0
    assert committed(client) == upload().files
    assert len(client.repos["model", "clinic/thing"].commits) == 2, "a commit is not made again if only its answer did not arrive"


def test_a_commit_of_somebody_else_is_not_taken_for_ours(client):
    push()
    repo = client.repos["model", "clinic/thing"]
    client.faults.append(Fault(COMMIT, "cut"))
    changed = upload().files | {"seed0/x.json": b"new"}
    opened = open_repository(upload(files=changed))
    client.commit(repo, "somebody else's", {**repo.files, "seed0/x.json": b"theirs"})
    with pytest.raises(MedfmcError, match="cannot be reached"):
        commit(opened)


def test_a_concurrent_change_is_not_overwritten(client):
    opened = open_repository(upload())
    repo = client.repos["model", "clinic/thing"]
    client.commit(repo, "somebody else's", {**repo.files, "README.md": b"theirs"})
    with pytest.raises(MedfmcError, match="at the same time"):
        commit(opened)
    assert repo.files["README.md"] == b"theirs"


def test_without_a_token_nothing_is_asked(client, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(MedfmcError, match=r"no token.*hf auth login"):
        push()
    assert client.requests == []


def test_a_wrong_token_and_a_foreign_organisation(client, monkeypatch):
    with pytest.raises(MedfmcError, match=r"may not write to strangers/thing"):
        push(repo_id="strangers/thing")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(MedfmcError, match=r"does not accept the token .401."):
        push()


def test_offline_mode_is_respected(client, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MedfmcError, match="HF_HUB_OFFLINE is set"):
        push()
    assert client.requests == []


def test_no_network_and_a_dead_proxy_are_told_apart(client, monkeypatch):
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        with pytest.raises(MedfmcError, match=rf"127.0.0.1:{port} cannot be reached \("):
            push()
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{port}")
        close_session()
        with pytest.raises(MedfmcError, match=rf"through the proxy 127.0.0.1:{port}") as error:
            push()
        assert "secret" not in str(error.value)


def test_a_proxy_that_wants_a_password(client, monkeypatch):
    from huggingface_hub.utils import close_session

    client.faults.append(Fault("", 407))
    monkeypatch.setenv("http_proxy", client.url)
    close_session()
    with pytest.raises(MedfmcError, match=r"the proxy 127.0.0.1:.* wants a name and a password .407."):
        push()


@pytest.mark.parametrize("repo_id", ["thing", "a/b/c", "a/..", "", "a b/c"])
def test_an_invalid_name_is_refused_before_anything_is_sent(repo_id):
    with pytest.raises(MedfmcError, match="not a repository id"):
        upload(repo_id=repo_id)


def test_the_tree_of_a_dry_run():
    text = upload(removed=["old.bin"]).tree()
    assert text.splitlines()[0] == "private model clinic/thing"
    assert "  1,000  weights.safetensors" in text and "removed  old.bin" in text
    assert text.endswith("4 files, 1,021 bytes. Nothing was sent.")
