"""Secrets found in every form that text brings them in: read `FORMS`.

Two ways in: `hide` for a text, `Hiding` for bytes that come in pieces, such as what a run prints. What is looked
for is a plain list of byte strings (`forms`), so that another process can look with it (the keeper does).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable

MARK = "•••"
SHORTEST = 4
"""Characters of the shortest value that is looked for: shorter ones are in every other word."""
_SHORTEST_WORD = 6
"""Characters of the shortest value that is a word of letters in one case, or a line: `test`, `true`, `----`."""
_SHORTEST_CODE = 5
"""Characters of base64 that are looked for; fewer may be anything."""
_LINES = re.compile(r"[\r\n]+")
_PUBLIC_LINE = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]+-----")
_PLAIN = re.compile(r"[A-Za-z0-9_-]*")
_SECRET_NAME = re.compile(
    r"(^|_)(PASSWORD|PASSWD|PASSPHRASE|PASS|SECRET|TOKEN)$|_(PWD|PAT)$"
    r"|(SECRET(_ACCESS)?|PRIVATE|API|AUTH|ACCOUNT|ENCRYPTION)_?KEY$",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"\w://([^\s:/@]*)(?::(?!\d+/)(\S*))?@")
_LONG_USER = 16
"""Characters of a user that is a token: `https://ghp_…@host`."""


def secret_values(environ: Mapping[str, str], names: Iterable[str] = ()) -> set[str]:
    """What no log, status or message may show of an environment.

    The variables of these names, those that are called a password, token or key, and the passwords in URLs.
    """
    wanted = set(names)
    found = {value for name, value in environ.items() if name in wanted or _SECRET_NAME.search(name)}  # fmt: skip
    for value in environ.values():
        if "://" in value:
            found.update(itertools.chain(*map(_of_login, _LOGIN.finditer(value))))
    return found - {""}


def hide(text: str, forms: Sequence[bytes]) -> str:
    """A text with all that `forms` has made replaced by `MARK`."""
    return replaced(text.encode("utf-8", "surrogatepass"), forms).decode("utf-8", "surrogatepass")


def replaced(content: bytes, forms: Sequence[bytes]) -> bytes:
    """The same for bytes that are whole."""
    for form in forms:
        if form in content:
            content = content.replace(form, _MARK)
    return content


def forms(values: Iterable[str]) -> list[bytes]:
    """Every form of every value that is long enough to be found, the longest first; none has a line break."""
    wanted = {line.strip() for value in values for line in (value, *_LINES.split(value))}
    made = (make(value) for value in wanted if _can_be_found(value) for make in FORMS)
    lines = (line.strip() for form in itertools.chain(*made) for line in _LINES.split(form))
    found = {line for line in lines if _can_be_found(line)}
    return sorted((one.encode("utf-8", "surrogatepass") for one in found), key=lambda one: (-len(one), one))  # fmt: skip


class Hiding:
    """Replaces what is looked for in bytes that come in pieces, also where it lies across two of them.

    What may be the beginning of it is held back until it is known; a line that is complete never is.

    Args:
        forms: as `forms` makes them.
    """

    def __init__(self, forms: Sequence[bytes]) -> None:
        self._forms = forms
        self._starts: dict[bytes, list[bytes]] = {}
        for form, length in itertools.product(forms, range(1, 5)):
            self._starts.setdefault(form[:length], []).append(form)
        self._longest = max(map(len, forms), default=0)
        self._held = b""

    def add(self, piece: bytes) -> bytes:
        """What can be shown now."""
        text = self._held + piece
        cut = self._beginning(text)
        # A shorter one may be within a longer one that is not complete yet: neither is cut.
        while cut < len(text) and (earlier := self._across(text, cut)) < cut:
            cut = earlier
        self._held = text[cut:]
        return replaced(text[:cut], self._forms)

    def rest(self) -> bytes:
        """What was held back; nothing more comes."""
        held, self._held = self._held, b""
        return replaced(held, self._forms)

    def _across(self, text: bytes, cut: int) -> int:
        """Where the first of those that lie across the cut begins; the cut itself where none does."""
        first = cut
        for form in self._forms:
            start = max(0, cut - len(form) + 1)
            found = text.find(form, start, cut + len(form) - 1)
            if 0 <= found < first:
                first = found
        return first

    def _beginning(self, text: bytes) -> int:
        """Where what may go on in the next piece begins; the length of the text where nothing may."""
        start = max(text.rfind(b"\n") + 1, len(text) - self._longest + 1)
        for place in range(start, len(text)):
            likely = self._starts.get(text[place : place + 4])
            if likely and any(form.startswith(text[place:]) for form in likely):
                return place
        return len(text)


def _can_be_found(value: str) -> bool:
    if len(value) < SHORTEST or _PUBLIC_LINE.fullmatch(value):
        return False
    word = value.isalpha() and (value.islower() or value.isupper() or value.istitle())
    line = not any(map(str.isalnum, value))
    return len(value) >= _SHORTEST_WORD or not (word or line)


def _of_login(match: re.Match[str]) -> Iterable[str]:
    """What is secret in the login of a URL, as it stands there and as it is meant."""
    from urllib.parse import unquote

    user, password = match.groups()
    secret = password or (user if len(user) >= _LONG_USER else "")
    return (secret, unquote(secret))


def _spelled(value: str) -> Iterable[str]:
    """As it is, and as text within text: twice, for JSON in a `repr`, or an encoded URL in a query."""
    if _PLAIN.fullmatch(value):
        return (value,)
    once = {spell(value) for spell in ESCAPES}
    return once.union(*({spell(one) for spell in ESCAPES} for one in once))


def _base64(value: str) -> Iterable[str]:
    """Its own base64, broken into lines or not, and what is the same of it in the middle of something longer."""
    import base64

    raw = value.encode("utf-8", "surrogatepass")
    yield base64.encodebytes(raw).decode()
    for encode, before in itertools.product((base64.b64encode, base64.urlsafe_b64encode), range(3)):
        whole = encode(b"\0" * before + raw).decode().rstrip("=")
        # Those at either end also depend on the neighbours.
        core = whole[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]
        if len(core) >= _SHORTEST_CODE:
            yield core


def _hexadecimal(value: str) -> Iterable[str]:
    plain = value.encode("utf-8", "surrogatepass").hex()
    return (plain, plain.upper())


def _json(value: str, ascii_only: bool) -> str:
    import json

    return json.dumps(value, ensure_ascii=ascii_only)[1:-1]


def _quoted(value: str, safe: str = "") -> str:
    from urllib.parse import quote

    return quote(value, safe, errors="surrogatepass")


def _lower(quoted: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quoted)


_ENTITIES = {38: "&amp;", 60: "&lt;", 62: "&gt;", 34: "&quot;", 39: "&#x27;"}
_OF_GO = {60: "\\u003c", 62: "\\u003e", 38: "\\u0026"}

FORMS: tuple[Callable[[str], Iterable[str]], ...] = (_spelled, _base64, _hexadecimal)
"""Each makes texts that give a value away; one that has several lines is looked for line by line."""

ESCAPES: tuple[Callable[[str], str], ...] = (
    lambda value: value,
    lambda value: repr(value)[1:-1],
    lambda value: repr(f"{value}'")[1:-2],  # in double quotes: there is a ' elsewhere in the text
    lambda value: repr(f"{value}'\"")[1:-4],  # in single ones, with every ' escaped
    lambda value: repr(value.encode("utf-8", "surrogatepass"))[2:-1],
    lambda value: ascii(value)[1:-1],
    lambda value: _json(value, ascii_only=True),
    lambda value: _json(value, ascii_only=False),
    lambda value: _json(value, ascii_only=True).replace("/", "\\/"),
    _quoted,
    lambda value: _lower(_quoted(value)),
    lambda value: _quoted(value, "/"),
    lambda value: _quoted(value, "/:;,?@&=+$!*'()#"),
    lambda value: _quoted(value, "!*'()"),
    lambda value: _quoted(value).replace("%20", "+"),
    lambda value: value.translate(_ENTITIES),
    lambda value: value.translate({**_ENTITIES, 34: "&#34;", 39: "&#39;"}),
    lambda value: value.translate({**_ENTITIES, 34: '"', 39: "'"}),
    lambda value: _json(value, ascii_only=True).translate(_OF_GO),
    lambda value: _json(value, ascii_only=False).translate(_OF_GO),
    lambda value: value.replace("'", "'\"'\"'"),
)
"""How text is written within text: Python's, JSON's, a URL's, HTML's, Go's JSON, a shell's."""

_MARK = MARK.encode()
