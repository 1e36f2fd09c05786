"""Reads the text of a code source into its parts. Pure: knows no file and no server.

[zip+]scheme://[user[:password]@]host[:port]/path[?query][#fragment]
fragment of git:      [ref][:subfolder]
fragment of the rest: [:subfolder][&sha256=<64 hex>], each part optional
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.transfer import member_path

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""How the names of archives end."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
# Paths and keys may hold a "#" of their own, so only what is unmistakable is a fragment there.
_RAW_FRAGMENT = re.compile(r"#(?=:|sha256=)")
# What git itself forbids in a name of a ref, and a leading "-", which would be an option.
_BAD_REF = re.compile(r"^[-/.]|[\s~^?*\[\\]|\.\.|@\{|//|/\.|(\.lock|[/.])$")


@dataclass(frozen=True)
class SourceUri:
    """A code source in parts; `repr` and `shown` hold no secret."""

    scheme: str
    """Without `zip+`; empty for a path."""
    url: str = field(repr=False)
    """What to ask for: a path, or a URL without `zip+`, `git+`, user, password and fragment."""
    shown: str
    """For messages and logs: no user, no password, no query (a query may be a signature)."""
    archive: bool = False
    """`zip+`, or a path that ends as an archive's."""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ref: str = ""
    """git: branch, tag or commit; empty for the default branch."""
    subfolder: str = ""
    """Relative, without `..`; empty for everything."""
    sha256: str = ""
    """64 hex digits, lower case, that the file must have; empty for any."""

    @property
    def file_name(self) -> str:
        """The name under which a single file is kept: the URL's own if it is a `.py`, else `main.py`."""
        path = self.url.partition("?")[0]
        path = unquote(path) if self.scheme in ("http", "https") else path
        name = path.replace("\\", "/").rsplit("/", 1)[-1]
        return name if name.endswith(".py") and name != ".py" else "main.py"


def parse(text: str) -> SourceUri:
    """Take a code source apart.

    Raises:
        SourceFault: it is not well formed; the message holds no password.
    """
    text = text.strip()
    if _CONTROL.search(text):
        raise _malformed(text, "it holds a control character")
    if text.encode(errors="replace").decode() != text:
        raise _malformed(text, "it holds half a character")
    archive = text.lower().startswith("zip+")
    rest = text[4:] if archive else text
    match = _SCHEME.match(rest)
    scheme = match.group(1).lower() if match else ""
    if scheme in ("http", "https") or scheme.split("+")[0] == "git":
        uri = _parse_url(text, scheme, rest)
    else:
        uri = _parse_raw(text, scheme, rest)
    zipped = uri.url.partition("?")[0].lower().endswith(ARCHIVES)
    if scheme.split("+")[0] == "git":
        if archive:
            raise _malformed(text, "a git repository is not an archive: leave zip+ out")
        return uri
    if uri.subfolder and not (archive or zipped):
        raise _malformed(text, "only an archive or a git repository has a subfolder to choose")
    return replace(uri, archive=archive or zipped)


def redact(text: str) -> str:
    """Free text with the user and password of every URL in it replaced by `***`."""
    return re.sub(r"(?<=://)\S*@", "***@", text)


def _parse_url(text: str, scheme: str, rest: str) -> SourceUri:
    try:
        parts = urlsplit(rest)
        port = parts.port
    except ValueError:
        # Not "from exc": its text can hold a piece of the password.
        raise _malformed(text, "its host or port is not valid") from None
    host = parts.hostname or ""
    if not host or host.startswith("-"):
        raise _malformed(text, "it names no valid host")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if _CONTROL.search(user + password) or user.startswith("-"):
        raise _malformed(text, "its user or password holds what none may hold")
    # The SDK has always fetched git:// over https; git's own protocol is neither private nor signed.
    transport = {"git": "https"}.get(scheme, scheme.rpartition("+")[2])
    where = f"[{host}]" if ":" in host else host
    where += "" if port is None else f":{port}"
    if transport == "ssh" and user:
        where, user = f"{user}@{where}", ""
    if transport == "ssh" and password:
        raise _malformed(text, "ssh takes a key, not a password")
    url = f"{transport}://{where}{parts.path}"
    shown = text[: text.index("://")] + "://" + url.partition("://")[2]
    shown += ("?…" if parts.query else "") + (f"#{parts.fragment}" if parts.fragment else "")
    url += f"?{parts.query}" if parts.query else ""
    if scheme.split("+")[0] == "git":
        ref, _, subfolder = parts.fragment.partition(":")
        if ref and _BAD_REF.search(ref):
            raise _malformed(text, "what follows # is not a name of a branch, tag or commit")
        subfolder, sha256 = _subfolder(text, subfolder), ""
    else:
        ref, (subfolder, sha256) = "", _options(text, parts.fragment)
    return SourceUri(
        scheme,
        url,
        shown,
        user=user,
        password=password,
        ref=ref,
        subfolder=subfolder,
        sha256=sha256,
    )


def _parse_raw(text: str, scheme: str, rest: str) -> SourceUri:
    parts = _RAW_FRAGMENT.split(rest, maxsplit=1)
    url, fragment = parts[0], parts[1] if len(parts) > 1 else ""
    if scheme == "file":
        host, slash, path = url.partition("://")[2].partition("/")
        if host not in ("", "localhost") or not slash:
            raise _malformed(text, "a file:// URL has no host: file:///folder/file.py")
        url = unquote(slash + path)
        if _CONTROL.search(url):
            raise _malformed(text, "it holds a control character")
    if not url:
        raise _malformed(text, "it names nothing")
    subfolder, sha256 = _options(text, fragment)
    # No such address has a password; one that looks like it, of whatever scheme, is not shown.
    shown = re.sub(r"(?<=://)[^@]*:.*@", "***@", text)
    return SourceUri(scheme, url, shown, subfolder=subfolder, sha256=sha256)


def _options(text: str, fragment: str) -> tuple[str, str]:
    """`[:subfolder][&sha256=…]` as subfolder and digest."""
    subfolder = sha256 = ""
    for part in fragment.split("&") if fragment else []:
        if part.startswith(":") and not subfolder:
            subfolder = _subfolder(text, part[1:])
        elif part.startswith("sha256=") and not sha256:
            sha256 = part[len("sha256=") :].lower()
            if not _SHA256.fullmatch(sha256):
                raise _malformed(text, "sha256= takes 64 hexadecimal digits")
        else:
            raise _malformed(text, "after # only :subfolder and sha256=<64 hex> are known")
    return subfolder, sha256


def _subfolder(text: str, subfolder: str) -> str:
    if not subfolder.strip("/."):
        if ".." in subfolder:
            raise _malformed(text, "the subfolder leads out of the source")
        return ""
    try:
        return str(member_path(subfolder.rstrip("/")))
    except ValueError as exc:
        raise _malformed(text, f"the subfolder {exc}") from exc


def _malformed(text: str, why: str) -> SourceFault:
    # Where a malformed password ends is anybody's guess: at the last @.
    shown = re.sub(r"(?<=://).*@", "***@", _CONTROL.sub("?", text))
    shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
    return SourceFault(
        "source/uri",
        f"The code source {shown!r} is not well formed: {why}.",
        "The forms that there are: dhpy help sources",
    )
