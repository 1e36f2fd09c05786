"""From what a user calls a function's code to what the platform stores of it.

A .py file is embedded with its name; a folder and an archive go to the project's default store; a URI
stays what it is.
"""

from __future__ import annotations

import base64
import difflib
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path
from typing import Any

from digitalhub.stores.data.api import get_store

from digitalhub_runtime_python import transfer
from digitalhub_runtime_python.errors import SourceFault, UsageFault
from digitalhub_runtime_python.handlers import check_handler_exists
from digitalhub_runtime_python.sdk import cells, compat
from digitalhub_runtime_python.sdk.checks import check_handler
from digitalhub_runtime_python.sources import SCHEMES, local, tree, uri
from digitalhub_runtime_python.sources import archive as archives

logger = compat.get_logger(__name__)

_PLACEHOLDER = re.compile(rb"\s*[A-Za-z_]\w*\s*")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Code:
    """A function's code, checked, and nothing done yet."""

    source: dict[str, Any]
    """For `spec.source`."""
    upload: Path | None = None
    """A folder or an archive that has to be uploaded before `source` is right."""


def read_code(parameters: Mapping[str, Any], python_version: str = "") -> Code:
    """Read the code's parameters (`kinds.SOURCE_PARAMETERS`, or a ready `source` dict).

    Raises:
        UsageFault: usage/handler, usage/code
        SourceFault: source/missing, source/base64, source/not-found, source/not-code,
            source/bad-archive, source/scheme, source/uri
        HandlerFault: handler/syntax, handler/not-found
    """
    given = {k: v for k, v in parameters.items() if v is not None}
    check_handler(given.get("handler"))
    if "init_function" in given:
        check_handler(given["init_function"], "init_function")
    text = _text(given)
    source: dict[str, Any] = {k: given[k] for k in ("handler", "init_function") if k in given}
    source["lang"] = given.get("lang", "python")
    code_src = os.fspath(given["code_src"]) if "code_src" in given else None
    if text is not None:
        if _PLACEHOLDER.fullmatch(text) and not iskeyword(text.decode().strip()):
            logger.warning(
                "the code is the word %r alone, a placeholder: every run of it ends with an error until "
                "there is code",
                text.decode().strip(),
            )
        else:
            check_handler_exists(text, given, python_version)
        source["base64"] = base64.b64encode(text).decode()
        return Code({**source, "source": code_src} if code_src else source)
    if code_src is None:
        raise SourceFault(
            "source/missing",
            "The function has no code.",
            "Pass code_src='file.py' (or a folder, an archive, a URI), or code='…'.",
        )
    parsed = uri.parse(code_src)
    if parsed.scheme not in SCHEMES:
        raise SourceFault(
            "source/scheme",
            f"The code source {parsed.shown!r} has the scheme {parsed.scheme!r}, which is not known.",
            f"Known: {', '.join(f'{s}://' for s in SCHEMES if s)} and paths.",
        )
    if parsed.password:
        logger.warning(
            "the code source %s holds a password that everyone who may read the function can see; "
            "make it a secret of the project: GIT_TOKEN",
            parsed.shown,
        )
    if parsed.scheme not in ("", "file"):
        return Code({**source, "source": code_src})
    return _read_local(Path(parsed.url).expanduser(), source, given, python_version)


def with_function(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with a function's code in place of the function, `func` or `code_src`.

    Its Python is this one, unless another is named.

    Raises:
        UsageFault: usage/code
        SourceFault: source/func
    """
    given = dict(parameters)
    function = given.pop("func", None)
    if callable(given.get("code_src")) and not isinstance(given["code_src"], os.PathLike):
        function = function or given.pop("code_src")
    if function is None:
        return given
    others = [n for n in ("code_src", "code", "base64", "handler") if given.get(n) is not None]
    if others:
        raise UsageFault(
            "usage/code",
            f"func and {others[0]} both say what the code is.",
            "Pass one of them; the handler is the function itself.",
        )
    text, name = cells.text_of(function)
    here = f"PYTHON{sys.version_info[0]}_{sys.version_info[1]}"
    named = {"code": text, "handler": name, "code_src": "main.py"}
    return {"python_version": here, **given, **named}


def upload(code: Code, project: str, name: str, entity_id: str) -> dict[str, Any]:
    """Upload the folder or archive to the project's default store; the `source` that then is right.

    Raises:
        SourceFault: source/no-store, source/upload
    """
    if code.upload is None:
        return code.source
    with tempfile.TemporaryDirectory(prefix="dhpy-") as place:
        packed = code.upload
        if packed.is_dir():
            packed = pack(packed, Path(place, "archive.zip"))
        try:
            target = compat.files_path(project, "function", name, entity_id, str(packed))
        except ValueError as exc:
            raise SourceFault(
                "source/no-store",
                f"{code.upload} cannot be uploaded: the project has no default store.",
                "Set DHCORE_DEFAULT_FILES_STORE, e.g. s3://bucket, or pass a single .py file.",
            ) from exc
        try:
            get_store(target).upload(str(packed), target)
        except Exception as exc:
            raise SourceFault(
                "source/upload",
                f"{code.upload} cannot be uploaded to {target}: {exc}",
                "Check the default store and its credentials.",
            ) from exc
    return {**code.source, "source": target}


def pack(folder: Path, archive: Path) -> Path:
    """Zip the files of a folder that no ignore rule names; the same files give the same bytes.

    Raises:
        SourceFault: a link leads out of the folder, or there is far too much for code.
    """
    tree.check_links(folder, str(folder), local.carried(folder))
    budget = transfer.Budget(f"The folder {folder}")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in _files(folder):
            budget.entry()
            budget.add(path.stat().st_size)
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o755 if path.stat().st_mode & 0o111 else 0o644) << 16
            out.writestr(info, path.read_bytes())
        if not out.namelist():
            raise SourceFault(
                "source/empty", f"The folder {folder} has no code.", "Check its .dhignore."
            )
    return archive


def embed_if_local(source: dict[str, Any]) -> dict[str, Any]:
    """A source as another client exported it: its .py file, where it lies here, is embedded."""
    name = source.get("source")
    if source.get("base64") or source.get("code") or not isinstance(name, str) or "://" in name:
        return source
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        return source
    return {**source, "base64": base64.b64encode(path.read_bytes()).decode()}


def _text(given: Mapping[str, Any]) -> bytes | None:
    """The code that the parameters hold, as bytes."""
    if "code" in given and "base64" in given:
        raise UsageFault("usage/code", "Both code and base64 are given.", "Pass one of them.")
    if "code" in given:
        return str(given["code"]).encode()
    if "base64" not in given:
        return None
    try:
        text = base64.b64decode("".join(str(given["base64"]).split()), validate=True)
        text.decode()
    except ValueError as exc:
        raise SourceFault(
            "source/base64",
            f"base64 does not hold text: {exc}.",
            "Encode the file's bytes with base64.b64encode, or pass the text itself as code.",
        ) from exc
    return text


def _read_local(
    path: Path, source: dict[str, Any], given: Mapping[str, Any], python_version: str
) -> Code:
    if path.suffix == ".py" and path.is_file():
        text = path.read_bytes()
        check_handler_exists(text, given, python_version)
        source["base64"] = base64.b64encode(text).decode()
        return Code({**source, "source": _shown_name(path)})
    if path.suffix == ".ipynb" and path.is_file():
        text = cells.notebook_text(path).encode()
        given = {**given, "code_src": path.with_suffix(".py")}
        check_handler_exists(text, given, python_version)
        source["base64"] = base64.b64encode(text).decode()
        return Code({**source, "source": _shown_name(path.with_suffix(".py"))})
    if path.is_dir():
        return Code(source, path)
    if path.name.lower().endswith(uri.ARCHIVES) and path.is_file():
        archives.check(path, str(path))
        return Code(source, path)
    if path.exists():
        raise SourceFault(
            "source/not-code",
            f"{path} is neither a .py file, an .ipynb, an archive ({', '.join(uri.ARCHIVES)}) nor a folder.",
            "Pass one of these, or a URI.",
        )
    raise _missing(path)


def _shown_name(path: Path) -> str:
    """The name to keep: a path below the working folder, else the file's own, for others see it."""
    if path.is_absolute() or ".." in path.parts:
        return path.name
    return path.as_posix()


def _missing(path: Path) -> SourceFault:
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    return SourceFault(
        "source/not-found",
        f"There is no code at {path}.",
        f"Did you mean {close[0]!r}?" if close else f"It was looked for in {Path.cwd()}.",
    )


def _files(folder: Path) -> Iterator[Path]:
    for path in local.carried(folder):
        if path.is_dir():  # a link to a folder, inside: a zip has its files
            yield from sorted(p for p in path.rglob("*") if p.is_file())
        elif path.is_file():
            yield path
