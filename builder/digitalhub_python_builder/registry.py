"""Asks a registry about an image, with the credentials of docker's and buildah's logins."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3

from digitalhub_python_builder.references import DOCKER_HUB, Reference, parse
from digitalhub_runtime_python.errors import EnvironmentFault

_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
_HUB_KEY = "https://index.docker.io/v1/"
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


def digest_of(reference: str, environ: Mapping[str, str]) -> str:
    """The digest of an image in its registry; empty when it is not there.

    Raises:
        EnvironmentFault: the registry cannot be reached or refuses.
    """
    wanted = parse(reference)
    answer = _get(wanted, f"manifests/{wanted.digest or wanted.tag or 'latest'}", environ, "HEAD")
    return str(answer.headers.get("Docker-Content-Digest", "")) if answer.status == 200 else ""


def config_of(
    reference: str, environ: Mapping[str, str], platform: str = ""
) -> tuple[str, dict[str, str]]:
    """(digest of its config, labels) of an image in its registry; empty when they cannot be told.

    The config's digest is what an engine that keeps images calls an image's id.
    """
    wanted = parse(reference)
    manifest = _json(wanted, f"manifests/{wanted.digest or wanted.tag or 'latest'}", environ)
    if manifest.get("manifests"):
        system, _, machine = (platform or "linux/amd64").partition("/")
        listed = [one for one in manifest["manifests"] if (one.get("platform") or {}).get("os") == system and one["platform"].get("architecture") == machine]  # fmt: skip
        manifest = _json(wanted, f"manifests/{listed[0]['digest']}", environ) if listed else {}
    blob = str((manifest.get("config") or {}).get("digest") or "")
    if not blob:
        return "", {}
    config = _json(wanted, f"blobs/{blob}", environ)
    return blob, dict((config.get("config") or {}).get("Labels") or {})


def _json(wanted: Reference, path: str, environ: Mapping[str, str]) -> dict[str, Any]:
    answer = _get(wanted, path, environ)
    return dict(json.loads(answer.data)) if answer.status == 200 else {}


def credentials(registry: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """(user, password) of a login to a registry; None without one.

    Looked for in docker's config.json (its helpers included) and in the file of buildah and podman.
    """
    home = Path(environ.get("HOME") or "/")
    files = [
        Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json",
        Path(environ.get("REGISTRY_AUTH_FILE") or f"{environ.get('XDG_RUNTIME_DIR', '/run')}/containers/auth.json"),
    ]  # fmt: skip
    keys = [registry, f"https://{registry}", f"http://{registry}", f"https://{registry}/v1/"]
    keys += [_HUB_KEY] if registry in ("", DOCKER_HUB) else []
    for file in files:
        try:
            config = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        for key in keys:
            found = _from_config(config, key, environ)
            if found:
                return found
    return None


def _from_config(
    config: Mapping[str, Any], key: str, environ: Mapping[str, str]
) -> tuple[str, str] | None:
    entry = (config.get("auths") or {}).get(key) or {}
    if entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        return user, password.strip("\0")
    helper = (config.get("credHelpers") or {}).get(key) or (key in (config.get("auths") or {}) and config.get("credsStore"))  # fmt: skip
    if not helper or not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        return None
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=key, env=dict(environ), capture_output=True, text=True
        )  # fmt: skip
        answer = json.loads(done.stdout)
        return answer["Username"], answer["Secret"]
    except (OSError, ValueError, KeyError):
        return None


def _get(
    wanted: Reference, path: str, environ: Mapping[str, str], method: str = "GET"
) -> urllib3.BaseHTTPResponse:
    host = {"": "registry-1.docker.io", DOCKER_HUB: "registry-1.docker.io"}.get(wanted.registry, wanted.registry)  # fmt: skip
    repository = wanted.repository if "/" in wanted.repository or wanted.registry else f"library/{wanted.repository}"  # fmt: skip
    url = f"{'http' if wanted.on_loopback else 'https'}://{host}/v2/{repository}/{path}"
    bundle = environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE")
    pool = urllib3.PoolManager(ca_certs=bundle, retries=urllib3.Retry(2, backoff_factor=0.2))
    headers = {"Accept": _MANIFESTS}
    login = credentials(wanted.registry, environ)
    try:
        answer = pool.request(method, url, headers=headers)
        if answer.status == 401:
            authorization = _authorize(pool, answer.headers.get("WWW-Authenticate", ""), login)
            answer = pool.request(method, url, headers={**headers, **authorization})
    except urllib3.exceptions.HTTPError as exc:
        raise EnvironmentFault(
            "build/registry",
            f"The registry {host} cannot be reached: {type(exc).__name__}.",
            "Check its name and the network.",
        ) from exc
    if answer.status in (401, 403):
        raise EnvironmentFault(
            "build/registry-login",
            f"The registry {host} refuses to say whether {wanted} exists ({answer.status}).",
            "Log in to it: docker login, or buildah login.",
        )
    return answer


def _authorize(
    pool: urllib3.PoolManager, challenge: str, login: tuple[str, str] | None
) -> dict[str, str]:
    basic = urllib3.make_headers(basic_auth=":".join(login)) if login else {}
    if challenge.lower().startswith("basic"):
        return dict(basic)
    fields = dict(_CHALLENGE.findall(challenge))
    if not fields.get("realm", "").startswith(("https://", "http://127.", "http://localhost")):
        return {}
    asked = {k: fields[k] for k in ("service", "scope") if k in fields}
    answer = pool.request("GET", fields["realm"], fields=asked, headers=basic)
    if answer.status != 200:
        return {}
    token = json.loads(answer.data)
    return {"Authorization": f"Bearer {token.get('token') or token.get('access_token')}"}
