"""Explains in one message why a request to the Hub failed: token, permissions, name, network, proxy, limits."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from .errors import MedfmcError

LOGIN = "Log in once with `hf auth login`, or set HF_TOKEN to a token with write access (from the Hub's page Settings, Access Tokens)."
TRANSIENT = (408, 429, 500, 502, 503, 504)
_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")  # huggingface_hub's HTTP library differs between versions

# Messages by HTTP status when writing; 400 and 500 are used for statuses that are not listed.
_WRITING = {
    401: f"the Hub does not accept the token ({{status}}).{{said}} {LOGIN}",
    403: "the token may not write to {repo_id} ({status}).{said} It needs write access, and its owner to be {organisation} or a member.",
    404: "there is no {repo_id} on the Hub, or the token may not see it ({status}).{said}",
    407: "the proxy {proxy} wants a name and a password ({status}): set HTTPS_PROXY to http://USER:PASSWORD@HOST:PORT.",
    409: "somebody changed {repo_id} at the same time ({status}).{said} Look at it, and run the same command again.",
    412: "somebody changed {repo_id} at the same time ({status}).{said} Look at it, and run the same command again.",
    429: "the Hub asks to slow down ({status}).{said} What was uploaded is kept: run the same command again in some minutes.",
    400: "the Hub refused ({status}).{said}",
    500: "the Hub fails on its own side ({status}), repeatedly.{said} What was uploaded is kept: run the same command again later.",
}
_UNREADABLE = (
    "there is no {repo_id} on the Hub that may be read ({status}): the name is another, or it is private; then log in with "
    "`hf auth login` (or HF_TOKEN) as somebody who may see it.{said}"
)
_WRONG_TOKEN = "the Hub does not accept the token ({status}).{said} Log in again with `hf auth login`, or mend or unset HF_TOKEN."
# Messages by HTTP status when reading.
_READING = _WRITING | {
    401: _UNREADABLE,
    403: "the token may not read {repo_id} ({status}).{said} Ask its owner for access.",
    404: _UNREADABLE,
    429: "the Hub asks to slow down ({status}), and {repo_id} is not in the cache.{said} Try again in some minutes.",
    500: "the Hub fails on its own side ({status}), and {repo_id} is not in the cache.{said} Try again later.",
    511: "the network wants you to log in first ({status}), as a captive portal does; open {endpoint} in a browser.{said}",
}


@contextmanager
def explained(repo_id: str, *, reading: bool = False) -> Iterator[None]:
    """Turn errors of huggingface_hub inside the block into one MedfmcError; other exceptions pass through.

    Args:
        repo_id: repository of the request.
        reading: whether the request reads instead of writing.
    """
    try:
        yield
    except MedfmcError:
        raise
    except Exception as error:
        message = explain(error, repo_id, reading=reading)
        if message is None and reading:  # a repository, or something in its place, may send anything
            first = (str(error).strip().splitlines() or [""])[0]
            message = f"{repo_id} could not be fetched ({type(error).__name__}: {first}). A proxy may have changed what came."
        if message is None:
            raise
        raise MedfmcError(message) from error


def explain(error: BaseException, repo_id: str, *, reading: bool = False) -> str | None:
    """The message for an error of the Hub or of the network; None for other errors."""
    from huggingface_hub import errors

    if isinstance(error, UnicodeEncodeError):
        return "the token has characters that no token has, perhaps an invisible one that was copied along; set HF_TOKEN, or log in, again."
    if isinstance(error, ValueError) and "metadata in README.md" in str(error):
        return f"the Hub does not accept the card's metadata; please report this: {error}"
    for cause in _chain(error):
        if isinstance(cause, errors.RevisionNotFoundError):
            return f"{repo_id} on the Hub has no such revision; give a branch, a tag or a commit that its page lists."
        if isinstance(cause, errors.GatedRepoError):
            return (
                f"{repo_id} is gated: ask for access on its page, {_endpoint()}/{repo_id}, and then log in (`hf auth login`, or HF_TOKEN)."
            )
        if (status := status_of(cause)) is not None:
            return _of_status(status, repo_id, _words(cause), reading)
    for cause in _chain(error):
        name = type(cause).__name__
        if _is_offline(cause):
            if reading:
                return f"{repo_id} is not in the cache, and HF_HUB_OFFLINE is set; unset it, or fetch it where there is a network."
            return "HF_HUB_OFFLINE is set, so nothing is sent to the Hub; unset it to go online."
        if is_foreign(cause):
            return (
                f"{_endpoint()} answered, but not as a Hub does ({name}). A proxy or a captive portal may have answered in its place: open "
                "the address in a browser, or check HTTPS_PROXY and HF_ENDPOINT."
            )
        if isinstance(cause, errors.LocalTokenNotFoundError):
            return f"there is no token, and the Hub must know who pushes. {LOGIN}"
        if isinstance(cause, errors.HFValidationError):
            return f"{repo_id!r} is not a repository id ({cause}); expected ORG/NAME."
        if name == "ProxyError":
            return f"the proxy {_proxy()} did not let {_endpoint()} through ({cause}). Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY."
        if is_network(cause):
            through = f" through the proxy {_proxy()}" if _proxy() else ""
            kept = f"{repo_id} is not in the cache either." if reading else "What was uploaded is kept: run the same command again."
            return f"{_endpoint()} cannot be reached{through} ({name}: {cause}). Check the network and, behind a proxy, HTTPS_PROXY. {kept}"
    if isinstance(error, ValueError) and "LFS batch" in str(error):
        return f"the Hub does not accept a file: {error}"
    return None


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status of an error, or None."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_transient(error: BaseException) -> bool:
    """Whether a retry may help: the network failed, or the Hub asked to wait or had an internal error."""
    statuses = [status for status in map(status_of, _chain(error)) if status is not None]
    return statuses[0] in TRANSIENT if statuses else any(is_network(cause) for cause in _chain(error))


def is_unanswered(error: BaseException) -> bool:
    """Whether the Hub itself gave no answer, so that cached files may be used instead."""
    return is_transient(error) or any(_is_offline(cause) or is_foreign(cause) for cause in _chain(error))


def is_foreign(error: BaseException) -> bool:
    """Whether something other than a Hub answered, such as a captive portal."""
    from huggingface_hub.errors import FileMetadataError

    cut = isinstance(error, OSError) and "Consistency check failed" in str(error)  # a web page instead of a file has another size
    return cut or isinstance(error, (FileMetadataError, json.JSONDecodeError))


def is_network(error: BaseException) -> bool:
    """Whether no answer came at all."""
    if _is_offline(error) or status_of(error) is not None:
        return False
    return isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__.split(".")[0] in _NETWORK


def _is_offline(error: BaseException) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_status(status: int, repo_id: str, words: str, reading: bool) -> str:
    messages = _READING if reading else _WRITING
    message = messages.get(status) or messages[500 if status >= 500 else 400]
    if reading and status == 401 and "credential" in words.lower():
        message = _WRONG_TOKEN
    return message.format(
        status=status,
        repo_id=repo_id,
        organisation=repo_id.split("/")[0],
        said=f" It says: {words}" if words else "",
        proxy=_proxy() or "between here and the Hub",
        endpoint=_endpoint(),
    )


def _words(error: BaseException) -> str:
    words = getattr(error, "server_message", None)
    return (" ".join(words.split()).rstrip(".") + ".") if words else ""


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _proxy() -> str:
    """The proxy in use, without user name and password; empty if there is none."""
    proxies = getproxies()
    value = proxies.get(urlsplit(_endpoint()).scheme) or proxies.get("all", "")
    return urlsplit(value if "//" in value else f"//{value}").netloc.rpartition("@")[2]
