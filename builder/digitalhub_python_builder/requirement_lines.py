"""pip's requirement format: text, or a function's list of lines, as one `Wanted`.

What pip reads is read: encodings, comments, continued lines, `-r`, `-c`, `-e`, hashes, options that say where to look,
local wheels, sdists and folders, `${VAR}` (kept as it stands; replaced where it is used). A line that cannot be
carried into an image is refused, never dropped.
"""

from __future__ import annotations

import codecs
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from digitalhub_python_builder import toml
from digitalhub_python_builder.requirements import (
    VARIABLE,
    Wanted,
    check_url,
    parse_requirements,
    redact,
)
from digitalhub_runtime_python.errors import EnvironmentFault

# fmt: off
_LONG = {"-r": "--requirement", "-c": "--constraint", "-e": "--editable", "-i": "--index-url", "-f": "--find-links",
         "--pypi-url": "--index-url"}
_PLACES = ("--index-url", "--extra-index-url", "--find-links")
_TAKES_VALUE = {*_LONG.values(), "--extra-index-url", "--no-binary", "--only-binary", "--trusted-host", "--use-feature"}
_NOTHING_TO_DO = {"--prefer-binary", "--only-binary"}
_REFUSED = {
    "--trusted-host": "it would turn the check of certificates off; give the certificates: --ca-bundle FILE",
    "--no-binary": "it asks for a build from source; build with --allow-sdist, without this line",
    "--global-option": "options of builds are not carried; build the wheel yourself and name it",
    "--install-option": "options of builds are not carried; build the wheel yourself and name it",
    "--config-settings": "options of builds are not carried; build the wheel yourself and name it",
}
# fmt: on
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_COOKIE = re.compile(rb"#.*?coding[:=][ \t]*([-\w.]+)")
_COMMENT = re.compile(r"(^|\s+)#.*$")
_ARCHIVES = (".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz")
_HASH = re.compile(r"(?:sha256|sha384|sha512):[0-9a-f]+|(?:md5|sha1):[0-9a-f]+")


def read_text(file: Path) -> str:
    """The text of a file as pip decodes it: by its byte order mark, by its cookie, else UTF-8.

    Raises:
        EnvironmentFault: it is not text in that encoding.
    """
    data = file.read_bytes()
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _decoded(data[len(bom) :], encoding, file)
    for line in data.split(b"\n")[:2]:
        cookie = _COOKIE.match(line.strip()) if line.strip().startswith(b"#") else None
        if cookie:
            return _decoded(data, cookie[1].decode(), file)
    return _decoded(data, "utf-8", file)


def read_file(file: Path, above: tuple[Path, ...] = ()) -> Wanted:
    """What a requirements.txt asks for, with all that it includes.

    Raises:
        EnvironmentFault: a line is not one of pip's, or cannot be carried into an image.
    """
    return _read(_logical_lines(read_text(file)), file.parent, file.name, (*above, file.resolve()))


def read_output(text: str, file: Path) -> Wanted:
    """The same of text that a tool made of `file`, beside which its relative paths begin."""
    return _read(_logical_lines(text), file.parent, file.name, (file.resolve(),))


def read_lines(lines: Iterable[str], where: str = "the function") -> Wanted:
    """What a function's `requirements` ask for: lines as in a file, and `-c name<2` for a constraint.

    Raises:
        EnvironmentFault: as `read_file`; includes and relative paths name nothing here.
    """
    if isinstance(lines, (str, bytes)):
        parse_requirements(lines)  # says what is wrong with it
    given = list(lines)
    bad = next((line for line in given if not isinstance(line, str)), None)
    if bad is not None:
        parse_requirements([bad])  # says what is wrong with it
    numbered: list[tuple[int, str]] = []
    for line in given:
        stripped = line.strip("\r\n\t ")
        if not stripped.startswith("-"):
            parse_requirements([stripped.partition(" --hash")[0]])
        elif re.search("[\x00-\x1f\x7f\x85\u2028\u2029]", stripped):
            raise _fault(where, stripped, "it contains a line break or another control character")
        text = _COMMENT.sub("", stripped).strip()
        if text:
            numbered.append((0, text))
    return _read(numbered, None, where, ())


def to_lines(wanted: Wanted) -> list[str]:
    """The opposite of `read_lines`: a list that can be stored with a function."""
    allowed = wanted.allowed
    lines = [f"{name} {value}".strip() for name, value in wanted.options]
    for line in wanted.lines:
        (one,) = parse_requirements([line])
        hashes = sorted(allowed.get(canonicalize_name(one.name), ()))
        lines.append(" ".join([line, *(f"--hash={value}" for value in hashes)]))
    return [*lines, *(f"-c {line}" for line in wanted.constraints)]


def _read(
    lines: Sequence[tuple[int, str]], folder: Path | None, where: str, above: tuple[Path, ...]
) -> Wanted:
    wanted = Wanted()
    for number, line in lines:
        place = f"{where}, line {number}" if number else where
        if line.startswith("-"):
            wanted += _option_line(line, folder, place, above)
            continue
        text, options = _split_options(line, place)
        hashes = frozenset(value for name, value in options if name == "--hash")
        for name, value in options:
            if name in _REFUSED or name != "--hash":
                raise _fault(place, name, _REFUSED.get(name, "pip has no such option here"))
            if not _HASH.fullmatch(value):
                raise _fault(place, f"--hash={value}", "a hash is written as sha256:…")
        wanted += _requirement(text, hashes, folder, place)
    return wanted


def _option_line(line: str, folder: Path | None, place: str, above: tuple[Path, ...]) -> Wanted:
    try:
        words = shlex.split(line)
    except ValueError as exc:
        raise _fault(place, line, f"its quotes do not match ({exc})") from exc
    wanted = Wanted()
    while words:
        name, equals, value = words.pop(0).partition("=")
        if name[:2] in _LONG and not name.startswith("--") and len(name) > 2:
            name, equals, value = name[:2], "=", line[2:].strip()  # -rfile
        name = _LONG.get(name, name)
        if name in _TAKES_VALUE and not equals:
            # A constraint may be a requirement of several words: `-c name < 2`.
            value = " ".join(words) if name in ("--constraint", "--editable") else (words.pop(0) if words else "")  # fmt: skip
            words = [] if name in ("--constraint", "--editable") else words
        wanted += _option(name, value, folder, place, above)
    return wanted


def _option(
    name: str, value: str, folder: Path | None, place: str, above: tuple[Path, ...]
) -> Wanted:
    if name in _TAKES_VALUE and not value:
        raise _fault(place, name, "it has no value")
    if name in ("--requirement", "--constraint"):
        if folder is None:
            if name == "--constraint":
                return Wanted((), tuple(map(str, parse_requirements([value]))))
            raise _fault(place, name, "there is no file beside a list; pass the file itself")
        return _include(name, value, folder, place, above)
    if name == "--editable":
        # In an image there is nothing to edit: as an ordinary one.
        return _requirement(value, frozenset(), folder, place)
    if name in _PLACES:
        return Wanted(options=((name, _place(name, value, folder, place)),))
    if name in ("--no-index", "--pre"):
        return Wanted(options=((name, ""),))
    if name == "--require-hashes" or name in _NOTHING_TO_DO:
        return Wanted()
    raise _fault(place, name, _REFUSED.get(name, "this option of pip is not known here"))


def _include(name: str, value: str, folder: Path, place: str, above: tuple[Path, ...]) -> Wanted:
    if "://" in value:
        raise _fault(place, f"{name} {value}", "a file at a URL may change; download it")
    other = (folder / value).resolve()
    if other in above or not other.is_file():
        raise _fault(place, f"{name} {value}", "it includes what is not there, or what includes it")
    part = read_file(other, above)
    if name == "--constraint":
        return Wanted(
            (), part.lines + part.constraints, part.hashes, part.options, (), part.origins
        )
    return part


def _place(name: str, value: str, folder: Path | None, place: str) -> str:
    if "://" in value:
        check_url(f"{name} {value}", value)
        return value
    if name != "--find-links":
        raise _fault(place, f"{name} {redact(value)}", "an index is a URL: https://host/simple")
    found = (folder / value) if folder is not None else Path(value)
    if not found.is_absolute() or not found.is_dir():
        raise _fault(place, f"{name} {value}", "there is no such folder")
    return found.resolve().as_uri()


def _requirement(text: str, hashes: frozenset[str], folder: Path | None, place: str) -> Wanted:
    line = _named(text, folder, place)
    found = parse_requirements([line])
    if not found:
        return Wanted()
    kept = ((canonicalize_name(found[0].name), hashes),) if hashes else ()
    return Wanted((line,), (), kept, origins=((line, place),))


def _named(text: str, folder: Path | None, place: str) -> str:
    """`text`, or `name @ URL` where it is a path or a URL alone."""
    where, blank, marker = re.split(r"(\s+;|$)", text, maxsplit=1)
    marker = f" ; {marker.strip()}" if blank and marker.strip() else ""
    extras = ""
    match = re.fullmatch(r"(.+?)(\[[A-Za-z0-9._, -]+\])", where)
    if "://" in where.partition(" ")[0] and not re.search(r"[#&]egg=", where):
        try:
            name = _name_of_file(unquote(urlsplit(where).path)) or _name_of_folder(where)
        except ValueError as exc:
            raise _fault(place, where, f"its URL is not well formed: {exc}") from exc
        if name:
            return f"{name} @ {where}{marker}"
        return text  # refused by the parser, which says how to write it
    if match and re.match(r"[./~]|[^\s@=<>!;]*/", match[1]):
        where, extras = match[1], match[2]
    looks_like_path = re.match(r"(\.{0,2}/|\.{1,2}$|~/)", where) or (
        "@" not in where and where.endswith((".whl", *_ARCHIVES)) and not VARIABLE.search(where)
    )
    relative = re.fullmatch(r"([A-Za-z0-9._\[\], -]+?)\s*@\s*(\.{1,2}/\S*|\S+\.whl|/\S+)", where)
    if relative and "://" not in relative[2]:
        return f"{relative[1]} @ {_local(relative[2], folder, place).as_uri()}{marker}"
    if not looks_like_path:
        return text
    path = _local(where, folder, place)
    name = _name_of_folder(path.as_uri()) if path.is_dir() else _name_of_file(path.name)
    if not name:
        raise _fault(place, where, f"its name cannot be told; write it as name @ {path.as_uri()}")
    return f"{name}{extras} @ {path.as_uri()}{marker}"


def _local(text: str, folder: Path | None, place: str) -> Path:
    if folder is None and not text.startswith("/"):
        raise _fault(place, text, "a relative path names nothing here; pass the file that it stands in")  # fmt: skip
    path = ((folder or Path("/")) / Path(text).expanduser()).resolve()
    if not path.exists():
        raise _fault(place, text, f"there is no file or folder {path}")
    if path.is_dir() and not any((path / name).is_file() for name in ("pyproject.toml", "setup.py")):  # fmt: skip
        raise _fault(place, text, "the folder has neither pyproject.toml nor setup.py")
    return path


def _name_of_file(path: str) -> str:
    file = path.rpartition("/")[2]
    try:
        if file.endswith(".whl"):
            return parse_wheel_filename(file)[0]
        return parse_sdist_filename(file)[0]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return ""


def _name_of_folder(uri: str) -> str:
    """What a folder's project calls itself; empty where that is not written down."""
    if not uri.startswith("file://"):
        return ""
    folder = Path(unquote(urlsplit(uri).path))
    if (folder / "pyproject.toml").is_file():
        content = toml.load(folder / "pyproject.toml")
        tool = content.get("tool") or {}
        name = (content.get("project") or {}).get("name") or (tool.get("poetry") or {}).get("name")
        if name:
            return str(name)
    for file, pattern in (("setup.cfg", r"^name\s*=\s*(\S+)"), ("setup.py", r"\bname\s*=\s*['\"]([^'\"]+)")):  # fmt: skip
        found = re.search(pattern, read_text(folder / file), re.M) if (folder / file).is_file() else None  # fmt: skip
        if found:
            return found[1]
    return ""


def _split_options(line: str, place: str) -> tuple[str, list[tuple[str, str]]]:
    """A requirement and the options behind it, as pip tells them apart."""
    words = line.split(" ")
    at = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    try:
        rest = shlex.split(" ".join(words[at:]))
    except ValueError as exc:
        raise _fault(place, line, f"its quotes do not match ({exc})") from exc
    options = []
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        options.append((name, value if equals else (rest.pop(0) if rest else "")))
    return " ".join(words[:at]).strip(), options


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """(number, text) without comments; continued lines are one, as pip joins them."""
    found: list[tuple[int, str]] = []
    joined, start = "", 0
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        start = start if joined else number
        comment = bool(re.match(r"\s*#", line))
        if line.endswith("\\") and not comment:
            joined += line[:-1]
            continue
        # A comment ends what was continued into it.
        whole, joined = joined + (f" {line}" if comment and joined else line), ""
        found.append((start, whole))
    if joined:
        found.append((start, joined))
    clean = ((number, _COMMENT.sub("", line).strip()) for number, line in found)
    return [(number, re.sub(r"\t", " ", line)) for number, line in clean if line]


def _decoded(data: bytes, encoding: str, file: Path) -> str:
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as exc:
        raise EnvironmentFault(
            "environment/requirements-file",
            f"The requirements in {file.name} cannot be used: it is not text in {encoding}.",
            "Save it as UTF-8, or name its encoding in its first line: # -*- coding: latin-1 -*-",
        ) from exc
    if "\0" in text:
        raise _fault(file.name, "NUL", "it contains NUL characters: it is not text, or UTF-16 without its mark")  # fmt: skip
    return text


def _fault(place: str, what: str, why: str) -> EnvironmentFault:
    return EnvironmentFault(
        "environment/requirements-file",
        f"{place}: {redact(what)!r} cannot be used: {redact(why)}.",
        "Change that line, or lock the project (uv lock) and pass its lock file.",
    )
