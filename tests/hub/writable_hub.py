"""The part of the Hub's interface on loopback that writes: accounts, commits, large files, branches, tags, settings."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import yaml
from hub_server import (
    API,
    LARGE,
    READING,
    Answer,
    BrokenLineError,
    HubServer,
    MissingError,
    RefusedError,
    Repository,
    Request,
    blob_id,
)
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import model_index_to_eval_results

_LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "other"}  # some of those that the Hub knows
_WRITING = (
    ("GET", r"/api/whoami-v2", "_whoami"),
    ("POST", r"/api/validate-yaml", "_validate_yaml"),
    ("POST", r"/api/repos/create", "_create"),
    ("GET", rf"{API}/refs", "_refs"),
    ("PUT", rf"{API}/settings", "_settings"),
    ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", "_preupload"),
    ("POST", rf"{API}/commit/(?P<revision>[^/]+)", "_commit"),
    ("POST", rf"{API}/branch/(?P<branch>[^/]+)", "_branch"),
    ("POST", rf"{API}/tag/(?P<revision>[^/]+)", "_tag"),
    ("POST", r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "_large_batch"),
    ("PUT", r"/storage/(?P<digest>[0-9a-f]{64})", "_store"),
)


class WritableHub(HubServer):
    """A Hub with accounts, to which their owners may write.

    Attributes:
        users: Names by token.
        fails: Says of a request whether it is answered with 500, to interrupt a client.
        loses: Says of a request whether it is lost on its way, "request", or done and its answer lost, "answer".
        stalls: Says of a request whether it waits for `released`, so that a client can be killed meanwhile.
        stalled: Set once a request waits.
    """

    routes: ClassVar = (*_WRITING, *READING)

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[str, str] = {}
        self.fails: Callable[[Request], bool] = lambda request: False
        self.loses: Callable[[Request], str | None] = lambda request: None
        self.stalls: Callable[[Request], bool] = lambda request: False
        self.stalled, self.released = threading.Event(), threading.Event()

    def answer(self, request: Request) -> Answer:
        if self.stalls(request):
            self.stalled.set()
            self.released.wait(timeout=120)
        if self.fails(request):
            request.status = 500
            self.requests.append(request)
            return Answer({"error": "the power went out"}, 500)
        lost = self.loses(request)
        answer = Answer() if lost == "request" else super().answer(request)
        if lost is not None:
            raise BrokenLineError
        return answer

    def may_read(self, request: Request) -> bool:
        return self._user(request) == request.places["name"].split("/")[0]

    def _user(self, request: Request) -> str | None:
        return self.users.get(request.headers.get("Authorization", "").removeprefix("Bearer "))

    def _writer(self, request: Request) -> str:
        user = self._user(request)
        if user is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return user

    def _written(self, request: Request) -> Repository:
        user = self._writer(request)
        found = self.repository(request)
        if user != request.places["name"].split("/")[0]:
            raise RefusedError(403, "You don't have the rights to create a commit here")
        return found

    def _whoami(self, request: Request) -> Answer:
        return Answer({"type": "user", "name": self._writer(request), "orgs": []})

    def _validate_yaml(self, request: Request) -> Answer:
        """Refuse what the Hub refuses: no metadata, an unknown licence, results that are none."""
        block = REGEX_YAML_BLOCK.search(json.loads(request.body)["content"])
        metadata = yaml.safe_load(block.group(2)) if block else None
        errors = [] if metadata else ["no metadata"]
        if metadata and metadata.get("license", "other") not in _LICENSES:
            errors.append(f'"license" must be one of {", ".join(sorted(_LICENSES))}')
        if metadata and "model-index" in metadata:
            _, results = model_index_to_eval_results(metadata["model-index"])
            errors += [str(each) for each in results if not isinstance(each.metric_value, int | float | str)]
        found: dict[str, Any] = {"errors": [{"message": text} for text in errors], "warnings": []}
        return Answer(found, 400 if errors else 200)

    def _create(self, request: Request) -> Answer:
        user, asked = self._writer(request), json.loads(request.body)
        owner, kind = asked["organization"] or user, f"{asked.get('type') or 'model'}s"
        name = f"{owner}/{asked['name']}"
        url = f"{self.url}/{'' if kind == 'models' else f'{kind}/'}{name}"
        if (kind, name) in self.repositories:
            return Answer({"error": "You already created this repo", "url": url}, 409)
        if owner != user:
            raise RefusedError(403, f"You don't have the rights to create a repo under the namespace {owner}")
        self.commit(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, kind=kind, title="initial commit")
        self.repositories[kind, name].private = _is_private(asked)
        return Answer({"url": url, "id": name})

    def _settings(self, request: Request) -> Answer:
        self._written(request).private = _is_private(json.loads(request.body))
        return Answer({})

    def _refs(self, request: Request) -> Answer:
        found = self.repository(request)
        refs = {
            kind: [{"name": name, "ref": f"{path}/{name}", "targetCommit": sha} for name, sha in names.items()]
            for kind, path, names in (
                ("branches", "refs/heads", found.branches),
                ("tags", "refs/tags", found.tags),
                ("converts", "refs/convert", {}),
            )
        }
        return Answer(refs)

    def _preupload(self, request: Request) -> Answer:
        files = self._written(request).at(request.places["revision"]).files
        known = []
        for asked in json.loads(request.body)["files"]:
            path = asked["path"]
            is_large = path.endswith(LARGE)
            known.append({"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False})
            if path in files:
                known[-1]["oid"] = _digest(files[path]) if is_large else blob_id(files[path])
        return Answer({"files": known})

    def _large_batch(self, request: Request) -> Answer:
        self._written(request)
        objects = []
        for asked in json.loads(request.body)["objects"]:
            upload = {"upload": {"href": f"{self.url}/storage/{asked['oid']}", "header": {}}}
            objects.append(asked | ({} if asked["oid"] in self.large_files else {"actions": upload}))
        return Answer({"transfer": "basic", "objects": objects})

    def _store(self, request: Request) -> Answer:
        if _digest(request.body) != request.places["digest"]:
            raise RefusedError(400, "The content has another SHA-256")
        self.large_files[request.places["digest"]] = request.body
        return Answer(b"")

    def _commit(self, request: Request) -> Answer:
        branch, title = request.places["revision"], "-"
        if branch not in self._written(request).branches:
            raise MissingError("RevisionNotFound")
        files: dict[str, bytes | None] = {}
        for line in request.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                title = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.large_files[value["oid"]]
            else:
                files[value["path"]] = None
        name = request.places["name"]
        sha = self.commit(name, files, kind=request.places["kind"], title=title, branch=branch)
        return Answer({"commitUrl": f"{self.url}/{name}/commit/{sha}", "commitOid": sha})

    def _branch(self, request: Request) -> Answer:
        found, branch = self._written(request), request.places["branch"]
        if branch in found.branches:
            raise RefusedError(409, "Reference already exists")
        found.branches[branch] = found.at(json.loads(request.body).get("startingPoint", "main")).sha
        return Answer({})

    def _tag(self, request: Request) -> Answer:
        found, tag = self._written(request), json.loads(request.body)["tag"]
        if tag in found.tags:
            raise RefusedError(409, "Tag reference exists already")
        found.tags[tag] = found.at(request.places["revision"]).sha
        return Answer({})


def _is_private(asked: dict[str, Any]) -> bool:
    return asked.get("private", asked.get("visibility") == "private")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
