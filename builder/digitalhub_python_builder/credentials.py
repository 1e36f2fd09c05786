"""Logins to registries: docker's config.json, its helpers, and the file of buildah and podman."""

from __future__ import annotations

import base64
import binascii
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from digitalhub_python_builder.references import DOCKER_HUB

_HUB_KEY = "https://index.docker.io/v1/"
_HELPER_TIMEOUT = 30
"""Seconds: a helper that asks somebody at a terminal would wait for ever."""


@dataclass(frozen=True)
class Login:
    """Who to be at a registry."""

    user: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    """In place of a password; it is exchanged for a token of the registry."""


def find(registry: str, environ: Mapping[str, str]) -> Login | None:
    """The login to a registry; None without one.

    Args:
        registry: `host[:port]`; empty for Docker Hub.
        environ: says where the files are: `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`, `HOME`.
    """
    home = Path(environ.get("HOME") or "/")
    runtime = environ.get("XDG_RUNTIME_DIR", "/run")
    files = [
        Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json",
        Path(environ.get("REGISTRY_AUTH_FILE") or f"{runtime}/containers/auth.json"),
    ]
    keys = [registry, f"https://{registry}", f"http://{registry}", f"https://{registry}/v1/"]
    keys += [f"https://{registry}/v2/", f"{registry}/"]
    keys += [_HUB_KEY, DOCKER_HUB] if registry in ("", DOCKER_HUB) else []
    for file in files:
        try:
            config = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(config, dict):
            continue
        for key in keys:
            found = _from_config(config, key, environ)
            if found:
                return found
    return None


def _from_config(config: Mapping[str, Any], key: str, environ: Mapping[str, str]) -> Login | None:
    auths = config.get("auths") or {}
    entry = auths.get(key) or {}
    helper = (config.get("credHelpers") or {}).get(key) or (key in auths and config.get("credsStore"))  # fmt: skip
    if helper and (found := _from_helper(str(helper), key, environ)):
        return found
    if entry.get("identitytoken"):
        return Login("", "", str(entry["identitytoken"]))
    if entry.get("auth"):
        try:
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return Login(user, password.strip("\0"))
    if entry.get("username") and entry.get("password"):
        return Login(str(entry["username"]), str(entry["password"]))
    return None


def _from_helper(helper: str, key: str, environ: Mapping[str, str]) -> Login | None:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        return None
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=key,
            env=dict(environ),
            capture_output=True,
            text=True,
            timeout=_HELPER_TIMEOUT,
            check=False,
        )
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        return None
    return Login("", "", secret) if user == "<token>" else Login(user, secret)
