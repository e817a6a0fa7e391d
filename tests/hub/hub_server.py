"""The Hub's HTTP interface on loopback, from memory: as much of it as its clients need to read repositories.

`writable_hub` adds what they need to write them.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

_DATE = "2024-02-29T12:00:00.000Z"
LARGE = (".parquet", ".safetensors")  # suffixes of the files that are kept apart from git and answered by a redirect
API = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
# Method, path, and the method of HubServer that answers; HEAD goes where GET goes.
READING = (
    ("GET", rf"{API}(?:/revision/(?P<revision>[^/]+))?", "_info"),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", "_tree"),
    ("POST", rf"{API}/paths-info/(?P<revision>[^/]+)", "_paths_info"),
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


class RefusedError(Exception):
    """Answers with a status and a reason."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        self.answer = Answer({"error": reason}, status, headers)


class MissingError(RefusedError):
    """Answers 404 with one of the Hub's own codes."""

    def __init__(self, code: str, **headers: str) -> None:
        super().__init__(404, code, **{"X-Error-Code": code, **headers})


class BrokenLineError(Exception):
    """Ends the connection without an answer."""


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
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry | ({"lastCommit": {"id": self.sha, "title": self.title, "date": _DATE}} if expand else {})


@dataclass
class Repository:
    """Commits, the newest last, and the names that some of them have."""

    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def at(self, revision: str) -> Commit:
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        for commit in self.commits:
            if commit.sha == sha:
                return commit
        raise MissingError("RevisionNotFound")


class HubServer:
    """A Hub of data sets and models, served while the context is entered.

    Attributes:
        url: What `HF_ENDPOINT` must be.
        requests: The requests received so far, in order.
        repositories: What there is, by kind and name.
    """

    routes: ClassVar = READING

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large_files: dict[str, bytes] = {}  # by SHA-256
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

    def commit(
        self,
        name: str,
        files: Mapping[str, bytes | None],
        *,
        kind: str = "datasets",
        title: str = "-",
        branch: str = "main",
    ) -> str:
        """Add a commit to a repository, made if need be; None deletes a file. Returns the commit's SHA."""
        repository = self.repositories.setdefault((kind, name), Repository())
        before = repository.at(branch).files if branch in repository.branches else {}
        changed = {**before, **files}
        kept = {path: content for path, content in sorted(changed.items()) if content is not None}
        number = len(repository.commits)
        state = repr((kind, name, number, title, [(path, blob_id(content)) for path, content in kept.items()]))
        sha = hashlib.sha1(state.encode()).hexdigest()
        repository.commits.append(Commit(sha, title, kept))
        repository.branches[branch] = sha
        return sha

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
        for method, pattern, answering in self.routes:
            match = re.fullmatch(pattern, url.path)
            if match is None or method != request.method.replace("HEAD", "GET"):
                continue
            request.places = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
            is_form = request.headers.get_content_type() == "application/x-www-form-urlencoded"
            request.form = parse_qs(url.query) | parse_qs(request.body.decode() if is_form else "")
            try:
                answer = getattr(self, answering)(request)
            except RefusedError as refused:
                answer = refused.answer
            break
        request.status = answer.status
        self.requests.append(request)
        return answer

    def repository(self, request: Request) -> Repository:
        """Find the repository that a request names; whoever may not read a private one does not learn of it."""
        found = self.repositories.get((request.places.get("kind", "models"), request.places["name"]))
        if found is None or (found.private and not self.may_read(request)):
            raise MissingError("RepoNotFound")
        return found

    def may_read(self, request: Request) -> bool:
        """Tell whether a request may see a private repository: here nobody has a token."""
        return False

    def _at(self, request: Request) -> Commit:
        return self.repository(request).at(request.places.get("revision", "main"))

    def _info(self, request: Request) -> Answer:
        commit = self._at(request)
        siblings = [{"rfilename": path} for path in commit.files]
        known = {"id": request.places["name"], "sha": commit.sha, "lastModified": _DATE, "siblings": siblings}
        return Answer(known | {"private": self.repository(request).private})

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
        if not path.endswith(LARGE):
            return _content(request, content, headers | {"ETag": f'"{blob_id(content)}"'})
        digest = hashlib.sha256(content).hexdigest()
        self.large_files[digest] = content
        linked = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        return Answer(b"", 302, headers | linked | {"Location": f"{self._storage}/large/{digest}"})

    def _large_file(self, request: Request) -> Answer:
        digest = request.places["digest"]
        if digest not in self.large_files:
            raise MissingError("EntryNotFound")
        return _content(request, self.large_files[digest], {"ETag": f'"{digest}"'})


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # buffered: sent apart, the body would wait for the client's delayed acknowledgement of the head

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            answer = self.hub.answer(Request(self.command, self.path, self.headers, body))
        except BrokenLineError:
            self.close_connection = True
            return
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

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
