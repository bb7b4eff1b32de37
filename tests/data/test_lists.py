"""Fetching the public lists, from a server on this machine that behaves and misbehaves like the real one."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from medfmc_hf.data import lists
from medfmc_hf.errors import MedfmcError
from medfmc_hf.subsets import SUBSETS


class Server(ThreadingHTTPServer):
    """Serves `files` (path -> content) and counts requests; the first `failures` requests end in status 503."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.failures = {}, [], 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        self.server.failures -= 1
        content = self.server.files.get(self.path.lstrip("/"))
        status = 503 if self.server.failures >= 0 else 200 if content is not None else 404
        self.send_response(status)
        self.end_headers()
        if status == 200:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(lists.time, "sleep", lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def invented(server, monkeypatch):
    """Invented lists of retino and endo, pinned in place of the real ones."""
    server.files = {path: f"{path} 0\n".encode() for key in ("retino", "endo") for path in lists.published_lists(SUBSETS[key])}
    pins = {path: lists.digest_of(content) for path, content in server.files.items()}
    monkeypatch.setattr(lists, "pins", lambda: pins)
    return server


def test_fetches_what_is_missing_and_nothing_else(invented, tmp_path):
    root = lists.fetch_lists([SUBSETS["retino"]], tmp_path, invented.url)
    assert root == tmp_path and len(invented.requests) == 2
    path = root / lists.PAPER / "Retino" / "fewshot-pool.txt"
    assert path.read_bytes() == invented.files[f"{lists.PAPER}/Retino/fewshot-pool.txt"]
    lists.fetch_lists([SUBSETS["retino"]], tmp_path, invented.url)
    assert len(invented.requests) == 2
    path.write_text("cut o")
    lists.fetch_lists([SUBSETS["retino"]], tmp_path, invented.url + "/")
    assert len(invented.requests) == 3 and path.read_bytes().endswith(b" 0\n")


def test_goes_on_where_it_stopped(invented, tmp_path):
    paths = lists.published_lists(SUBSETS["endo"])
    gone = {path: invented.files.pop(path) for path in paths[20:]}
    with pytest.raises(MedfmcError, match=r"could not be fetched: HTTP Error 404"):
        lists.fetch_lists([SUBSETS["endo"]], tmp_path, invented.url)
    cached = [path for path in paths if (tmp_path / path).is_file()]
    assert cached and set(cached) <= set(paths[:20]) and not list(tmp_path.rglob("*.part"))
    invented.files |= gone
    invented.requests.clear()
    lists.fetch_lists([SUBSETS["endo"]], tmp_path, invented.url)
    assert len(invented.requests) == len(paths) - len(cached)
    assert all((tmp_path / path).is_file() for path in paths)


def test_tries_again_when_the_server_is_busy(invented, tmp_path):
    invented.failures = 2
    lists.fetch_lists([SUBSETS["retino"]], tmp_path, invented.url)
    assert len(invented.requests) == 4


def test_another_content_is_refused(invented, tmp_path):
    path = lists.published_lists(SUBSETS["retino"])[0]
    invented.files[path] = b"<html>log in to the proxy</html>"
    with pytest.raises(MedfmcError, match=r"is not the published list: its SHA-256 is [0-9a-f]{64}, expected"):
        lists.fetch_lists([SUBSETS["retino"]], tmp_path, invented.url)
    assert not (tmp_path / path).exists()


def test_offline(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(MedfmcError, match=r"(?s)could not be fetched.*HTTPS_PROXY.*--lists"):
        lists.fetch_lists([SUBSETS["retino"]], tmp_path, server.url)


def test_a_mirror_needs_an_address(tmp_path):
    with pytest.raises(MedfmcError, match="is no address of a mirror"):
        lists.fetch_lists([SUBSETS["retino"]], tmp_path, "lists.example")


def test_a_proxy_is_used(invented, tmp_path, monkeypatch):
    """As for urllib everywhere: the proxy is asked for the whole address."""
    monkeypatch.setenv("http_proxy", invented.url)
    monkeypatch.setenv("no_proxy", "")
    invented.files |= {f"http://lists.example/{path}": content for path, content in invented.files.items()}
    lists.fetch_lists([SUBSETS["retino"]], tmp_path, "http://lists.example")
    assert all(path.startswith("http://lists.example/") for path in invented.requests)


def test_lists_are_cached_in_the_hugging_face_home(invented, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    assert lists.fetch_lists([SUBSETS["retino"]], base_url=invented.url) == tmp_path / "medfmc" / "lists"
    assert (tmp_path / "medfmc" / "lists" / lists.PAPER / "Retino" / "test.txt").is_file()


def test_names():
    assert lists.kind_of("endo_5-shot_train_exp1.txt") == ("5-shot_train_exp1", "endo") == (lists.few_shot_list(5, 0, "train"), "endo")
    assert lists.kind_of("Test_WithLabel.TXT") == (lists.TEST_LABELLED, None)
    assert lists.kind_of("readme.txt") is lists.kind_of("trainval.csv") is lists.kind_of("trainval") is None
    assert [len(lists.published_lists(subset)) for subset in SUBSETS.values()] == [35, 35, 35, 2, 2]


def test_digest_does_not_depend_on_line_ends():
    assert lists.digest_of(b"a 0\r\nb 1") == lists.digest_of(b"a 0\nb 1\n") != lists.digest_of(b"b 1\na 0\n")


def test_pins_are_those_of_the_real_lists(shared):
    checked = 0
    for path, digest in lists.pins().items():
        part = path.split("/data_backup/MedFMC/" if "data_backup" in path else f"{lists.PAPER}/")[1]
        file = (shared / "openmedlab" / "MedFMC" if "data_backup" in path else shared / "paper_lists") / part
        assert lists.digest_of(file.read_bytes()) == digest and digest in lists.published_digests()
        checked += 1
    assert checked == 115
    assert {path for subset in SUBSETS.values() for path in lists.published_lists(subset)} <= set(lists.pins())
