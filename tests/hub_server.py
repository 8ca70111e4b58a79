"""A small hub on loopback: what the installed huggingface_hub client asks of huggingface.co for model repositories.

Standard library only, and no xet: the client must be told `HF_HUB_DISABLE_XET=1`, it does not fall back. All is held in
memory. Faults are switched on over HTTP too (`POST /faults`), because the client under test is another process. `log`
and `repositories` show a test what arrived.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

# Token -> user. A user may write below their own name only.
TOKENS = {"hf_mia": "mia", "hf_other": "other"}
LARGE_FILES = (".safetensors", ".bin")  # stored by LFS, as the default .gitattributes of the Hub says


@dataclass
class Repository:
    """branches and tags -> commit id; commit id -> path -> content."""

    private: bool
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        self.messages.append(message)
        oid = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits[oid] = files
        self.refs[branch] = oid
        return oid

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.refs.get(revision, revision)]


class HubServer(ThreadingHTTPServer):
    """`with HubServer() as hub:` serves at `hub.url` until the block ends."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # LFS, by sha256
        # Transfers that break off half-way: cut_uploads_from (bytes), or cut_downloads_of (suffix), `times` times.
        self.faults: dict[str, Any] = {}
        self.log: list[tuple[str, str, str]] = []  # method, path, Range header
        self.lock = threading.Lock()

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""

    def asked(self, method: str, part: str) -> list[str]:
        """Paths of the requests so far."""
        return [path for sent, path, _ in self.log if sent == method and part in path]


class _CutOff(Exception):
    """No answer any more."""


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        self.status, self.message = status, message
        self.headers = {"X-Error-Message": message, **headers} | ({"X-Error-Code": code} if code else {})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.server.lock:
            self.server.log.append((self.command, path, self.headers.get("Range", "")))
        self._unread = int(self.headers.get("Content-Length", 0))
        try:
            status, headers, body = self._answer(path.strip("/").split("/"))
        except _Refused as refusal:
            status, headers = refusal.status, refusal.headers
            body = json.dumps({"error": refusal.message}).encode()
        except _CutOff:
            self.close_connection = True
            return
        self._body()  # what was not read would be taken for the next request
        self._send(status, headers, body)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _body(self) -> bytes:
        count, self._unread = self._unread, 0
        return self.rfile.read(count)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer(self, parts: list[str]) -> tuple[int, dict[str, str], bytes]:
        if parts == ["faults"]:
            self.server.faults = json.loads(self._body())
            return _json({})
        if parts[0] == "lfs":
            return self._store(parts[1])
        self.user = self._user()
        if parts[0] == "api":
            return self._api(parts[1:])
        repo_id = "/".join(parts[:2])
        if parts[2:] == ["info", "lfs", "objects", "batch"]:
            return self._lfs_batch(repo_id.removesuffix(".git"))
        if parts[2] == "resolve":
            return self._resolve(repo_id, parts[3], "/".join(parts[4:]))
        raise _Refused(404, "no such page")

    # Who may do what

    def _user(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise _Refused(401, "Invalid credentials in Authorization header")
        return TOKENS.get(token)

    def _readable(self, repo_id: str) -> Repository:
        repository = self.server.repositories.get(repo_id)
        if repository is None or (repository.private and self.user != repo_id.split("/")[0]):
            raise _Refused(401 if self.user is None else 404, "Repository not found", "RepoNotFound")
        return repository

    def _writable(self, repo_id: str) -> Repository:
        repository = self._readable(repo_id)
        self._check_owner(repo_id.split("/")[0])
        return repository

    def _check_owner(self, name: str) -> None:
        if self.user is None:
            raise _Refused(401, "Invalid username or password.")
        if self.user != name:
            raise _Refused(403, f"You don't have the rights to create a model under the namespace {name!r}")

    # The API

    def _api(self, parts: list[str]) -> tuple[int, dict[str, str], bytes]:
        if parts == ["whoami-v2"]:
            self._check_owner(self.user or "")
            return _json({"type": "user", "name": self.user, "orgs": []})
        if parts == ["repos", "create"]:
            return self._create(json.loads(self._body()))
        if parts == ["validate-yaml"]:
            return _json({"errors": [], "warnings": []})
        repo_id, rest = "/".join(parts[1:3]), parts[3:]
        if parts[0] != "models":
            raise _Refused(404, "only models are kept here", "RepoNotFound")
        if not rest or rest[0] == "revision":
            return self._info(repo_id, "/".join(rest[1:]) or "main")
        if rest[0] == "tree":
            return self._tree(repo_id, rest[1], "/".join(rest[2:]))
        if rest[0] == "preupload":
            return self._preupload(repo_id, json.loads(self._body()))
        if rest[0] == "commit":
            return self._commit(repo_id, rest[1])
        if rest[0] in ("branch", "tag"):
            return self._name_commit(repo_id, rest[0], rest[1], json.loads(self._body() or b"{}"))
        raise _Refused(404, f"no such call: {parts}")

    def _create(self, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        owner = asked.get("organization") or self.user or ""
        self._check_owner(owner)
        repo_id = f"{owner}/{asked['name']}"
        answer = {"url": f"{self.server.url}/{repo_id}", "name": repo_id}
        if repo_id in self.server.repositories:
            return _json(answer, status=409)
        made = self.server.repositories[repo_id] = Repository(private=asked.get("visibility") == "private")
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return _json(answer)

    def _commit_id(self, repo_id: str, revision: str) -> tuple[Repository, str]:
        repository = self._readable(repo_id)
        oid = repository.refs.get(revision, revision)
        if oid not in repository.commits:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository, oid

    def _info(self, repo_id: str, revision: str) -> tuple[int, dict[str, str], bytes]:
        repository, oid = self._commit_id(repo_id, revision)
        siblings = [{"rfilename": path} for path in sorted(repository.commits[oid])]
        return _json(
            {"id": repo_id, "modelId": repo_id, "sha": oid, "private": repository.private, "siblings": siblings}
        )

    def _tree(self, repo_id: str, revision: str, folder: str) -> tuple[int, dict[str, str], bytes]:
        repository, oid = self._commit_id(repo_id, revision)
        inside = {path: data for path, data in repository.commits[oid].items() if path.startswith(folder)}
        if not inside:
            raise _Refused(404, f"{folder} does not exist", "EntryNotFound", **{"X-Repo-Commit": oid})
        return _json(
            [{"type": "file", "path": path, "size": len(data), "oid": _git(data)} for path, data in inside.items()]
        )

    def _preupload(self, repo_id: str, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        self._writable(repo_id)
        return _json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LARGE_FILES) else "regular",
                        "shouldIgnore": False,
                    }
                    for file in asked["files"]
                ]
            }
        )

    def _commit(self, repo_id: str, branch: str) -> tuple[int, dict[str, str], bytes]:
        repository = self._writable(repo_id)
        if branch not in repository.refs:
            raise _Refused(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        lines = [json.loads(line) for line in self._body().splitlines()]
        files, message = dict(repository.files(branch)), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = repository.commit(branch, files, message)
        return _json({"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repo_id}/commit/{oid}"})

    def _name_commit(
        self, repo_id: str, kind: str, name: str, asked: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        """POST branch/{new branch} or tag/{revision to be tagged}."""
        repository = self._writable(repo_id)
        new, start = (name, asked.get("startingPoint", "main")) if kind == "branch" else (asked["tag"], name)
        if new in repository.refs:
            raise _Refused(409, f"Reference already exists: {new}")
        repository.refs[new] = self._commit_id(repo_id, start)[1]
        return _json({})

    # Large files

    def _lfs_batch(self, repo_id: str) -> tuple[int, dict[str, str], bytes]:
        self._writable(repo_id)
        answer = []
        for wanted in json.loads(self._body())["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server.objects:
                entry["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{wanted['oid']}"}}
            answer.append(entry)
        return _json({"transfer": "basic", "objects": answer})

    def _store(self, oid: str) -> tuple[int, dict[str, str], bytes]:
        size = self._unread
        if size >= self.server.faults.get("cut_uploads_from", float("inf")):
            self.rfile.read(size // 2)
            raise _CutOff
        data = self._body()
        if hashlib.sha256(data).hexdigest() != oid:
            raise _Refused(400, "the content is not what its sha256 says")
        self.server.objects[oid] = data
        return _json({})

    # Downloads

    def _resolve(self, repo_id: str, revision: str, path: str) -> tuple[int, dict[str, str], bytes]:
        repository, oid = self._commit_id(repo_id, revision)
        if path not in repository.commits[oid]:
            raise _Refused(404, f"{path} does not exist", "EntryNotFound", **{"X-Repo-Commit": oid})
        data = repository.commits[oid][path]
        large = path.endswith(LARGE_FILES)
        etag = hashlib.sha256(data).hexdigest() if large else _git(data)
        headers = {"X-Repo-Commit": oid, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        status, part = 200, data
        if start:
            status, part = 206, data[start:]
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.command == "GET" and path.endswith(self.server.faults.get("cut_downloads_of", "\0")):
            if self.server.faults.get("times", 0):
                self.server.faults["times"] -= 1
                self._send(status, headers | {"Content-Length": str(len(part))}, part[: len(part) // 2])
                raise _CutOff
        return status, headers, part


def _json(value: Any, *, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
