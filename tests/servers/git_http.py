"""Git's own HTTP server, `git http-backend`, behind basic auth where a repository is private."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from servers.web import serving


@dataclass
class GitServer:
    url: str
    folder: Path
    """Its repositories are the folders in here."""
    private: dict[str, str] = field(default_factory=dict)
    """Repository -> the `user:password` that it asks for."""
    old: bool = False
    """Speak protocol version 0, which serves no commit but those that refs name."""
    dumb: bool = False
    """Serve files only, as a plain web server does."""
    redirect: str = ""
    """Answer every request with a redirect to this base URL."""
    failures: int = 0
    """How many requests get a 503 first."""
    requests: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    large: dict[str, bytes] = field(default_factory=dict)
    """What it has in Git LFS: sha256 -> content."""

    @property
    def transfers(self) -> int:
        """How often objects were asked for; what a list of refs costs does not count."""
        return sum(request.startswith("POST fetch ") for request in self.requests)

    def repository(self, name: str, *options: str) -> Repository:
        path = self.folder / name
        git(self.folder, "init", "--quiet", "--initial-branch=main", *options, name)
        git(path, "config", "http.receivepack", "false")
        return Repository(path, f"{self.url}/{name}")


@dataclass
class Repository:
    path: Path
    url: str

    def commit(self, message: str = "change", **files: str) -> str:
        """Write files (`a__b` is `a/b`; `.py` is added) and commit; the commit's id."""
        for name, text in files.items():
            path = self.path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        git(self.path, "add", "--all")
        git(self.path, "commit", "--quiet", "--allow-empty", "-m", message)
        return self.head

    @property
    def head(self) -> str:
        return git(self.path, "rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        return git(self.path, *arguments)


def git(folder: Path, *arguments: str) -> str:
    """Run git with none of the machine's settings."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environ.update(
        GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1",
        GIT_AUTHOR_NAME="test", GIT_AUTHOR_EMAIL="test@example.org",
        GIT_COMMITTER_NAME="test", GIT_COMMITTER_EMAIL="test@example.org",
    )  # fmt: skip
    command = ["git", "-c", "protocol.file.allow=always", *arguments]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextlib.contextmanager
def git_server(folder: Path, context: ssl.SSLContext | None = None) -> Iterator[GitServer]:
    """Serve the repositories in a folder on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self.serve(b"")

        def do_POST(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers["Content-Length"]))
            self.serve(body)

        def serve(self, body: bytes) -> None:
            kind = "fetch" if b"command=fetch" in body or b"want " in body else "refs"
            state.requests.append(f"{self.command} {kind} {self.path}")
            authorization = self.headers.get("Authorization")
            state.authorizations.append(authorization)
            parts = urlsplit(self.path)
            wanted = state.private.get(parts.path.split("/")[1])
            expected = "Basic " + base64.b64encode((wanted or "").encode()).decode()
            if state.failures:
                state.failures -= 1
                self.answer(503, [], b"")
            elif state.redirect:
                self.answer(302, [("Location", state.redirect + self.path)], b"")
            elif wanted and authorization != expected:
                self.answer(401, [("WWW-Authenticate", 'Basic realm="test"')], b"")
            elif "/info/lfs/" in parts.path or parts.path.startswith("/lfs/"):
                self.large(parts.path, body)
            elif state.dumb:
                file = state.folder / parts.path.lstrip("/").replace("/", "/.git/", 1)
                found = file.is_file()
                self.answer(200 if found else 404, [], file.read_bytes() if found else b"")
            else:
                self.backend(parts.path, parts.query, body)

        def large(self, path: str, body: bytes) -> None:
            if path.startswith("/lfs/"):
                found = state.large.get(path[5:])
                self.answer(404 if found is None else 200, [], found or b"")
                return
            objects = []
            for one in json.loads(body)["objects"]:
                there = one["oid"] in state.large
                more = (
                    {"actions": {"download": {"href": f"{state.url}/lfs/{one['oid']}"}}}
                    if there
                    else {"error": {"code": 404, "message": "not there"}}
                )
                objects.append({"oid": one["oid"], "size": one["size"], **more})
            answer = json.dumps({"transfer": "basic", "objects": objects}).encode()
            self.answer(200, [("Content-Type", "application/vnd.git-lfs+json")], answer)

        def backend(self, path: str, query: str, body: bytes) -> None:
            environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
            environ.update(
                GIT_PROJECT_ROOT=str(state.folder), GIT_HTTP_EXPORT_ALL="1",
                GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1",
                REQUEST_METHOD=self.command, PATH_INFO=path, QUERY_STRING=query,
                CONTENT_TYPE=self.headers.get("Content-Type", ""), CONTENT_LENGTH=str(len(body)),
                HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""),
                REMOTE_ADDR="127.0.0.1", GIT_PROTOCOL=self.headers.get("Git-Protocol", ""),
            )  # fmt: skip
            if state.old:
                environ["GIT_PROTOCOL"] = ""
            command = ["git", "http-backend"]
            done = subprocess.run(command, env=environ, input=body, capture_output=True)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            lines = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
            headers = dict(lines)
            status = int(headers.pop("Status", "200").split()[0])
            self.answer(status, list(headers.items()), content)

        def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "https" if context else "http"
    state = GitServer(f"{scheme}://127.0.0.1:{server.server_port}", folder)
    with serving(server):
        yield state
