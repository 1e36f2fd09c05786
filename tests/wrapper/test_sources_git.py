"""Code in git repositories, from git's own HTTP server, and over ssh's command line."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest
from servers.authority import make_authority
from servers.git_http import GitServer, Repository, git, git_server
from servers.surroundings import clean_environ, files_below

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import Fetched, fetch
from digitalhub_runtime_python.spec import SourceSpec

TOKEN = "t0ken-S3CRET"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "repositories").mkdir()
    with git_server(tmp_path / "repositories") as server:
        yield server


@pytest.fixture
def code(server: GitServer) -> Repository:
    repository = server.repository("code")
    repository.commit(main="first")
    return repository


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(environ=clean_environ(tmp_path))


@pytest.fixture
def cached(settings: Settings, tmp_path: Path) -> Settings:
    return replace(settings, cache=tmp_path / "cache")


def get(source: str, dest: Path, settings: Settings) -> Fetched:
    return fetch(SourceSpec(source=source), dest, settings)


def refused(source: str, dest: Path, settings: Settings) -> SourceFault:
    with pytest.raises(SourceFault) as caught:
        get(source, dest, settings)
    assert list(dest.iterdir()) == []
    assert caught.value.hint
    return caught.value


# What is named


def test_the_default_branch_is_fetched_without_history(code, tmp_path, settings):
    second = code.commit(main="second", pkg__a="a")
    fetched = get(f"git+{code.url}", tmp_path / "d", settings)
    assert fetched == Fetched(tmp_path / "d", None, f"git:{second}")
    assert files_below(tmp_path / "d") == {"main.py": "second", "pkg/a.py": "a"}


def test_a_default_branch_of_any_name_is_found(code, tmp_path, settings):
    code.git("checkout", "--quiet", "-b", "trunk")
    head = code.commit(main="trunk")
    assert get(f"git+{code.url}", tmp_path / "d", settings).revision == f"git:{head}"


def test_a_branch_a_tag_and_a_commit_are_fetched(code, tmp_path, settings):
    first = code.head
    code.git("tag", "light")
    code.git("tag", "-a", "v1.0", "-m", "release")
    code.git("checkout", "--quiet", "-b", "feature/x&y=1")
    second = code.commit(main="second")
    expected = {
        "main": first,
        "light": first,
        "v1.0": first,
        "refs/tags/v1.0": first,
        "feature/x&y=1": second,
        "refs/heads/feature/x&y=1": second,
        first: first,
        second.upper(): second,
        first[:7]: first,
    }
    for number, (ref, commit) in enumerate(expected.items()):
        fetched = get(f"git+{code.url}#{ref}", tmp_path / str(number), settings)
        assert fetched.revision == f"git:{commit}", ref
        text = "first" if commit == first else "second"
        assert files_below(tmp_path / str(number)) == {"main.py": text}


def test_a_branch_goes_before_a_tag_of_its_name(code, tmp_path, settings):
    code.git("tag", "same")
    code.git("checkout", "--quiet", "-b", "same")
    head = code.commit(main="branch")
    assert get(f"git+{code.url}#same", tmp_path / "d", settings).revision == f"git:{head}"


def test_a_subfolder_becomes_the_root(code, tmp_path, settings):
    head = code.commit(src__job__main="job", src__other="other")
    fetched = get(f"git+{code.url}#main:src/job", tmp_path / "d", settings)
    assert fetched == Fetched(tmp_path / "d", None, f"git:{head}")
    assert files_below(tmp_path / "d") == {"main.py": "job"}


@pytest.mark.parametrize("kind", ["old", "dumb"])
def test_an_old_server_that_serves_no_single_commit_will_do(server, code, tmp_path, settings, kind):
    first = code.head
    second = code.commit(main="second")
    code.git("update-server-info")
    setattr(server, kind, True)
    for number, ref in enumerate((first, second, "main", first[:10])):
        get(f"git+{code.url}#{ref}", tmp_path / str(number), settings)
    assert files_below(tmp_path / "0") == files_below(tmp_path / "3") == {"main.py": "first"}
    assert files_below(tmp_path / "1") == files_below(tmp_path / "2") == {"main.py": "second"}


def test_a_repository_of_sha256_objects_will_do(server, tmp_path, settings):
    code = server.repository("new", "--object-format=sha256")
    head = code.commit(main="a")
    assert get(f"git+{code.url}", tmp_path / "d", settings).revision == f"git:{head}"


def test_https_is_verified_against_the_given_authority(tmp_path, settings):
    authority, context = make_authority(tmp_path)
    (tmp_path / "secure").mkdir()
    with git_server(tmp_path / "secure", context) as server:
        code = server.repository("code")
        code.commit(main="a")
        fault = refused(f"git+{code.url}", tmp_path / "d", settings)
        assert fault.code == "source/tls"
        assert "SSL_CERT_FILE" in fault.hint
        trusting = {**settings.environ, "SSL_CERT_FILE": str(authority)}
        get(f"git+{code.url}", tmp_path / "d", replace(settings, environ=trusting))
    assert files_below(tmp_path / "d") == {"main.py": "a"}


# What is missing


def test_a_missing_branch_is_answered_with_those_that_exist_nearest_first(code, tmp_path, settings):
    code.git("branch", "develop")
    code.git("tag", "-a", "v1.0", "-m", "release")
    fault = refused(f"git+{code.url}#devlop", tmp_path / "d", settings)
    assert fault.code == "source/ref-not-found"
    assert "'devlop'" in fault.message
    assert fault.hint == "Did you mean 'develop'? There are develop, main, v1.0."


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("commit", ["0123456789" * 4, "0123456"])
def test_a_missing_commit_is_said_to_be_missing(server, code, tmp_path, settings, commit, old):
    server.old = old
    fault = refused(f"git+{code.url}#{commit}", tmp_path / "d", settings)
    assert fault.code == "source/ref-not-found"
    assert commit in fault.message


def test_a_missing_ref_by_its_full_name_is_said_to_be_missing(code, tmp_path, settings):
    fault = refused(f"git+{code.url}#refs/pull/1/head", tmp_path / "d", settings)
    assert fault.code == "source/ref-not-found"


def test_an_empty_repository_is_said_to_be_empty(server, tmp_path, settings):
    code = server.repository("empty")
    fault = refused(f"git+{code.url}", tmp_path / "d", settings)
    assert fault.code == "source/ref-not-found"
    assert "no commits" in fault.message


def test_a_missing_subfolder_is_answered_with_the_folders_there_are(code, tmp_path, settings):
    code.commit(src__a="a", lib__b="b")
    fault = refused(f"git+{code.url}#main:scr", tmp_path / "d", settings)
    assert fault.code == "source/not-found"
    assert fault.hint == "Folders at its top: lib, src."


def test_a_missing_repository_is_said_to_be_missing(server, tmp_path, settings):
    fault = refused(f"git+{server.url}/nope", tmp_path / "d", settings)
    assert fault.code == "source/not-found"
    assert f"git+{server.url}/nope" in fault.message


def test_nobody_at_the_port_is_said_so(tmp_path, settings):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"git+http://127.0.0.1:{unused.getsockname()[1]}/code"
        fault = refused(url, tmp_path / "d", settings)
    assert fault.code == "source/unreachable"


def test_a_server_in_passing_trouble_is_asked_again(server, code, tmp_path, settings, caplog):
    server.failures = 1
    get(f"git+{code.url}", tmp_path / "d", settings)
    assert "Trying again" in caplog.text


def test_a_server_in_lasting_trouble_is_given_up(server, code, tmp_path, settings):
    server.failures = 99
    fault = refused(f"git+{code.url}", tmp_path / "d", settings)
    assert fault.code == "source/unavailable"
    assert len(server.requests) < 10


def test_the_name_of_a_repository_is_not_taken_for_a_cause(server, tmp_path, settings):
    fault = refused(f"git+{server.url}/openssl-certificate", tmp_path / "d", settings)
    assert fault.code == "source/not-found"


def test_a_machine_without_git_is_said_to_have_none(code, tmp_path, settings):
    without = replace(settings, environ={**settings.environ, "PATH": str(tmp_path)})
    fault = refused(f"git+{code.url}", tmp_path / "d", without)
    assert fault.code == "source/no-git"
    assert "zip+https" in fault.hint


# Credentials


def test_a_private_repository_asks_for_a_token(server, code, tmp_path, settings):
    server.private["code"] = f"oauth2:{TOKEN}"
    fault = refused(f"git+{code.url}", tmp_path / "d", settings)
    assert fault.code == "source/auth-required"
    assert "GIT_TOKEN" in fault.hint


@pytest.mark.parametrize(
    ("expected", "userinfo", "tokens"),
    [
        (f"oauth2:{TOKEN}", "", {"GIT_TOKEN": TOKEN}),
        (f"oauth2:{TOKEN}", "", {"GIT_TOKEN": f"{TOKEN}\n"}),
        (f"oauth2:{TOKEN}", "", {"GIT_TOKEN": TOKEN, "GIT_USERNAME": "u", "GIT_PASSWORD": "p"}),
        (f"me:{TOKEN}", "", {"GIT_USERNAME": "me", "GIT_PASSWORD": TOKEN}),
        (f"bot:{TOKEN}", "bot@", {"GIT_TOKEN": TOKEN}),
        (f"me:{TOKEN}@:/%", f"me:{TOKEN}%40%3A%2F%25@", {"GIT_TOKEN": "other"}),
        (f"{TOKEN}:x-oauth-basic", f"{TOKEN}@", {}),
    ],
)
def test_credentials_come_from_the_url_or_the_settings(
    server, code, tmp_path, settings, expected, userinfo, tokens
):
    server.private["code"] = expected
    source = f"git+{code.url}".replace("://", f"://{userinfo}")
    get(source, tmp_path / "d", replace(settings, tokens=tokens))
    assert files_below(tmp_path / "d") == {"main.py": "first"}


def test_a_refused_token_is_said_to_be_refused(server, code, tmp_path, settings):
    server.private["code"] = "oauth2:another"
    fault = refused(
        f"git+{code.url}", tmp_path / "d", replace(settings, tokens={"GIT_TOKEN": TOKEN})
    )
    assert fault.code == "source/auth-refused"
    assert TOKEN not in str(fault)


def test_a_token_of_two_lines_is_refused_unseen(server, code, tmp_path, settings):
    tokens = {"GIT_TOKEN": f"{TOKEN}\nhost=evil.example"}
    fault = refused(f"git+{code.url}", tmp_path / "d", replace(settings, tokens=tokens))
    assert fault.code == "source/credentials"
    assert TOKEN not in str(fault)
    assert server.requests == []


def test_a_token_does_not_follow_a_redirect_to_another_host(server, code, tmp_path, settings):
    server.private["code"] = f"oauth2:{TOKEN}"
    (tmp_path / "trap").mkdir()
    with git_server(tmp_path / "trap") as trap:
        trap.redirect = server.url
        fault = refused(
            f"git+{trap.url}/code", tmp_path / "d", replace(settings, tokens={"GIT_TOKEN": TOKEN})
        )
    assert fault.code == "source/auth-refused"
    assert set(server.authorizations) == {None}


def test_credentials_of_the_machine_are_used_where_none_are_given(server, code, tmp_path, settings):
    server.private["code"] = f"me:{TOKEN}"
    config = tmp_path / "gitconfig"
    config.write_text(
        f'[credential]\n\thelper = "!f() {{ echo username=me; echo password={TOKEN}; }}; f"\n'
    )
    get(
        f"git+{code.url}",
        tmp_path / "d",
        replace(settings, tokens={"GIT_CONFIG_GLOBAL": str(config)}),
    )
    assert files_below(tmp_path / "d") == {"main.py": "first"}


@pytest.fixture
def recorded(tmp_path: Path, settings: Settings) -> Settings:
    """Settings whose git writes its arguments into `arguments` first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = (
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/arguments\nexec {shutil.which("git")} "$@"\n'
    )
    (folder / "git").write_text(script)
    (folder / "git").chmod(0o755)
    path = f"{folder}:{settings.environ['PATH']}"
    return replace(settings, environ={**settings.environ, "PATH": path}, cache=tmp_path / "cache")


def test_no_secret_is_in_an_argument_a_file_a_log_or_a_fault(
    server, code, tmp_path, recorded, caplog
):
    server.private["code"] = f"me:{TOKEN}"
    withal = f"git+{code.url}".replace("://", f"://me:{TOKEN}@")
    with caplog.at_level(logging.DEBUG):
        get(f"{withal}#main", tmp_path / "d", recorded)
        fault = refused(f"{withal}#nope", tmp_path / "e", recorded)
        server.private["code"] = "me:changed"
        denied = refused(f"{withal}#main", tmp_path / "f", recorded)
    assert denied.code == "source/auth-refused"
    arguments = (tmp_path / "arguments").read_text()
    assert "fetch" in arguments and "ls-remote" in arguments
    kept = str(files_below(tmp_path / "d")) + str(files_below(recorded.cache))
    for text in (arguments, kept, caplog.text, str(fault), str(denied), repr(fault)):
        assert TOKEN not in text


def test_a_warning_is_given_where_a_password_travels_unencrypted(
    server, code, tmp_path, settings, caplog
):
    server.private["code"] = f"oauth2:{TOKEN}"
    get(f"git+{code.url}", tmp_path / "d", replace(settings, tokens={"GIT_TOKEN": TOKEN}))
    assert "unencrypted" in caplog.text


# Safety


@pytest.mark.parametrize(
    "source",
    [
        "git+https://127.0.0.1/r#--upload-pack=touch${IFS}{marker}",
        "git+ssh://-oProxyCommand=touch${IFS}{marker}/r",
        "git+ssh://-oProxyCommand=touch%20{marker}@host/r",
        "git+ext://sh -c touch% {marker}",
        "git+file://{marker}",
    ],
)
def test_nothing_in_a_source_becomes_an_option_or_a_command(tmp_path, settings, source):
    marker = tmp_path / "marker"
    fault = refused(source.replace("{marker}", str(marker)), tmp_path / "d", settings)
    assert fault.code in ("source/uri", "source/scheme")
    assert not marker.exists()


def test_a_redirect_of_the_machine_s_settings_to_a_command_is_not_followed(
    code, tmp_path, settings
):
    config = tmp_path / "gitconfig"
    config.write_text(
        f'[protocol "ext"]\n\tallow = always\n[url "ext::touch {tmp_path}/marker "]\n\tinsteadOf = {code.url}\n'
    )
    fault = refused(
        f"git+{code.url}",
        tmp_path / "d",
        replace(settings, tokens={"GIT_CONFIG_GLOBAL": str(config)}),
    )
    assert fault.code == "source/git"
    assert not (tmp_path / "marker").exists()


def test_no_hook_of_the_machine_runs(code, tmp_path, settings):
    hooks = tmp_path / "templates" / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/marker\n")
    (hooks / "post-checkout").chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(f"[init]\n\ttemplateDir = {hooks.parent}\n[core]\n\thooksPath = {hooks}\n")
    get(
        f"git+{code.url}",
        tmp_path / "d",
        replace(settings, tokens={"GIT_CONFIG_GLOBAL": str(config)}),
    )
    assert not (tmp_path / "marker").exists()


def test_the_variables_of_a_surrounding_git_change_nothing(code, tmp_path, settings):
    head = code.head
    git(tmp_path, "init", "--quiet", "around")
    environ = {
        **settings.environ,
        "GIT_DIR": str(tmp_path / "around" / ".git"),
        "GIT_WORK_TREE": str(tmp_path / "around"),
        "GIT_TRACE": str(tmp_path / "trace"),
    }
    dest = tmp_path / "around" / "runs" / "d"
    assert (
        get(f"git+{code.url}", dest, replace(settings, environ=environ)).revision == f"git:{head}"
    )
    assert files_below(dest) == {"main.py": "first"}
    assert not (tmp_path / "trace").exists()
    assert git(tmp_path / "around", "status", "--porcelain") == "?? runs/"


@pytest.mark.parametrize("held", [False, True])
def test_links_inside_the_repository_are_followed_and_others_left_out_with_a_warning(
    code, tmp_path, settings, cached, caplog, held
):
    settings = cached if held else settings
    (code.path / "link.py").symlink_to("main.py")
    code.commit(src__a="a", common__b="b", common__deep__c="c")
    (code.path / "src" / "up.py").symlink_to("../main.py")
    (code.path / "src" / "common").symlink_to("../common")
    (code.path / "common" / "self").symlink_to("../src/up.py")
    (code.path / "loop").symlink_to("loop")
    code.commit()
    get(f"git+{code.url}", tmp_path / "1", settings)
    assert files_below(tmp_path / "1")["link.py"] == "-> main.py"
    assert files_below(tmp_path / "1")["loop"] == "-> loop"
    for number in range(2):
        get(f"git+{code.url}#:src", tmp_path / f"src{number}", settings)
        found = files_below(tmp_path / f"src{number}")
        assert {name: found[name] for name in ("a.py", "up.py", "common/b.py", "common/deep/c.py")} == {
            "a.py": "a", "up.py": "first", "common/b.py": "b", "common/deep/c.py": "c",
        }  # fmt: skip
    caplog.clear()
    for name, target in [
        ("absolute", "/etc/passwd"),
        ("out", "../../outside"),
        ("over", "src/../../x"),
        ("pkg", "/usr/lib"),
    ]:
        (code.path / name).symlink_to(target)
    code.commit()
    fetched = get(f"git+{code.url}", tmp_path / "4", settings)
    assert sorted(fetched.left_out) == ["absolute", "out", "over", "pkg"]
    assert not {"absolute", "out", "over", "pkg"} & files_below(tmp_path / "4").keys()
    assert "the link absolute is left out, for it leads out of the code: /etc/passwd" in caplog.text
    for number, handler in enumerate(["pkg.module:f", "pkg:f", "pkg/module.py:f", "pkg.module.f"]):
        dest = tmp_path / f"needed{number}"
        with pytest.raises(SourceFault, match="needs the link pkg"):
            fetch(SourceSpec(source=f"git+{code.url}", handler=handler), dest, settings)
        assert list(dest.iterdir()) == []
    for number, handler in enumerate(["main:f", "pkgs.module:f", "main.py:f", "f"]):
        fetch(
            SourceSpec(source=f"git+{code.url}", handler=handler),
            tmp_path / f"fine{number}",
            settings,
        )


def test_a_subfolder_that_is_a_link_leads_nowhere_else(code, tmp_path, settings):
    (code.path / "etc").symlink_to("/etc")
    code.commit()
    assert refused(f"git+{code.url}#:etc", tmp_path / "d", settings).code == "source/not-found"


def test_a_repository_that_would_unpack_to_billions_of_files_is_refused(code, tmp_path, settings):
    blob = code.git("hash-object", "-w", "main.py")
    entry = f"100644 blob {blob}"
    for _ in range(10):
        listing = "".join(f"{entry}\tf{number}\n" for number in range(10))
        (tmp_path / "listing").write_text(listing)
        tree = _make_tree(code, tmp_path / "listing")
        entry = f"040000 tree {tree}"
    commit = code.git("commit-tree", tree, "-m", "bomb")
    code.git("update-ref", "refs/heads/bomb", commit)
    assert refused(f"git+{code.url}#bomb", tmp_path / "d", settings).code == "source/too-large"


def _make_tree(code: Repository, listing: Path) -> str:
    return code.git("-c", f"alias.mk=!git mktree < {shlex.quote(str(listing))}", "mk")


def _add_submodule(code: Repository, url: str, commit: str, path: str = "vendor/lib") -> str:
    """Commit a submodule as it is in the index and in .gitmodules; the commit."""
    modules = code.path / ".gitmodules"
    before = modules.read_text() if modules.exists() else ""
    modules.write_text(f'{before}[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n')
    code.git("add", ".gitmodules")
    code.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    code.git("commit", "--quiet", "-m", "submodule")
    return code.head


@pytest.fixture
def library(server: GitServer) -> Repository:
    repository = server.repository("library")
    repository.commit(lib="the library")
    return repository


@pytest.mark.parametrize("address", ["../library", "./../library", "absolute"])
def test_submodules_are_fetched_by_their_commits(code, library, tmp_path, cached, caplog, address):
    wanted = library.head
    library.commit(lib="a later one")
    _add_submodule(code, library.url if address == "absolute" else address, wanted)
    for number in range(2):  # from its server, then from the cache
        get(f"git+{code.url}", tmp_path / str(number), cached)
        found = files_below(tmp_path / str(number))
        assert found == {"main.py": "first", ".gitmodules": ANY, "vendor/lib/lib.py": "the library"}
    assert not caplog.records


def test_submodules_within_submodules_are_fetched_and_circles_end(
    server, code, library, tmp_path, settings, caplog
):
    inner = server.repository("inner")
    commit = inner.commit(inner="inside")
    _add_submodule(library, "../inner", commit, "deep")
    _add_submodule(code, "../library", library.head)
    get(f"git+{code.url}", tmp_path / "d", settings)
    assert files_below(tmp_path / "d")["vendor/lib/deep/inner.py"] == "inside"
    for _ in range(8):
        commit = _add_submodule(inner, "../inner", commit, f"again{commit[:6]}")
    get(f"git+{inner.url}", tmp_path / "e", settings)
    assert "within each other" in caplog.text


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("../nowhere", "vendor/lib"), ("file:///etc", "over https or ssh"), ("/etc", "over https or ssh"), ("ext::sh -c touch% x", "over https or ssh"),
        ("--upload-pack=x", "over https or ssh"), ("http://[bad", "host or port"), ("git://127.0.0.1/x", "over https or ssh"),
    ],
)  # fmt: skip
def test_a_submodule_that_is_not_fetched_is_said_at_every_run(
    code, tmp_path, cached, caplog, address, why
):
    _add_submodule(code, address, code.head)
    for number in range(2):
        caplog.clear()
        get(f"git+{code.url}", tmp_path / str(number), cached)
        assert files_below(tmp_path / str(number)) == {"main.py": "first", ".gitmodules": ANY}
        assert "the submodule vendor/lib is not fetched" in caplog.text
        assert why in caplog.text
    caplog.clear()
    code.commit(src__a="a")
    get(f"git+{code.url}#:src", tmp_path / "sub", cached)
    assert not caplog.records  # nobody needs it there


def test_a_submodule_of_another_host_gets_no_credentials(code, tmp_path, settings, caplog):
    (tmp_path / "elsewhere").mkdir()
    with git_server(tmp_path / "elsewhere") as other:
        theirs = other.repository("library")
        commit = theirs.commit(lib="theirs")
        other.private["library"] = "oauth2:other"
        _add_submodule(code, theirs.url, commit)
        token = replace(settings, tokens={"GIT_TOKEN": TOKEN})
        get(f"git+{code.url}", tmp_path / "d", token)
        assert other.authorizations
        assert not any(other.authorizations)
    assert "vendor/lib is not fetched" in caplog.text
    assert TOKEN not in caplog.text


def test_a_submodule_of_the_same_private_server_gets_them(
    server, code, library, tmp_path, settings
):
    server.private.update(code=f"oauth2:{TOKEN}", library=f"oauth2:{TOKEN}")
    _add_submodule(code, "../library", library.head)
    get(f"git+{code.url}", tmp_path / "d", replace(settings, tokens={"GIT_TOKEN": TOKEN}))
    assert files_below(tmp_path / "d")["vendor/lib/lib.py"] == "the library"
    with_url = code.url.replace("http://", f"http://oauth2:{TOKEN}@")
    get(f"git+{with_url}", tmp_path / "e", settings)
    assert files_below(tmp_path / "e")["vendor/lib/lib.py"] == "the library"


# Git LFS


def _pointer(content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"


def _without_lfs(settings: Settings, tmp_path: Path) -> Settings:
    """With a PATH that has git and no git-lfs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("git", "sh"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return replace(settings, environ={**settings.environ, "PATH": str(folder)})


def test_files_in_lfs_are_fetched_where_git_lfs_is_installed_and_warned_of_elsewhere(
    server, code, tmp_path, cached, caplog
):
    content = b"many bytes" * 1000
    code.commit(data__table=_pointer(content), short=_pointer(b"")[:50])
    lacking = _without_lfs(cached, tmp_path)
    for number in range(2):
        caplog.clear()
        get(f"git+{code.url}", tmp_path / str(number), lacking)
        assert "data/table.py: git-lfs is not installed" in caplog.text
    if shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed")
    caplog.clear()
    get(f"git+{code.url}", tmp_path / "absent", cached)
    assert "files in Git LFS are still pointers, data/table.py" in caplog.text
    server.large[hashlib.sha256(content).hexdigest()] = content
    caplog.clear()
    for number in range(2):
        get(f"git+{code.url}", tmp_path / f"there{number}", cached)
        assert (tmp_path / f"there{number}" / "data" / "table.py").read_bytes() == content
    assert not caplog.records


def test_files_in_lfs_count_against_the_limits_before_they_are_fetched(
    server, code, tmp_path, settings, monkeypatch
):
    if shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed")
    pointer = _pointer(b"x").replace("size 1", f"size {10**15}")
    code.commit(data=pointer)
    fault = refused(f"git+{code.url}", tmp_path / "d", settings)
    assert fault.code == "source/too-large"
    assert not [one for one in server.requests if "lfs" in one]


# The cache


def test_the_same_commit_is_transferred_once(server, code, tmp_path, cached):
    for number in range(3):
        get(f"git+{code.url}#main", tmp_path / str(number), cached)
        assert files_below(tmp_path / str(number)) == {"main.py": "first"}
    assert server.transfers == 1
    second = code.commit(main="second", src__a="a")
    assert get(f"git+{code.url}#main", tmp_path / "4", cached).revision == f"git:{second}"
    get(f"git+{code.url}#:src", tmp_path / "5", cached)
    assert files_below(tmp_path / "5") == {"a.py": "a"}
    assert server.transfers == 2


def test_a_commit_that_is_known_needs_no_server(server, code, tmp_path, cached):
    head = code.head
    get(f"git+{code.url}#{head}", tmp_path / "1", cached)
    asked = len(server.requests)
    get(f"git+{code.url}#{head}", tmp_path / "2", cached)
    assert len(server.requests) == asked
    assert files_below(tmp_path / "2") == {"main.py": "first"}


def test_a_run_that_changes_its_code_does_not_change_the_next_one_s(code, tmp_path, cached):
    get(f"git+{code.url}", tmp_path / "1", cached)
    (tmp_path / "1" / "main.py").write_text("changed")
    get(f"git+{code.url}", tmp_path / "2", cached)
    assert files_below(tmp_path / "2") == {"main.py": "first"}


def test_a_damaged_cache_is_noticed_and_filled_anew(server, code, tmp_path, cached, caplog):
    get(f"git+{code.url}", tmp_path / "1", cached)
    (damaged,) = (cached.cache / "git").glob("*/tree/main.py")
    damaged.write_text("")
    get(f"git+{code.url}", tmp_path / "2", cached)
    assert files_below(tmp_path / "2") == {"main.py": "first"}
    assert "damaged" in caplog.text
    assert server.transfers == 2


def test_many_runs_at_once_each_get_the_whole_code(code, tmp_path, cached):
    code.commit(**{f"m{number}": "x" * number * 50 for number in range(30)})

    def run(number: int) -> dict[str, str]:
        get(f"git+{code.url}#main", tmp_path / str(number), cached)
        return files_below(tmp_path / str(number))

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(run, range(12)))
    assert all(result == results[0] and len(result) == 31 for result in results)
    assert len(list((cached.cache / "git").iterdir())) == 1
    assert list((cached.cache / "tmp").iterdir()) == []


# ssh, whose command is replaced by one that runs what it is given on this machine


def ssh(tmp_path: Path, settings: Settings, script: str) -> Settings:
    command = tmp_path / "ssh"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    return replace(settings, tokens={"GIT_SSH_COMMAND": str(command), "GIT_TOKEN": TOKEN})


def test_a_repository_over_ssh_is_fetched(code, tmp_path, settings):
    record = (
        f'printf "%s\\n" "$@" >> {tmp_path}/arguments; for last; do :; done; exec sh -c "$last"'
    )
    there = ssh(tmp_path, settings, record)
    get(f"git+ssh://git@host.example:2222{code.path}#main", tmp_path / "d", there)
    assert files_below(tmp_path / "d") == {"main.py": "first"}
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert "git@host.example" in arguments and "2222" in arguments
    assert TOKEN not in str(arguments)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("git@host.example: Permission denied (publickey).", "source/auth-refused"),
        ("Host key verification failed.", "source/tls"),
        (
            "ssh: Could not resolve hostname host.example: Name or service not known",
            "source/unreachable",
        ),
        ("ERROR: Repository not found.", "source/not-found"),
    ],
)
def test_what_ssh_says_becomes_a_fault(tmp_path, settings, said, code):
    there = ssh(tmp_path, settings, f"echo {shlex.quote(said)} >&2; exit 255")
    assert refused("git+ssh://git@host.example/r", tmp_path / "d", there).code == code


def test_ssh_never_asks(tmp_path, settings):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/arguments\nexit 255\n'
    )
    (folder / "ssh").chmod(0o755)
    environ = {**settings.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    refused("git+ssh://git@host.example/r", tmp_path / "d", replace(settings, environ=environ))
    assert "BatchMode=yes" in (tmp_path / "arguments").read_text()
