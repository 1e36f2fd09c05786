"""`${VAR}` in URLs of requirements: what uv, pip and git are told of it, in their environment and nowhere else.

The URL that goes on to tools, caches and locks has no user and no password; git gets them as a header for that host,
uv and pip by a netrc file that lives as long as they run.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from digitalhub_python_builder.requirements import VARIABLE, Wanted, expand

_LOGIN = re.compile(r"(?<=://)([^\s/@]+)@(?=[^\s/@]+)")


@dataclass(frozen=True)
class Login:
    """A user and password for a host."""

    host: str
    scheme: str
    user: str
    password: str = field(repr=False)


def taken_out(lines: Sequence[str], variables: Mapping[str, str]) -> tuple[list[str], list[Login]]:
    """Lines whose URLs have no `${VAR}` before their host, and the logins that stood there.

    Raises:
        EnvironmentFault: a variable is not set.
    """
    clean, logins = [], []
    for line in lines:
        match = _LOGIN.search(line)
        if match is None or not VARIABLE.search(match[1]):
            clean.append(line)
            continue
        user, _, password = match[1].partition(":")
        rest = line[match.end() :]
        scheme = line[: match.start()].rpartition(" ")[2].removesuffix("://").removeprefix("git+")
        host = re.split(r"[/?#\s]", rest, maxsplit=1)[0]
        logins.append(Login(host, scheme, expand(user, variables, line), expand(password, variables, line)))  # fmt: skip
        clean.append(line[: match.start()] + rest)
    return clean, logins


def expanded_url(url: str, variables: Mapping[str, str]) -> str:
    """An index's URL with its variables replaced, quoted where they are a user or password.

    Raises:
        EnvironmentFault: a variable is not set.
    """
    match = _LOGIN.search(url)
    if match is None:
        return expand(url, variables)
    login = ":".join(quote(unquote(expand(part, variables, url)), safe="") for part in match[1].split(":"))  # fmt: skip
    return expand(url[: match.start()] + login + url[match.end() - 1 :], variables)


@contextlib.contextmanager
def environment(logins: Sequence[Login], environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """`environ` with which git, uv and pip log in to those hosts."""
    settings = {**environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "https:http:ssh:file"}
    if not logins:
        yield settings
        return
    count = int(settings.get("GIT_CONFIG_COUNT") or 0)
    for login in logins:
        words = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
        settings[f"GIT_CONFIG_KEY_{count}"] = f"http.{login.scheme}://{login.host}/.extraHeader"
        settings[f"GIT_CONFIG_VALUE_{count}"] = f"Authorization: Basic {words}"
        count += 1
    settings["GIT_CONFIG_COUNT"] = str(count)
    with tempfile.TemporaryDirectory(prefix="dhpy-login-") as folder:
        file = Path(folder, "netrc")
        file.touch(mode=0o600)
        own = Path(environ.get("NETRC") or Path(environ.get("HOME") or "/", ".netrc"))
        before = own.read_text("utf-8", "replace") if own.is_file() and os.access(own, os.R_OK) else ""  # fmt: skip
        rows = [f"machine {one.host.partition(':')[0]} login {one.user} password {one.password or 'x-oauth-basic'}" for one in logins]  # fmt: skip
        file.write_text("\n".join([*rows, before, ""]), "utf-8")
        settings["NETRC"] = str(file)
        yield settings


def settings_of(
    wanted: Wanted, environ: Mapping[str, str], variables: Mapping[str, str]
) -> dict[str, str]:
    """`environ` with the indexes that `wanted` names: uv's and pip's settings.

    Raises:
        EnvironmentFault: a variable in one's URL is not set.
    """
    settings = dict(environ)
    extra = environ.get("UV_INDEX", "").split()
    links = [one for one in environ.get("UV_FIND_LINKS", "").split(",") if one]
    for name, value in wanted.options:
        url = expanded_url(value, variables)
        if name == "--index-url":
            settings["UV_DEFAULT_INDEX"] = url
        elif name == "--extra-index-url":
            extra.append(url)
        elif name == "--find-links":
            links.append(url)
    if extra:
        settings["UV_INDEX"] = " ".join(extra)
    if links:
        settings["UV_FIND_LINKS"] = ",".join(links)
    return settings
