"""What an error of the Hub or of the network is said to be, in one sentence, and whether it is worth another try."""

import json

import pytest
from huggingface_hub.errors import FileMetadataError, OfflineModeIsEnabled

from medfmc_hf.errors import MedfmcError
from medfmc_hf.hub_answers import TRANSIENT, explain, explained, is_foreign, is_transient, is_unanswered, status_of

ALL = (400, 401, 403, 404, 407, 409, 412, 418, 429, 500, 502, 503, 504, 511)


class Answer(Exception):
    """An error that stands for an HTTP status, with the Hub's own words."""

    def __init__(self, status: int, words: str | None = None) -> None:
        self.response = type("Response", (), {"status_code": status})()
        self.server_message = words


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("status", ALL)
@pytest.mark.parametrize("reading", [False, True])
def test_every_status_is_said_with_the_words_of_the_hub(status, reading):
    said = explain(Answer(status, "Too {bad}.\n  Sorry"), "org/vit", reading=reading)
    assert f"({status})" in said and "\n" not in said
    assert "Too {bad}. Sorry." in said or status == 407
    if reading:
        assert "upload" not in said and "write" not in said


def test_what_was_to_be_written_and_what_was_to_be_read_are_told_apart():
    assert "may not write to org/vit" in explain(Answer(403), "org/vit") and "org or a member" in explain(Answer(403), "org/vit")
    assert "may not read org/vit" in explain(Answer(403), "org/vit", reading=True)
    assert "What was uploaded is kept" in explain(Answer(503), "org/vit")
    assert "org/vit is not in the cache" in explain(Answer(503), "org/vit", reading=True)
    assert "there is no org/vit" in explain(Answer(401), "org/vit", reading=True)
    assert "mend or unset HF_TOKEN" in explain(Answer(401, "Invalid credentials"), "org/vit", reading=True)


def test_the_status_is_that_of_the_nearest_answer():
    error = caused(RuntimeError("while uploading"), caused(Answer(429), Answer(500)))
    assert "(429)" in explain(error, "org/vit") and is_transient(error)
    assert not is_transient(caused(RuntimeError("while uploading"), caused(Answer(403), ConnectionError("reset"))))
    assert status_of(Answer(404)) == 404 and status_of(RuntimeError()) is None and status_of(None) is None


def test_another_try_helps_where_the_network_or_the_hub_failed():
    assert {status for status in ALL if is_transient(Answer(status))} == {*TRANSIENT} & {*ALL}
    assert is_transient(TimeoutError()) and is_transient(caused(ValueError("no json"), ConnectionResetError()))
    assert not is_transient(ValueError("no json")) and not is_transient(OfflineModeIsEnabled("offline"))


def test_a_cache_may_serve_where_no_hub_answered():
    page = json.JSONDecodeError("Expecting value", "<html>", 0)
    for error in (page, FileMetadataError("no size"), OSError("Consistency check failed: file should be of size 3 but has size 9")):
        assert is_foreign(error) and is_unanswered(error) and not is_transient(error)
        assert "not as a Hub does" in explain(error, "org/vit")
    assert is_unanswered(OfflineModeIsEnabled("offline")) and is_unanswered(Answer(503))
    assert not is_unanswered(Answer(404)) and not is_foreign(OSError("No space left on device"))


def test_offline_mode_says_what_it_keeps_from_happening():
    assert "nothing is sent" in explain(OfflineModeIsEnabled("offline"), "org/vit")
    assert "not in the cache" in explain(OfflineModeIsEnabled("offline"), "org/vit", reading=True)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("https_proxy", "http://me:secret@proxy.clinic:8080", "proxy.clinic:8080"),
        ("HTTPS_PROXY", "proxy.clinic:8080", "proxy.clinic:8080"),
        ("ALL_PROXY", "socks5://proxy.clinic", "proxy.clinic"),
    ],
)
def test_the_proxy_is_named_without_its_password(monkeypatch, name, value, shown):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    for each in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(each, raising=False)
    assert "through" not in explain(ConnectionError("refused"), "org/vit")
    monkeypatch.setenv(name, value)
    said = explain(ConnectionError("refused"), "org/vit")
    assert f"https://hub.example cannot be reached through the proxy {shown} (" in said and "secret" not in said


def test_other_errors_pass_unless_something_was_read():
    with pytest.raises(ZeroDivisionError), explained("org/vit"):
        raise ZeroDivisionError
    with pytest.raises(MedfmcError, match=r"org/vit could not be fetched \(KeyError: 'weights'\)"), explained("org/vit", reading=True):
        raise KeyError("weights")
    ours = MedfmcError("our own words")
    with pytest.raises(MedfmcError) as caught, explained("org/vit", reading=True):
        raise ours
    assert caught.value is ours
