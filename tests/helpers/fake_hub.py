"""A Hugging Face hub on this machine, for the real client: dataset repositories with commits and branches."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class FakeHub:
    """Repositories, and what was asked for.

    repos: {"owner/name": {commit: {path: content}}}; branches: {"owner/name": {branch: commit}}; gated: repositories
    whose files need a licence; asked: paths of requests.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.address = ""

    def add(self, repo: str, commit: str, files: dict[str, bytes], branch: str = "main") -> None:
        """Add a commit, to which the branch then points."""
        self.repos.setdefault(repo, {})[commit] = files
        self.branches.setdefault(repo, {})[branch] = commit

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        self.asked.append(path)
        parts = unquote(path.partition("?")[0]).strip("/").split("/")
        if "datasets" not in parts[:2]:
            return _refused(404, "", "Not Found")
        is_api = parts[0] == "api"
        owner, name, what, *rest = [*parts[2 if is_api else 1 :], ""]
        repo = f"{owner}/{name}"
        if repo not in self.repos:
            return _refused(401, "RepoNotFound", "Repository Not Found")
        if repo in self.gated:
            return _refused(403, "GatedRepo", "Access to this dataset is restricted")
        revision, file = _split(rest, self.branches[repo])
        commit = self.branches[repo].get(revision, revision)
        files = self.repos[repo].get(commit)
        if files is None:
            return _refused(404, "RevisionNotFound", "Revision Not Found")
        if what == "revision":
            siblings = [{"rfilename": name} for name in files]
            return _json({"id": repo, "sha": commit, "siblings": siblings, "private": False})
        if what == "tree":
            return _json([{"type": "file", "path": n, "size": len(c), "oid": _oid(c)} for n, c in files.items()])
        if file not in files:
            return _refused(404, "EntryNotFound", "Entry not found")
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{_oid(files[file])}"'}, files[file]


def _split(rest: list[str], branches: dict[str, str]) -> tuple[str, str]:
    """Revision and file; a revision may be a path, as refs/convert/parquet."""
    text = "/".join(rest).rstrip("/")
    revision = next((name for name in branches if text == name or text.startswith(f"{name}/")), rest[0])
    return revision, text.removeprefix(revision).lstrip("/")


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()  # noqa: S324  (git's own)


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _refused(status: int, code: str, message: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"X-Error-Code": code, "X-Error-Message": message}, b"{}"


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub that answers on a free port."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
