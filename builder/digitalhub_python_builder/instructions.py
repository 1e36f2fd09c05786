"""RUN instructions: what may be one, and how it is written so that it ends where its line ends.

A builder reads more than one line for an instruction in three cases: a backslash at its end, a
here-document (`<<` at the start of a word, by rules that differ between builders), and a line break in
it. The first and the last are refused. `<<` never reaches a Dockerfile: what contains it is written in
exec form, as JSON, in which `<` is `\\u003c`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from digitalhub_runtime_python.errors import UsageFault

# What ends a line anywhere: in Dockerfiles, in shells, in terminals; and what UTF-8 cannot hold.
CONTROL = re.compile("[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\u2028\u2029\ud800-\udfff]")
SECRET_ID = re.compile(r"--mount=type=secret[^\s]*?,id=([^\s,]+)")
# Without quotes: a builder would look for the closing one further on. One type: the last one counts.
_FLAG = re.compile(
    r"--mount=type=(?:secret|cache|tmpfs|ssh)(?:,(?!type=)[A-Za-z0-9=./_:@+-]+)*(?=\s)"
)
_QUOTED = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\.""", re.S)
_INSTALLS = re.compile(r"\bapt(?:-get)?\s+(?:-\S+\s+)*install\b")
_UPDATES = re.compile(r"\bapt(?:-get)?\s+(?:-\S+\s+)*update\b")
# A trap works whatever the instruction ends with: a comment, a list, an `exit`.
_APT_CLEANS = "trap 'rm -rf /var/lib/apt/lists/* /var/cache/apt/*' EXIT; "
_APT_PLACES = ("/var/lib/apt", "/var/cache/apt")


def checked(text: object, secrets: Sequence[str] = ()) -> str:
    """An instruction as it may stand after RUN.

    Args:
        secrets: the ids of the build secrets that it may mount.

    Raises:
        UsageFault: it could be more than one instruction, or mounts what was not given.
    """
    shown = repr(text if not isinstance(text, str) or len(text) <= 120 else f"{text[:120]}…")

    def fault(why: str, hint: str) -> UsageFault:
        return UsageFault("build/instruction", f"The instruction {shown} {why}.", hint)

    if not isinstance(text, str):
        raise fault(f"is {type(text).__name__}, not a string", "Write it as text.")
    if CONTROL.search(text):
        raise fault(
            "contains a line break, a NUL or another control character",
            "Write it in one line; commands are joined by &&.",
        )
    line = text.strip()
    if not line:
        raise fault("is empty", "Leave it out.")
    if re.match(r"RUN\s", line, re.I):
        raise fault("begins with RUN", "Write the command alone.")
    if line.endswith("\\"):
        raise fault("ends with a backslash, which would take the next line in", "Remove it.")
    if "<<" in _QUOTED.sub("", line):
        raise fault(
            "contains a here-document, which would take the next lines in",
            "Use printf and a pipe, or put << in quotes.",
        )
    rest = line
    while rest.startswith("--"):
        flag = _FLAG.match(rest)
        if flag is None:
            raise fault(
                "begins with an option that is not allowed",
                "Use --mount=type=secret, cache, tmpfs or ssh.",
            )
        rest = rest[flag.end() :].lstrip()
    missing = [name for name in SECRET_ID.findall(line) if name not in secrets]
    if missing:
        raise fault(
            f"mounts the build secret {missing[0]!r}, which is not given",
            f"Give it: --secret {missing[0]}.",
        )
    return line


def rendered(text: str) -> str:
    """A checked instruction as a line of a Dockerfile.

    What installs with apt gets the package lists that slim images lack, and leaves none: in the same
    layer, or the next one would carry them, or find them stale.
    """
    flags, command = _split_flags(text)
    installs, updates = _INSTALLS.search(command), _UPDATES.search(command)
    if installs and not updates:
        command = f"apt-get update -qq && {command}"
    if (installs or updates) and not any(place in flags for place in _APT_PLACES):
        command = f"{_APT_CLEANS}{command}"
    if "<<" in command:
        words = json.dumps(["/bin/sh", "-c", command], ensure_ascii=False)
        command = words.replace("<", "\\u003c")
    return f"RUN {flags}{command}"


def _split_flags(text: str) -> tuple[str, str]:
    match = re.match(r"((?:--\S+\s+)*)(.*)", text)
    return (match[1], match[2]) if match else ("", text)
