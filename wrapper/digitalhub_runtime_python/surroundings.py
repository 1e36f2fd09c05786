"""What a function finds around it in a process of its own: its code's folder as working folder, and its file's name."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def at_home(root: Path, file: Path) -> Iterator[None]:
    """Make `root` the working folder, `file`'s name all of sys.argv, and relative parts of PYTHONPATH relative to `root`.

    All three belong to the whole process, so a run in the caller's process goes without.
    """
    folder, argv = _working_folder(), sys.argv
    relative = [
        p
        for p in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if p and not Path(p).is_absolute()
    ]
    added = [str(root / part) for part in relative if (root / part).is_dir()]
    os.chdir(root)
    sys.argv = [file.name]
    # Where Python itself puts them: below the program's own folder.
    sys.path[1:1] = added
    try:
        yield
    finally:
        sys.argv = argv
        for entry in added:
            with contextlib.suppress(ValueError):
                sys.path.remove(entry)
        with contextlib.suppress(OSError):
            os.chdir(folder)


def explain(exc: BaseException | None, root: Path) -> None:
    """Say where the file is that a function of a local run did not find, if it lies beside its code."""
    # A user's exception may raise whatever it likes when it is looked at: a hint is not worth that.
    with contextlib.suppress(Exception):
        name = next((n for n in map(_missing, _chain(exc)) if n and (root / n).exists()), None)
        if name and not Path(name).is_absolute():
            logger.warning(
                "%r was looked for in %s: a local run keeps the caller's working folder. It lies "
                "beside the function's code, which is the working folder of runs with a process "
                "of their own; Path(__file__).parent / %r finds it in both",
                name,
                _working_folder(),
                name,
            )


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        yield exc
        seen.add(id(exc))
        exc = exc.__cause__ or exc.__context__


def _missing(exc: BaseException) -> str:
    if not isinstance(exc, FileNotFoundError):
        return ""
    if isinstance(exc.filename, (str, bytes)):
        return os.fsdecode(exc.filename)
    quoted = re.search(r"'([^']+)'", str(exc))  # pyarrow says it in its text alone
    return quoted.group(1) if quoted else ""


def _working_folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it has been removed
        return "/"
