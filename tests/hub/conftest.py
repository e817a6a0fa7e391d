"""The Hub's HTTP interface on loopback, from memory: as much of it as its clients need to read repositories."""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

_DATE = "2024-02-29T12:00:00.000Z"
_LARGE = (".parquet", ".safetensors")  # suffixes of the files that are kept apart from git and answered by a redirect
_API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
# Method, path, and the method of HubServer that answers; HEAD goes where GET goes.
_ROUTES = (
    ("GET", rf"{_API}(?:/revision/(?P<revision>[^/]+))?", "_info"),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", "_tree"),
    ("POST", rf"{_API}/paths-info/(?P<revision>[^/]+)", "_paths_info"),
    ("GET", r"/(?:(?P<kind>datasets)/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "_resolve"),
    ("GET", r"/large/(?P<digest>[0-9a-f]{64})", "_large_file"),
)


@dataclass
class Request:
    """What was asked: `places` are the named parts of the route, `form` has the fields of query and body."""

    method: str
    target: str
    headers: Message
    body: bytes
    places: dict[str, str] = field(default_factory=dict)
    form: dict[str, list[str]] = field(default_factory=dict)
    status: int = 0


@dataclass
class Answer:
    """What is sent back: bytes as they are, anything else as JSON."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class MissingError(Exception):
    """Answers 404 with one of the Hub's own codes."""

    def __init__(self, code: str, **headers: str) -> None:
        self.answer = Answer({"error": code}, 404, {"X-Error-Code": code, **headers})


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    files: dict[str, bytes]

    def paths(self) -> list[str]:
        """The files and the folders above them."""
        folders = {str(folder) for path in self.files for folder in PurePosixPath(path).parents if folder.name}
        return sorted({*self.files, *folders})

    def entry(self, path: str, *, expand: bool) -> dict[str, Any]:
        """What the Hub says of a file or folder. The last commit of each is this one, whichever it was in truth."""
        content = self.files.get(path)
        entry: dict[str, Any] = {"type": "directory", "path": path, "size": 0, "oid": blob_id(path.encode())}
        if content is not None:
            entry |= {"type": "file", "size": len(content), "oid": blob_id(content)}
            if path.endswith(_LARGE):
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry | ({"lastCommit": {"id": self.sha, "title": self.title, "date": _DATE}} if expand else {})


class HubServer:
    """A Hub of data sets and models, served while the context is entered.

    Attributes:
        url: What `HF_ENDPOINT` must be.
        requests: The requests received so far, in order.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._commits: dict[tuple[str, str], list[Commit]] = {}  # by kind and name, the newest last
        self._large_files: dict[str, bytes] = {}  # by SHA-256
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # By another name, as the Hub's storage is: clients take what a redirect says of a file when it leads elsewhere.
        self._storage = f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commit(self, name: str, files: Mapping[str, bytes | None], *, kind: str = "datasets", title: str = "-") -> str:
        """Add a commit to a repository, made if need be; None deletes a file. Returns the commit's SHA."""
        commits = self._commits.setdefault((kind, name), [])
        changed = {**(commits[-1].files if commits else {}), **files}
        kept = {path: content for path, content in sorted(changed.items()) if content is not None}
        state = repr((kind, name, len(commits), title, [(path, blob_id(content)) for path, content in kept.items()]))
        commits.append(Commit(hashlib.sha1(state.encode()).hexdigest(), title, kept))
        return commits[-1].sha

    def environment(self, home: Path) -> dict[str, str]:
        """The variables of a process whose clients know this Hub and no other, and keep their files in `home`."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))},
            **{"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_MINILM_CACHE": str(home / "hf_minilm")},
            **{"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1,localhost"},
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets counts at a fixed address outside, whatever HF_ENDPOINT says
            "OMP_NUM_THREADS": "1",
        }

    def answer(self, request: Request) -> Answer:
        """Find the answer to a request, and record the request."""
        url = urlsplit(request.target)
        answer = Answer({"error": f"no route for {request.method} {url.path}"}, 400)
        for method, pattern, answering in _ROUTES:
            match = re.fullmatch(pattern, url.path)
            if match is None or method != request.method.replace("HEAD", "GET"):
                continue
            request.places = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
            is_form = request.headers.get_content_type() == "application/x-www-form-urlencoded"
            request.form = parse_qs(url.query) | parse_qs(request.body.decode() if is_form else "")
            try:
                answer = getattr(self, answering)(request)
            except MissingError as missing:
                answer = missing.answer
            break
        request.status = answer.status
        self.requests.append(request)
        return answer

    def _at(self, request: Request) -> Commit:
        commits = self._commits.get((request.places.get("kind", "models"), request.places["name"]))
        if commits is None:
            raise MissingError("RepoNotFound")
        revision = request.places.get("revision", "main")
        for commit in reversed(commits):
            if revision in ("main", commit.sha):
                return commit
        raise MissingError("RevisionNotFound")

    def _info(self, request: Request) -> Answer:
        commit = self._at(request)
        siblings = [{"rfilename": path} for path in commit.files]
        return Answer({"id": request.places["name"], "sha": commit.sha, "lastModified": _DATE, "siblings": siblings})

    def _tree(self, request: Request) -> Answer:
        commit, folder = self._at(request), request.places.get("path", "")
        inner = [path for path in commit.paths() if not folder or path.startswith(f"{folder}/")]
        if folder and not inner:
            raise MissingError("EntryNotFound")
        if request.form.get("recursive") != ["true"]:
            inner = [path for path in inner if "/" not in path[len(folder) :].lstrip("/")]
        return Answer([commit.entry(path, expand=request.form.get("expand") == ["true"]) for path in inner])

    def _paths_info(self, request: Request) -> Answer:
        commit = self._at(request)
        found = [path for path in commit.paths() if path in request.form["paths"]]
        return Answer([commit.entry(path, expand=request.form.get("expand") == ["true"]) for path in found])

    def _resolve(self, request: Request) -> Answer:
        commit, path = self._at(request), request.places["path"]
        headers = {"X-Repo-Commit": commit.sha}
        if path not in commit.files:
            raise MissingError("EntryNotFound", **headers)
        content = commit.files[path]
        if not path.endswith(_LARGE):
            return _content(request, content, headers | {"ETag": f'"{blob_id(content)}"'})
        digest = hashlib.sha256(content).hexdigest()
        self._large_files[digest] = content
        linked = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        return Answer(b"", 302, headers | linked | {"Location": f"{self._storage}/large/{digest}"})

    def _large_file(self, request: Request) -> Answer:
        digest = request.places["digest"]
        if digest not in self._large_files:
            raise MissingError("EntryNotFound")
        return _content(request, self._large_files[digest], {"ETag": f'"{digest}"'})


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # buffered: sent apart, the body would wait for the client's delayed acknowledgement of the head

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.hub.answer(Request(self.command, self.path, self.headers, body))
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Say nothing: `HubServer.requests` is the log."""


def _content(request: Request, content: bytes, headers: dict[str, str]) -> Answer:
    """A file, or the range of its bytes that was asked for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if match is None:
        return Answer(content, 200, headers | {"Accept-Ranges": "bytes"})
    start, end = int(match[1]), min(int(match[2] or len(content)) + 1, len(content))
    if start >= end:
        return Answer(b"", 416, headers | {"Content-Range": f"bytes */{len(content)}"})
    return Answer(content[start:end], 206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server
