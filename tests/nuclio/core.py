"""What DigitalHub Core is to a pod: a run behind its API, and the files of its ConfigMap."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# What Core's own does, in the order of its steps; its installer, its checks and its last lines.
ENTRYPOINT = """\
#!/bin/bash
die() { printf "Init failed: %s\\n\\n" "$1"; exit 1; }
if [ -z "${HOME}" ] || [ "${HOME}" = "/" ]; then export HOME=@HOME@; export USER="nonroot"; fi
while [ $# -gt 0 ]; do
    if [[ $1 == "--"* ]]; then v="${1/--/}"; declare "$v"="$2"; shift; fi
    shift
done
PYTHON_VERSION=$((python3 --version) 2>&1)
[[ $? -eq 0 ]] || die "Python3 not found"
INSTALL_CMD="$(which python3) -m pip install --user"
[ -f "${processor}" ] || die "Invalid or missing processor specified"
[ -f "${config}" ] || die "Invalid or missing config file specified"
if [[ -n "${requirements}" && -f "${requirements}" ]]; then
    ${INSTALL_CMD} -r "${requirements}"
    [ $? -eq 0 ] || die "Error installing requirements from ${requirements}"
fi
CMD="${processor} --config ${config}"
$CMD
[ $? -eq 0 ] || die "Error executing processor"
exit
"""


class Core:
    """Serves one run; `with` stops it."""

    def __init__(
        self,
        code: str,
        handler: str = "main:f",
        *,
        action: str = "job",
        host: str = "127.0.0.1",
        **spec: Any,
    ) -> None:
        self.run: dict[str, Any] = {
            "id": "a" * 32,
            "project": "p",
            "name": "run",
            "kind": f"python+{action}:run",
            "spec": {
                "task": f"python+{action}://p/" + "b" * 32,
                "function": "python://p/f:" + "c" * 32,
                "python_version": "PYTHON3_11",
                "source": {
                    "source": "main.py",
                    "handler": handler,
                    "base64": base64.b64encode(code.encode()).decode(),
                    "lang": "python",
                },
                **spec,
            },
            "status": {"state": "RUNNING"},
        }  # fmt: skip
        self.code = code
        self.requests: list[str] = []
        self.stored: dict[str, bytes] = {}
        core = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                core.requests.append(f"{self.command} {self.path}")
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                of_run = "/runs/" in self.path
                if of_run and self.command == "PUT":
                    core.run = json.loads(sent)
                elif not of_run:
                    core.stored[self.path] = sent  # another entity, or a file of the object store
                body = json.dumps(core.run).encode() if of_run else b"{}"
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("ETag", '"etag"')
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = answer

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.port = self._server.server_address[1]

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.run["status"]
        return found

    def files(self, home: Path, requirements: str = "", port: int | None = None) -> None:
        """Write what Core's init container puts into the pod's home."""
        action = self.run["kind"].partition("+")[2].partition(":")[0]
        home.mkdir(parents=True, exist_ok=True)
        (home / "entrypoint.sh").write_text(ENTRYPOINT.replace("@HOME@", str(home)))
        (home / "main.py").write_text(self.code)
        # It needs modules of another runtime: nobody here may import it.
        (home / "handler.py").write_text("raise ImportError('handler.py was imported')\n")
        body = json.dumps(json.dumps(self.run))
        trigger = (
            f'    job:\n      attributes:\n        event:\n          body: {body}\n      kind: "job"\n'
            if action == "job"
            else '    http:\n      maxWorkers: 2\n      kind: "http"\n'
        )
        if port is not None:
            trigger += f'      url: "127.0.0.1:{port}"\n'
        (home / "function.yaml").write_text(
            '---\napiVersion: "nuclio.io/v1beta1"\nkind: "NuclioFunction"\nspec:\n  minReplicas: 1\n'
            f'  handler: "handler:handler"\n  maxReplicas: 1\n  triggers:\n{trigger}  runtime: "python"\n'
        )
        if requirements:
            (home / "requirements.txt").write_text(requirements)

    def env(self, home: Path, endpoint: str = "") -> dict[str, str]:
        """A pod's environment: nothing of this machine's, no HOME."""
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "PROJECT_NAME": self.run["project"],
            "RUN_ID": self.run["id"],
            "DHCORE_ENDPOINT": endpoint or f"http://127.0.0.1:{self.port}",
            "PYTHONPATH": "${PYTHONPATH}:" + str(home),
        }

    def __enter__(self) -> Core:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _identity() -> dict[str, Any]:
    """Core's user and group, where we may take them and they can reach this checkout and its Python."""
    places = [Path(__file__), Path(sys.executable), Path(sys.executable).resolve()]
    open_to_all = all(p.stat().st_mode & 0o001 for place in places for p in place.parents)
    if os.geteuid() != 0 or not open_to_all:
        return {}
    return {"user": 8877, "group": 999, "extra_groups": []}


_IDENTITY = _identity()


def start(
    core: Core, home: Path, *, through_script: bool = True, **env: str
) -> subprocess.Popen[str]:
    """Start what Core names as the container's command; the image's own settings are set too."""
    command = [str(ROOT / "images/nuclio/processor"), "--config", str(home / "function.yaml")]
    if through_script:
        command = [
            "/bin/bash", str(home / "entrypoint.sh"),
            "--processor", command[0], "--config", command[2],
            "--requirements", str(home / "requirements.txt"),
        ]  # fmt: skip
    return subprocess.Popen(
        command,
        env={
            **core.env(home),
            "BASH_ENV": str(ROOT / "images/nuclio/core.sh"),
            "TMPDIR": str(home),
            **env,
        },
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **_IDENTITY,
    )
