"""Code that stands in the function's own spec, as text or as base64."""

from __future__ import annotations

import hashlib
from pathlib import Path

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.sources import Fetched
from digitalhub_runtime_python.spec import SourceSpec


def fetch(source: SourceSpec, dest: Path) -> Fetched:
    """Write `base64`, else `code`, under the name that `source` suggests.

    Raises:
        SourceFault: it is not base64, or not UTF-8.
    """
    content = _decode(source.base64) if source.base64 is not None else _encode(source.code or "")
    main = inline_name(source.source)
    (dest / main).parent.mkdir(parents=True, exist_ok=True)
    (dest / main).write_bytes(content)
    return Fetched(dest, main, f"sha256:{hashlib.sha256(content).hexdigest()}")


def inline_name(source: str | None) -> Path:
    """The relative path for inline code: `source` where it is a file's name, else `main.py`.

    Of a path that is absolute or leads upwards only the file's own name is kept.
    """
    text = (source or "").strip().replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    # "./" is as relative as nothing; a name of C: makes an absolute path on Windows.
    outside = text.startswith("/") or ".." in parts or bool(parts and parts[0].endswith(":"))
    printable = text.isprintable() and text.encode(errors="ignore").decode() == text
    if not parts or "://" in text or not printable or len(parts[-1].encode()) > 255:
        return Path("main.py")
    if not parts[-1].endswith(".py") or parts[-1] == ".py":
        return Path("main.py")
    return Path(parts[-1]) if outside else Path(*parts)


def _encode(code: str) -> bytes:
    try:
        return code.encode()
    except UnicodeEncodeError as exc:
        raise _not_utf8(f"character {exc.start} of code cannot be encoded") from exc


def _decode(text: str) -> bytes:
    import base64  # costs 3 ms in a small pod, and plain code needs none
    import binascii

    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise SourceFault(
            "source/base64",
            f"The function's base64 is not valid: {exc}.",
            "Encode the file's bytes with base64.b64encode.",
        ) from exc
    try:
        content.decode()
    except UnicodeDecodeError as exc:
        raise _not_utf8(
            f"byte {exc.start} of what base64 holds is {content[exc.start]:#04x}"
        ) from exc
    return content


def _not_utf8(where: str) -> SourceFault:
    return SourceFault(
        "source/encoding",
        f"The function's code is not UTF-8: {where}.",
        "Save the file as UTF-8.",
    )
