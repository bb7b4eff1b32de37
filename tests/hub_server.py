"""A small Hub on loopback: the endpoints that huggingface_hub, datasets, evaluate and peft call to push and to load, in memory.

It is written from what the clients send and expect, checks what the real Hub checks (token, names, parent commit, YAML heads, presence of
uploaded objects) and can fail on purpose. Clients find it through `HF_ENDPOINT`, which they read at import, so they run in fresh processes.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from patience import PATIENCE

TOKEN = "hf_loopback"
USER, ORG = "alice", "clinic"
TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}
LFS_ENDINGS = (".parquet", ".safetensors", ".bin", ".png")


@dataclass
class Fault:
    """A failure to simulate.

    Attributes:
        request: regular expression over `METHOD /path`.
        answer: HTTP status; `cut` (the connection ends without an answer), `cut-after` (it ends after the work was done) or `portal` (a web
            page with status 200, as a captive portal sends it).
        times: number of matching requests that fail; later ones succeed.
        skip: number of matching requests that succeed first.
        message: the server's error message.
    """

    request: str
    answer: int | str
    times: int = 10**9
    skip: int = 0
    message: str = "on purpose"


@dataclass
class Repo:
    """A repository: its commits, newest last, each a (oid, message, path -> content) with LFS files as their SHA-256 in a `Pointer`.

    `refs` are tags and branches other than `main`, by name; a gated repository has a public page, and nobody may read its files.
    """

    private: bool
    commits: list[tuple[str, str, dict]] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    @property
    def sha(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict:
        return self.commits[-1][2]


@dataclass(frozen=True)
class Pointer:
    """An LFS file: the SHA-256 and size of its content."""

    oid: str
    size: int


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(ThreadingHTTPServer):
    """The server and its state. `requests` lists `METHOD /path` of everything it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.received = 0  # bytes of LFS content
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def content(self, kind: str, repo_id: str, path: str) -> bytes:
        """A committed file, LFS or not."""
        found = self.repos[kind, repo_id].files[path]
        return self.objects[found.oid] if isinstance(found, Pointer) else found

    def add_repo(self, kind: str, repo_id: str, files: dict[str, bytes] | None = None, private: bool = True) -> Repo:
        """Add an existing repository."""
        repo = self.repos[kind, repo_id] = Repo(private)
        self.commit(repo, "initial commit", {".gitattributes": b"*.parquet filter=lfs\n", **(files or {})})
        return repo

    def commit(self, repo: Repo, message: str, files: dict) -> str:
        oid = hashlib.sha1(f"{len(repo.commits)} {message} {sorted(files)}".encode()).hexdigest()
        repo.commits.append((oid, message, dict(files)))
        return oid

    def handle_error(self, request, client_address) -> None:
        """Ignore clients that disconnect. Any other error is a bug of this server and is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Answered(Exception):
    """Raised when the request has been answered."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise every answer waits 40 ms for an acknowledgement
    server: Hub

    def log_message(self, *args) -> None:
        pass

    def _any(self) -> None:
        split = urlsplit(self.path)
        self.route, self.query = unquote(split.path), parse_qs(split.query)
        name = f"{self.command} {self.route}"
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._read_chunks()
        with self.server.lock:
            self.server.requests.append(name)
            fault = self._fault(name)
        self.cut_after = False
        if fault:
            if fault.answer == "cut":
                self.close_connection = True
                self.connection.close()
                return
            self.cut_after = fault.answer == "cut-after"
        try:
            if fault and fault.answer == "portal":
                self._answer(200, b"<!DOCTYPE html><html><body>Please log in</body></html>", {"Content-Type": "text/html"})
            if fault and not self.cut_after:
                self._answer(fault.answer, {"error": fault.message})
            self._dispatch()
            self._answer(404, {"error": f"this server has no {name}"})
        except Answered:
            pass

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _any

    def _read_chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _fault(self, name: str) -> Fault | None:
        for fault in self.server.faults:
            if re.search(fault.request, name) and fault.times > 0:
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def _answer(self, status: int, value=None, headers: dict | None = None) -> None:
        if self.cut_after:
            self.close_connection = True
            self.connection.close()
            raise Answered
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        if isinstance(value, dict) and "error" in value:
            self.send_header("X-Error-Message", value["error"])
            if "code" in value:
                self.send_header("X-Error-Code", value["code"])
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        raise Answered

    # -- permissions

    def _known(self) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token != TOKEN:
            self._answer(401, {"error": "Invalid credentials in Authorization header"})
        return bool(token)

    def _repo(self, kind: str, repo_id: str) -> Repo:
        repo = self.server.repos.get((kind, repo_id))
        if repo is None or (repo.private and not self._known()):
            self._answer(404 if self._known() else 401, {"error": "Repository not found", "code": "RepoNotFound"})
        return repo

    def _writable(self, kind: str, repo_id: str) -> Repo:
        if not self._known():
            self._answer(401, {"error": "Invalid username or password."})
        repo = self._repo(kind, repo_id)
        if repo_id.split("/")[0] not in (USER, ORG):
            self._answer(403, {"error": f"You do not have write access to {repo_id}"})
        return repo

    # -- the endpoints

    def _dispatch(self) -> None:
        if self.route == "/api/repos/create":
            self._create()
        if self.route == "/api/validate-yaml":
            self._validate_yaml(json.loads(self.body)["content"])
        if found := re.fullmatch(r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/(.*))?", self.route):
            kind, repo_id, rest = TYPES[found[1]], found[2], found[3] or ""
            action, _, more = rest.partition("/")
            if self.command == "GET" and action in ("", "revision"):
                self._info(kind, repo_id, more)
            if action == "preupload":
                self._preupload(kind, repo_id)
            if action == "commit":
                self._commit(kind, repo_id)
            if action in ("tree", "paths-info"):
                self._list(kind, repo_id, more.partition("/")[2], action == "paths-info")
        if found := re.fullmatch(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.route):
            self._batch(TYPES[found[1] or "models"], found[2])
        if self.command == "PUT" and (found := re.fullmatch(r"/lfs/([0-9a-f]{64})", self.route)):
            self._store(found[1])
        if found := re.fullmatch(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.route):
            self._resolve(TYPES[found[1] or "models"], found[2], found[3], found[4])

    def _create(self) -> None:
        wanted = json.loads(self.body)
        if not self._known():
            self._answer(401, {"error": "Invalid username or password."})
        owner = wanted.get("organization") or USER
        if owner not in (USER, ORG):
            self._answer(403, {"error": f'You don\'t have the rights to create a {wanted["type"]} under the namespace "{owner}".'})
        kind, repo_id = wanted.get("type", "model"), f"{owner}/{wanted['name']}"
        where = {"model": "", "dataset": "datasets/", "space": "spaces/"}[kind] + repo_id
        if (kind, repo_id) in self.server.repos:
            self._answer(409, {"error": f"You already created this {kind} repo", "url": f"{self.server.url}/{where}"})
        private = wanted.get("visibility", "private" if wanted.get("private") else "public") == "private"
        self.server.add_repo(kind, repo_id, private=private)
        self._answer(200, {"url": f"{self.server.url}/{where}", "name": repo_id, "id": repo_id})

    def _validate_yaml(self, text: str) -> None:
        head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        try:
            problem = None if isinstance(yaml.safe_load(head[1]), dict) else "the metadata is not a mapping"
        except yaml.YAMLError as error:
            problem = str(error)
        except TypeError:
            self._answer(200, {"warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
        self._answer(400 if problem else 200, {"errors": [{"message": problem}] if problem else [], "warnings": []})

    def _info(self, kind: str, repo_id: str, revision: str) -> None:
        repo = self._repo(kind, repo_id)
        oid, files = self._at(repo, revision or "main")
        siblings = []
        for path, content in sorted(files.items()):
            siblings.append({"rfilename": path})
            if "blobs" in self.query:
                siblings[-1] |= self._entry(path, content, ("size", "blobId"))
        self._answer(200, {"id": repo_id, "sha": oid, "private": repo.private, "siblings": siblings, "tags": []})

    def _at(self, repo: Repo, revision: str) -> tuple[str, dict]:
        for oid, _, files in reversed(repo.commits):
            if repo.refs.get(revision, revision) in ("main", oid):
                return oid, files
        self._answer(404, {"error": f"Invalid rev id: {revision}", "code": "RevisionNotFound"})

    def _entry(self, path: str, content, names: tuple[str, str] = ("size", "oid")) -> dict:
        if isinstance(content, Pointer):
            pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize %d\n" % (content.oid.encode(), content.size)
            size, blob = content.size, git_blob(pointer)
            extra = {"lfs": {"oid": content.oid, "sha256": content.oid, "size": content.size, "pointerSize": len(pointer)}}
        else:
            size, blob, extra = len(content), git_blob(content), {}
        return dict(zip(names, (size, blob))) | extra

    def _preupload(self, kind: str, repo_id: str) -> None:
        repo = self._writable(kind, repo_id)
        answer = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if file["path"].endswith(LFS_ENDINGS) or file["size"] > 10 << 20 else "regular"
            there = repo.files.get(file["path"])
            oid = there.oid if isinstance(there, Pointer) else there if there is None else git_blob(there)
            answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._answer(200, {"files": answer})

    def _batch(self, kind: str, repo_id: str) -> None:
        self._writable(kind, repo_id)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.server.url}/lfs/{wanted['oid']}"}}
            objects.append(wanted | ({} if wanted["oid"] in self.server.objects else {"actions": upload}))
        self._answer(200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"})

    def _store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self._answer(400, {"error": "the content has another SHA-256"})
        with self.server.lock:
            self.server.objects[oid] = self.body
            self.server.received += len(self.body)
        self._answer(200, b"", {"ETag": f'"{oid}"'})

    def _commit(self, kind: str, repo_id: str) -> None:
        repo = self._writable(kind, repo_id)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        with self.server.lock:
            parent = header.get("parentCommit")
            if parent is not None and not repo.sha.startswith(parent):
                self._answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            files = dict(repo.files)
            for line in lines:
                key, value = line["key"], line["value"]
                if key == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif key == "lfsFile":
                    if value["oid"] not in self.server.objects:
                        self._answer(400, {"error": f"LFS pointer pointed to a file that does not exist: {value['path']}"})
                    files[value["path"]] = Pointer(value["oid"], len(self.server.objects[value["oid"]]))
                elif key == "deletedFile":
                    del files[value["path"]]
            oid = self.server.commit(repo, header["summary"], files)
        self._answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repo_id}/commit/{oid}"})

    def _list(self, kind: str, repo_id: str, below: str, of_paths: bool) -> None:
        """The `tree` of a folder, or `paths-info` of some paths; a revision with a slash in it does not occur here."""
        repo = self._repo(kind, repo_id)
        files = repo.files
        folders = {str(parent) for path in files for parent in Path(path).parents} - {"."}
        if of_paths:
            body = self.body.decode()
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
        else:
            recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
            inside = [path for path in (*files, *folders) if not below or path.startswith(f"{below}/")]
            wanted = [path for path in inside if recursive or str(Path(path).parent) == (below or ".")]
            if below and not wanted:
                self._answer(404, {"error": f"{below} does not exist", "code": "EntryNotFound"})
        entries = []
        for path in sorted(wanted):
            if path in files:
                entries.append({"type": "file", "path": path, **self._entry(path, files[path])})
            elif path in folders:
                entries.append({"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0})
        self._answer(200, entries)

    def _resolve(self, kind: str, repo_id: str, revision: str, path: str) -> None:
        repo = self._repo(kind, repo_id)
        oid, files = self._at(repo, revision)
        if repo.gated:
            self._answer(403, {"error": f"Access to model {repo_id} is restricted", "code": "GatedRepo"})
        if path not in files:
            self._answer(404, {"error": f"Entry not found: {path}", "code": "EntryNotFound"}, {"X-Repo-Commit": oid})
        entry = self._entry(path, files[path])
        content = self.server.content(kind, repo_id, path) if revision == "main" else self._content(files[path])
        tag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers = {"X-Repo-Commit": oid, "ETag": f'"{tag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        status = 200
        if self.command == "HEAD":
            headers["Content-Length"] = str(len(content))
        elif found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(found[1]), min(int(found[2]) + 1 if found[2] else len(content), len(content))
            status, headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{len(content)}"
            content = content[start:stop]
        self._answer(status, content, headers)

    def _content(self, found) -> bytes:
        return self.server.objects[found.oid] if isinstance(found, Pointer) else found


@contextmanager
def serve() -> Iterator[Hub]:
    """A running Hub, empty."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def environment(hub: Hub | str, home: Path, token: str | None = TOKEN, **more: str) -> dict[str, str]:
    """Environment of a new process in which the Hugging Face libraries use only this Hub and the caches below `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "HTTP", "http", "ALL_PROXY"))}
    kept |= {"HF_ENDPOINT": hub if isinstance(hub, str) else hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    kept |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    kept |= {"HF_HUB_ETAG_TIMEOUT": str(PATIENCE), "HF_HUB_DOWNLOAD_TIMEOUT": str(PATIENCE)}
    return kept | ({"HF_TOKEN": token} if token else {}) | more


def python(
    code: str, env: dict[str, str], *arguments: object, cwd: Path | None = None, isolated: bool = False
) -> subprocess.CompletedProcess:
    """Run code in a new process. `isolated` hides this package, as on a machine without it."""
    if isolated:
        code = "import sys\nsys.modules['medfmc_hf'] = None\n" + code
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=env, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
