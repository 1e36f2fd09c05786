"""What failed, as data for the status, the log and the termination message."""

from __future__ import annotations

import importlib
import itertools
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from digitalhub_runtime_python.errors import Fault, Terminated

if TYPE_CHECKING:
    from typing import TypeGuard

E = TypeVar("E", bound=BaseException)

OWN_CODE = f"{Path(__file__).parent}/"
INTERPRETER = (
    "<frozen importlib", f"{Path(importlib.__file__).parent}/",
    "<frozen runpy", str(Path(traceback.__file__).with_name("runpy.py")),
)  # fmt: skip
"""Files of the interpreter's that only lead to the user's code."""
MESSAGE_LIMIT = 4_000
"""Characters of an exception's text that are kept: a status is read whole by every list of runs."""
TRACEBACK_LIMIT = 20_000
"""Characters of a traceback that are kept, the last ones: they say what happened."""


def describe(
    exc: BaseException, root: Path | None = None, secrets: Iterable[str] = (), before: str = ""
) -> dict[str, Any]:
    """An exception as `status.error`: type, message, file, line, traceback; code for our faults.

    Our own frames are cut, and files below `root`, the folder of the user's code, are named
    relative to it. Never raises, whatever the exception is made of.

    Args:
        secrets: values that no text of it may show; they are taken out before a text is cut.
        before: a traceback that led to this one.
    """
    error = _described(exc, root)
    if before:
        error["traceback"] = before + shown(error)
    error = redact(error, secrets)
    error["message"] = clip(error["message"], MESSAGE_LIMIT)
    if "traceback" in error:
        error["traceback"] = clip(error["traceback"], TRACEBACK_LIMIT, keep_end=True)
    return error


def _described(exc: BaseException, root: Path | None) -> dict[str, Any]:
    error: dict[str, Any] = {"type": _type_name(exc), "message": text_of(exc)}
    if is_a(exc, Fault):
        return {**error, "code": exc.code, "exit_status": exc.exit_status}
    if issubclass(type(exc), (KeyboardInterrupt, Terminated)) and _is_ours(exc.__traceback__):
        return {**error, "message": error["message"] or "interrupted"}
    try:
        place, trace = _locate(exc, root)
        text = "".join(trace.format())
    except Exception as broken:  # noqa: BLE001 - an exception that cannot be shown must not hide that there was one
        place = {}
        text = f"{error['type']}: {error['message']}\n(its traceback cannot be shown: {_type_name(broken)})\n"
    return {**error, **place, "traceback": text}


def _locate(
    exc: BaseException, root: Path | None
) -> tuple[dict[str, Any], traceback.TracebackException]:
    """(file and line, traceback to show) of an exception."""
    trace = traceback.TracebackException(type(exc), exc, exc.__traceback__)
    own = {_relative(f.filename, root) for f in trace.stack if is_below(f.filename, root)}
    _cut(trace, root)
    file, line = None, None
    if isinstance(exc, SyntaxError) and _of_import(exc, root):
        file, line = exc.filename, exc.lineno
        # Where it lies is below; what led there is worth showing from the user's first file on.
        shown_from = itertools.dropwhile(lambda f: f.filename not in own, list(trace.stack))
        trace.stack[:] = [f for f in shown_from if not _is_machinery(f)]
        trace.filename = _relative(str(file), root)
    else:
        frames = _user_frames(exc.__traceback__, root)
        if frames:
            file, line = frames[-1].filename, frames[-1].lineno
    return {"file": _relative(file, root), "line": line} if file else {}, trace


def shown(error: Mapping[str, Any]) -> str:
    """What a log and the termination message show: the traceback, or one line for our own faults."""
    code = f" [{error['code']}]" if error.get("code") else ""
    return str(error.get("traceback") or f"{error['message']}{code}\n")


def stack_text(frame: FrameType | None) -> str:
    """Where a thread is, as the text of a traceback with our own frames cut."""
    frames = _without_own(list(traceback.extract_stack(frame)), None) if frame else []
    text = "".join(traceback.StackSummary.from_list(frames).format())
    return f"Where the function was:\n{text}" if text else ""


def summary(error: Mapping[str, Any]) -> str:
    """One line for `status.message`: type, text, and where."""
    lines = str(error.get("message") or "").strip().splitlines()
    first = clip(lines[0] if lines else "", 500)
    where = f" ({error['file']}, line {error['line']})" if error.get("file") else ""
    name = "" if error.get("code") else str(error.get("type") or "")
    return f"{name}{': ' if name and first else ''}{first}{where}"


def redact(error: dict[str, Any], secrets: Iterable[str]) -> dict[str, Any]:
    """The same error with every secret value in its texts replaced."""
    values = set(secrets)
    if not values:
        return error
    from digitalhub_runtime_python.redaction import forms, hide  # only what failed needs it

    looked_for = forms(values)
    return {k: hide(v, looked_for) if isinstance(v, str) else v for k, v in error.items()}


def _type_name(exc: BaseException) -> str:
    cls = type(exc)
    plain = cls.__module__ in ("builtins", "__main__") or issubclass(cls, (Fault, Terminated))
    return cls.__qualname__ if plain else f"{cls.__module__}.{cls.__qualname__}"


def text_of(exc: BaseException) -> str:
    """An exception's text, also where its `__str__` raises."""
    if is_a(exc, SyntaxError) and exc.filename:
        return str(exc.msg or "")  # the place is in the traceback, and in file and line
    if is_a(exc, SystemExit):
        return f"the code called sys.exit({exc.code!r})"
    try:
        return str(exc)
    except Exception as broken:  # noqa: BLE001 - a __str__ of the user's that raises must not hide the error
        return f"<its text cannot be read: {type(broken).__name__}>"


def first_line(exc: BaseException) -> str:
    """An exception's text in short: stores' clients write pages of their own structures below its first line."""
    return (text_of(exc).splitlines() or [""])[0][:300]


def is_a(exc: BaseException, cls: type[E]) -> TypeGuard[E]:
    """`isinstance` that asks nothing of the exception: one of the user's may raise when it is asked."""
    return issubclass(type(exc), cls)


def is_below(path: str, root: Path | None) -> bool:
    """Whether a file is `root`'s own: below it, and not in an environment that lies there."""
    prefix = f"{root}/"
    if root is None or not (path + "/").startswith(prefix):
        return False
    rest = path[len(prefix) - 1 :]
    return "/site-packages/" not in rest and "/dist-packages/" not in rest


def _of_import(exc: SyntaxError, root: Path | None) -> bool:
    """Whether it is a file that cannot be compiled, and not text that the code itself compiles."""
    return root is not None and is_below(str(exc.filename), root)


def _is_machinery(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith((OWN_CODE, *INTERPRETER))


def _is_ours(tb: TracebackType | None) -> bool:
    """Whether it was raised while we were at work ourselves, and the user's code had no part in it."""
    return all(_is_machinery(frame) for frame in traceback.extract_tb(tb))


def _without_own(
    frames: list[traceback.FrameSummary], root: Path | None
) -> list[traceback.FrameSummary]:
    """The frames that are not ours; all of them where the user has no part in it: the fault is ours to see."""
    first = next((i for i, f in enumerate(frames) if is_below(f.filename, root)), 0)
    if root is not None and frames and not is_below(frames[first].filename, root):
        return frames
    # What leads from our frames to the user's first one (contextlib, asyncio) is our way, too.
    own = [i for i, f in enumerate(frames[:first]) if _is_machinery(f)]
    below = frames[own[-1] + 1 :] if own else frames
    return [f for f in below if not _is_machinery(f)] or frames


def _user_frames(tb: TracebackType | None, root: Path | None) -> list[traceback.FrameSummary]:
    """The frames that are not ours; where some lie in the user's own folder, up to the last of those."""
    frames = _without_own(list(traceback.extract_tb(tb)), root)
    inside = [i for i, f in enumerate(frames) if is_below(f.filename, root)]
    return frames[: inside[-1] + 1] if inside else frames


def _cut(trace: traceback.TracebackException, root: Path | None) -> None:
    """Take our own frames out, and read the source lines while the files are there."""
    seen: set[int] = set()
    todo: list[traceback.TracebackException | None] = [trace]
    while todo:
        item = todo.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        kept = _without_own(list(item.stack), root)
        for frame in kept:
            _ = frame.line  # read by the name that the file has now
            frame.filename = _relative(frame.filename, root)
        item.stack[:] = kept
        todo += [item.__cause__, item.__context__, *(getattr(item, "exceptions", None) or [])]


def _relative(filename: str, root: Path | None) -> str:
    prefix = f"{root}/" if root is not None else ""
    return filename[len(prefix) :] if prefix and filename.startswith(prefix) else filename


def clip(text: str, limit: int, *, keep_end: bool = False) -> str:
    """At most `limit` characters of a text, the first or the last ones."""
    if len(text) <= limit:
        return text
    return "…" + text[-limit:] if keep_end else text[:limit] + "…"
