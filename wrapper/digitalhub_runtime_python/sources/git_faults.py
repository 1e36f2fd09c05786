"""Makes faults of what git prints, which has no codes of its own. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.sources.uri import SourceUri, redact


class NotServedFault(SourceFault):
    """The server has no such commit, or does not serve it by itself."""


NOT_SERVED = re.compile(
    r"unadvertised object|not our ref|find remote ref|[Ss]hallow (capabilities|clients|requests)"
)

# Pattern of git's output -> code, what happened, hint. The first that fits counts.
FAULTS = (
    (
        r"could not read (Username|Password)|terminal prompts disabled",
        "source/auth-required",
        "asks for a user and a password, or does not exist",
        "Set GIT_TOKEN, or GIT_USERNAME and GIT_PASSWORD, as a secret of the project.",
    ),
    (
        r"Authentication failed|error: 403|Access denied|Permission denied|Permission to .* denied",
        "source/auth-refused",
        "refuses the credentials that it got",
        "Check that GIT_TOKEN (or the ssh key) is valid and may read this repository.",
    ),
    (
        r"Host key verification failed",
        "source/tls",
        "has an ssh host key that is not known here",
        "Add it to known_hosts, or name a file that has it in GIT_SSH_COMMAND.",
    ),
    (
        r"SSL|certificate|TLS|tls_",
        "source/tls",
        "has a certificate or an encryption that is not accepted",
        "For an authority of your own set SSL_CERT_FILE to a file with its certificate.",
    ),
    (
        r"[Nn]ot found|does not exist|does not appear to be a git repository|error: (404|410)",
        "source/not-found",
        "does not exist, or is not a git repository",
        "Check the address; a private one needs GIT_TOKEN.",
    ),
    (
        r"resolve host|[Cc]onnection|Failed to connect|Couldn't connect|[Tt]imed out|too slow"
        r"|unreachable|Empty reply|early EOF|Could not read from remote",
        "source/unreachable",
        "cannot be reached",
        "Check host, port and network; behind a proxy set HTTPS_PROXY.",
    ),
    (
        r"No space left|[Rr]ead-only file system|Disk quota",
        "source/disk",
        "does not fit on the disk here",
        "Check the free space and the permissions of the workspace and the cache.",
    ),
    (
        r"error: 5\d\d|error: 429",
        "source/unavailable",
        "cannot be fetched now",
        "The server is in trouble or busy: try again later.",
    ),
)


def from_output(uri: SourceUri, output: str, *, known: bool) -> SourceFault:
    """The fault that git's output tells of.

    Args:
        output: without any secret.
        known: whether credentials were given.
    """
    said = _essence(output)
    # A repository of the name openssl is no matter of TLS.
    output = re.sub(r"\S+://\S+", "…", output)
    if NOT_SERVED.search(output):
        return NotServedFault(
            "source/ref-not-found",
            f"{uri.shown} does not serve {uri.ref or 'HEAD'!r}: {said}.",
            "Name a branch or a tag.",
        )
    for pattern, code, what, hint in FAULTS:
        if re.search(pattern, output):
            if code == "source/auth-required" and known:
                code, what = "source/auth-refused", "refuses the credentials that it got"
            return SourceFault(code, f"{uri.shown} {what}: {said}.", hint)
    return SourceFault(
        "source/git",
        f"git cannot fetch {uri.shown}: {said}.",
        "Try the same with git clone.",
    )


def no_ref(uri: SourceUri, refs: Iterable[str]) -> SourceFault:
    """The fault of a missing branch, tag or commit, with those that exist.

    Args:
        refs: `refs/heads/main`, `refs/tags/v1`, ….
    """
    names = sorted({re.sub(r"^refs/(heads|tags)/|\^\{\}$", "", ref) for ref in refs})
    if not names:
        return SourceFault(
            "source/ref-not-found",
            f"The repository {uri.shown} has no commits.",
            "Push a branch to it.",
        )
    near = difflib.get_close_matches(uri.ref, names, n=1)
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return SourceFault(
        "source/ref-not-found",
        f"The repository {uri.shown} has no branch, tag or commit {uri.ref or 'HEAD'!r}.",
        (f"Did you mean {near[0]!r}? " if near else "") + f"There are {listed}.",
    )


def _essence(output: str) -> str:
    """The line that says why: git's last `fatal:`, or else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))]
    line = (causes or lines or ["it gave no reason"])[-1]
    return redact(re.sub(r"^(fatal|error|remote): *", "", line))[:500].rstrip(".")
