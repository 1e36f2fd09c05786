"""What failed, as data for the status, the log and the termination message."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from digitalhub_runtime_python.errors import Fault

OWN_CODE = str(Path(__file__).parent)
MESSAGE_LIMIT = 4_000
"""Characters of an exception's text that are kept: a status is read whole by every list of runs."""
TRACEBACK_LIMIT = 20_000
"""Characters of a traceback that are kept, the last ones: they say what happened."""


def describe(exc: BaseException, root: Path | None = None) -> dict[str, Any]:
    """An exception as `status.error`: type, message, file, line, traceback; code for our faults.

    Our own frames are cut, and files below `root`, the folder of the user's code, are named
    relative to it.
    """
    error: dict[str, Any] = {"type": _type_name(exc), "message": _clip(_text(exc), MESSAGE_LIMIT)}
    if isinstance(exc, Fault):
        return {**error, "code": exc.code, "exit_status": exc.exit_status}
    if isinstance(exc, SyntaxError) and exc.filename:
        # The place of a syntax error is in the exception; its frames are the importer's.
        error.update(file=_relative(exc.filename, root), line=exc.lineno)
        trace = traceback.TracebackException(type(exc), exc, None)
        trace.filename = error["file"]
    else:
        frames = _user_frames(exc.__traceback__, root)
        if frames:
            error.update(file=_relative(frames[-1].filename, root), line=frames[-1].lineno)
        trace = traceback.TracebackException(type(exc), exc, exc.__traceback__)
    _cut(trace, root)
    error["traceback"] = _clip("".join(trace.format()), TRACEBACK_LIMIT, keep_end=True)
    return error


def summary(error: Mapping[str, Any]) -> str:
    """One line for `status.message`: type, text, and where."""
    lines = str(error.get("message") or "").strip().splitlines()
    first = _clip(lines[0] if lines else "", 500)
    where = f" ({error['file']}, line {error['line']})" if error.get("file") else ""
    name = "" if error.get("code") else str(error.get("type") or "")
    return f"{name}{': ' if name and first else ''}{first}{where}"


def redact(error: dict[str, Any], secrets: Iterable[str]) -> dict[str, Any]:
    """The same error with every secret value in its texts replaced."""
    hidden = sorted({s for s in secrets if len(s) >= 6}, key=len, reverse=True)

    def clean(text: str) -> str:
        for secret in hidden:
            text = text.replace(secret, "•••")
        return text

    return {k: clean(v) if isinstance(v, str) else v for k, v in error.items()}


def _type_name(exc: BaseException) -> str:
    cls = type(exc)
    plain = cls.__module__ in ("builtins", "__main__") or isinstance(exc, Fault)
    return cls.__qualname__ if plain else f"{cls.__module__}.{cls.__qualname__}"


def _text(exc: BaseException) -> str:
    if isinstance(exc, SyntaxError):
        return exc.msg or ""
    try:
        return str(exc)
    except Exception as broken:  # noqa: BLE001 - a __str__ of the user's that raises must not hide the error
        return f"<its text cannot be read: {type(broken).__name__}>"


def _without_own(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """The frames below our last one; all of them where ours raised: then the fault is ours to see."""
    own = [
        i
        for i, f in enumerate(frames)
        if f.filename.startswith(OWN_CODE) or f.filename.startswith("<frozen importlib")
    ]
    return (frames[own[-1] + 1 :] if own else frames) or frames


def _user_frames(tb: TracebackType | None, root: Path | None) -> list[traceback.FrameSummary]:
    """The frames that are not ours; where some lie in the user's own folder, up to the last of those."""
    frames = _without_own(list(traceback.extract_tb(tb)))
    if root is not None:
        inside = [i for i, f in enumerate(frames) if f.filename.startswith(str(root))]
        if inside:
            return frames[: inside[-1] + 1]
    return frames


def _cut(trace: traceback.TracebackException, root: Path | None) -> None:
    seen: set[int] = set()
    todo: list[traceback.TracebackException | None] = [trace]
    while todo:
        item = todo.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        kept = _without_own(list(item.stack))
        for frame in kept:
            _ = (
                frame.line
            )  # read the source line now, while the file is there and its path is known
            frame.filename = _relative(frame.filename, root)
        item.stack[:] = kept
        todo += [item.__cause__, item.__context__, *(getattr(item, "exceptions", None) or [])]


def _relative(filename: str, root: Path | None) -> str:
    prefix = f"{root}/" if root is not None else ""
    return filename[len(prefix) :] if prefix and filename.startswith(prefix) else filename


def _clip(text: str, limit: int, *, keep_end: bool = False) -> str:
    if len(text) <= limit:
        return text
    return "…" + text[-limit:] if keep_end else text[:limit] + "…"
