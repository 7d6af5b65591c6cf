"""A server on localhost that answers like the Hugging Face hub, as far as downloading one repository needs it."""

import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit


class FakeHub:
    """A hub with one repository. `revisions` maps its branches and tags to folders; commit hashes are made up."""

    def __init__(self, repository, revisions):
        self.repository = repository
        self.folder_of = {}
        self.commit_of = {}
        for revision, folder in revisions.items():
            commit = hashlib.sha1(revision.encode()).hexdigest()
            self.commit_of |= {revision: commit, commit: commit}
            self.folder_of[commit] = folder
        self.url = ""
        self.downloaded = []
        """Names of the files whose contents the server has sent."""

    @contextmanager
    def serving(self):
        handler = type("Handler", (_Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).strip("/")
        api, resolve = f"api/models/{self.hub.repository}/", f"{self.hub.repository}/resolve/"
        if path.startswith(api):
            kind, _, revision = path.removeprefix(api).partition("/")
            self._answer_api(kind, self.hub.commit_of.get(revision))
        elif path.startswith(resolve):
            revision, _, name = path.removeprefix(resolve).partition("/")
            self._send_file(self.hub.commit_of.get(revision), name)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _answer_api(self, kind, commit):
        if commit is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        folder = self.hub.folder_of[commit]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
        if kind == "tree":
            content = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path)}
                for name, path in zip(names, files, strict=True)
            ]
        else:
            siblings = [{"rfilename": name} for name in names]
            content = {"id": self.hub.repository, "sha": commit, "private": False, "tags": [], "siblings": siblings}
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send_file(self, commit, name):
        path = self.hub.folder_of[commit] / name
        if self.command == "GET":
            self.hub.downloaded.append(name)
        self._send(200, path.read_bytes(), {"ETag": f'"{_digest(path)}"', "X-Repo-Commit": commit})

    def _send(self, status, content, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


def _digest(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()
