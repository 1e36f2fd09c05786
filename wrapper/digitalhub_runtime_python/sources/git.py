"""Code in a git repository over https, http or ssh: one commit, shallow, without its history.

Only the git command runs here. It gets credentials through its environment, never as arguments,
asks nobody, runs no hook, and speaks no protocol but the one that the source names.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from digitalhub_runtime_python import transfer
from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import Fetched, cache, git_faults, git_parts, tree
from digitalhub_runtime_python.sources.uri import SourceUri

log = logging.getLogger(__name__)

TIMEOUT = 600
"""Seconds for one git command; a server that says nothing is given up after 30 (lowSpeedTime)."""
PAUSES = (0.5, 1.5)
"""Seconds before each further attempt where the network or the server is in trouble."""
CONFIG = (
    "core.hooksPath=/dev/null",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "advice.detachedHead=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=30",
)
PROTOCOLS = {"https": "https", "http": "http:https", "ssh": "ssh"}
"""URL's scheme -> what git may speak, redirects included: never less safe than asked for."""
PASSED_ON = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_EXEC_PATH",
             "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")  # fmt: skip
"""The GIT_ variables that git itself gets; GIT_DIR, GIT_TRACE and the like would change what it does."""
TOKEN_USERS = {"github.com": "x-access-token", "bitbucket.org": "x-token-auth"}
"""Host -> the user to whom a token belongs; GitLab, Gitea and others take `oauth2`."""
# A helper in the shell, so that the password is in no argument and in no file.
HELPER = (
    '!f() { test "$1" = get && '
    'printf \'username=%s\\npassword=%s\\n\' "$DHPY_GIT_USER" "$DHPY_GIT_PASSWORD"; }; f'
)

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")


def fetch(uri: SourceUri, dest: Path, settings: Settings) -> Fetched:
    """Put the tree of the commit that the source names into `dest`."""
    held = cache.usable(settings)
    with cache.scratch(held, dest) as folder:
        git = Git(uri, folder, settings)
        commit = uri.ref.lower() if _COMMIT.fullmatch(uri.ref.lower()) else git.resolve()
        # What is a pointer to Git LFS here is a file where git-lfs is installed.
        name = cache.key(uri.url, commit, *(["lfs"] if git_parts.has_lfs(git.environ) else []))
        found = cache.tree(held, name)
        if found is None:
            found, notes = git.tree(commit)
            if all(one.lasting for one in notes):
                found = cache.keep_tree(held, found, name, [(one.path, one.text) for one in notes])
        else:
            notes = [git_parts.Note(path, text) for path, text in cache.notes(found)]
        for text in git_parts.shown(notes, uri.subfolder):
            log.warning("%s: %s", uri.shown, text)
        left_out = tree.take(found, uri.subfolder, dest, uri.shown, keep=held is not None)
    return Fetched(dest, None, f"git:{commit}", tuple(left_out))


class Git:
    """The git command, set up for one repository and one scratch folder."""

    def __init__(self, uri: SourceUri, folder: Path, settings: Settings) -> None:
        environ = settings.environ or os.environ
        program = shutil.which("git", path=environ.get("PATH"))
        if program is None:
            raise SourceFault(
                "source/no-git",
                f"There is no git command to fetch {uri.shown} with.",
                "Install git in the image, or give the repository's archive as zip+https://….",
            )
        self.uri = uri
        self.settings = settings
        self.repository = folder / "repository"
        self.repository.mkdir()
        self.complete = False
        self.user, self.password = _credentials(uri, settings.tokens)
        self.environ = _environment(uri, environ, settings.tokens, self.repository)
        self.command = [program]
        config = list(CONFIG)
        if self.password:
            # The empty one drops the helpers of the machine, which would store this password.
            # Only for this host: a redirect elsewhere does not take it along.
            parts = urlsplit(uri.url)
            config += [
                "credential.helper=",
                f"credential.{parts.scheme}://{parts.netloc}.helper={HELPER}",
            ]
            self.environ.update(DHPY_GIT_USER=self.user, DHPY_GIT_PASSWORD=self.password)
            if parts.scheme == "http":
                log.warning("the password for %s travels unencrypted", parts.netloc)
        for item in config:
            self.command += ["-c", item]

    def resolve(self) -> str:
        """The commit that the source's branch, tag or short commit is now."""
        ref = self.uri.ref
        wanted = (
            [f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"] if ref else ["HEAD"]
        )
        if ref.startswith("refs/"):
            wanted = [f"{ref}^{{}}", ref]
        refs = self._refs(*wanted)
        for name in wanted:
            if name in refs:
                return refs[name]
        if _SHORT.fullmatch(ref) and (commit := self._expand(ref)):
            return commit
        names = self._refs("refs/heads/*", "refs/tags/*")
        raise git_faults.no_ref(self.uri, names)

    def tree(
        self, commit: str, level: int = 0, left: list[int] | None = None
    ) -> tuple[Path, list[git_parts.Note]]:
        """Check the commit out; the folder, without `.git`, and what of it is not there.

        Args:
            level: how many repositories this one is a submodule within.
            left: one number, of the submodules that may still be fetched.
        """
        if not self.complete:
            self._init(commit)
            try:
                self._run("fetch", "--quiet", "--depth=1", "--no-tags", "--", self.uri.url, commit)
            except git_faults.NotServedFault:
                # Old and dumb servers serve branches and tags only: take them all, then look.
                self._fetch_all()
        if self.complete and not self._expand(commit):
            raise git_faults.no_ref(self.uri, self._refs("refs/heads/*", "refs/tags/*"))
        sizes, submodules = self._contents(commit)
        self._run("checkout", "--quiet", "--detach", commit)
        notes = git_parts.fetch_large_files(self, sizes)
        if submodules:
            notes += git_parts.fetch_submodules(self, submodules, level, left or [git_parts.MOST])
        shutil.rmtree(self.repository / ".git")
        return self.repository, notes

    def _refs(self, *patterns: str) -> dict[str, str]:
        lines = self._run("ls-remote", "--quiet", "--", self.uri.url, *patterns).splitlines()
        pairs = (line.split("\t", 1) for line in lines if "\t" in line)
        return {name: commit for commit, name in pairs if _COMMIT.fullmatch(commit)}

    def _init(self, commit: str) -> None:
        form = "sha256" if len(commit) == 64 else "sha1"
        self._run("init", "--quiet", "--template=", f"--object-format={form}", ".")

    def _fetch_all(self) -> None:
        specs = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
        if self.uri.ref.startswith("refs/"):
            specs.append(f"+{self.uri.ref}:refs/remotes/asked")
        self._run("fetch", "--quiet", "--no-tags", "--", self.uri.url, *specs)
        self.complete = True

    def _expand(self, commit: str) -> str:
        """The whole commit id; empty where there is none, or more than one."""
        if not self.complete:
            self._init(commit)
            self._fetch_all()
        command = [*self.command, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
        return self.start(command).stdout.strip()

    def _contents(self, commit: str) -> tuple[dict[str, int], dict[str, str]]:
        """(path -> bytes of each file that may be a pointer, path -> commit of each submodule), within the limits."""
        # Before the checkout: a repository of ten small objects can hold billions of files.
        budget = transfer.Budget(self.uri.shown)
        sizes, submodules = {}, {}
        command = [*self.command, "ls-tree", "-r", "-l", "-z", "--full-tree", commit]
        with subprocess.Popen(
            command, cwd=self.repository, env=self.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            assert process.stdout is not None  # noqa: S101 - tells mypy; it is a pipe
            try:
                for entry in _split(process.stdout):
                    fields, _, path = entry.partition(b"\t")
                    _, kind, identity, size = fields.split()
                    budget.entry()
                    budget.add(int(size) if size.isdigit() else 0)
                    if kind == b"commit":
                        submodules[os.fsdecode(path)] = identity.decode()
                    elif size.isdigit() and int(size) in git_parts.POINTER_SIZES:
                        sizes[os.fsdecode(path)] = int(size)
            except BaseException:
                process.kill()
                raise
        return sizes, submodules

    def _run(self, *arguments: str) -> str:
        for pause in (*PAUSES, None):
            done = self.start([*self.command, *arguments])
            if done.returncode == 0:
                return done.stdout
            text = self.without_secrets(done.stderr)
            fault = git_faults.from_output(self.uri, text, known=bool(self.password))
            if pause is None or fault.code not in ("source/unreachable", "source/unavailable"):
                raise fault
            log.warning("%s Trying again.", fault.message)
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def without_secrets(self, text: str) -> str:
        """What git said, without the credentials that it was given."""
        for secret in (self.password, self.user if self.uri.user else ""):
            text = text.replace(secret, "***") if secret else text
        return text

    def start(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a git command to its end, whatever that is."""
        try:
            return subprocess.run(
                command, cwd=self.repository, env=self.environ, stdin=subprocess.DEVNULL,
                capture_output=True, encoding="utf-8", errors="replace", timeout=TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SourceFault(
                "source/unreachable",
                f"Fetching {self.uri.shown} took more than {TIMEOUT} s and was given up.",
                "Check the network; for a huge repository give an archive as zip+https://….",
            ) from None


def _split(stream: IO[bytes]) -> Iterator[bytes]:
    """The pieces between NULs, without holding more than one and a chunk."""
    rest = b""
    while chunk := stream.read(transfer.CHUNK):
        *pieces, rest = (rest + chunk).split(b"\0")
        yield from pieces


def _credentials(uri: SourceUri, tokens: Mapping[str, str]) -> tuple[str, str]:
    """User and password: those of the URL, else `GIT_TOKEN`, else `GIT_USERNAME` and `GIT_PASSWORD`."""
    token = tokens.get("GIT_TOKEN", "").strip()
    user, password = tokens.get("GIT_USERNAME", "").strip(), tokens.get("GIT_PASSWORD", "").strip()
    host = urlsplit(uri.url).hostname or ""
    if uri.url.startswith("ssh:"):
        user, password = "", ""
    elif uri.password:
        user, password = uri.user, uri.password
    elif token:
        user, password = uri.user or TOKEN_USERS.get(host, "oauth2"), token
    elif uri.user:
        # https://<token>@host is how tokens are often written.
        user, password = uri.user, password or "x-oauth-basic"
    if re.search(r"[\x00-\x1f]", user + password):
        raise SourceFault(
            "source/credentials",
            "GIT_TOKEN, GIT_USERNAME or GIT_PASSWORD holds a control character.",
            "Set it to one line of text.",
        )
    return user, password


def _environment(
    uri: SourceUri, environ: Mapping[str, str], tokens: Mapping[str, str], repository: Path
) -> dict[str, str]:
    passed = {k: v for k, v in environ.items() if not k.startswith("GIT_") and k != "LANGUAGE"}
    passed.update((name, tokens[name]) for name in PASSED_ON if name in tokens)
    # Git's TLS library reads none of OpenSSL's variables.
    if "SSL_CERT_FILE" in environ:
        passed.setdefault("GIT_SSL_CAINFO", environ["SSL_CERT_FILE"])
    if "GIT_SSH" not in passed:
        passed.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    passed.update(
        LC_ALL="C",  # its messages are read
        GIT_TERMINAL_PROMPT="0",
        GIT_ASKPASS="",
        SSH_ASKPASS="",
        GIT_ALLOW_PROTOCOL=PROTOCOLS[urlsplit(uri.url).scheme],
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_LFS_SKIP_SMUDGE="1",  # all at once after the checkout, within the limits
        # A repository above the workspace is not ours.
        GIT_CEILING_DIRECTORIES=str(repository.parent),
    )
    return passed
