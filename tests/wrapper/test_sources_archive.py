"""Zips that nobody has reason to trust: what leads out, lies about its size, or is none."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from servers.surroundings import files_below

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import fetch
from digitalhub_runtime_python.sources.archive import MAX_RATIO, RATIO_FROM
from digitalhub_runtime_python.spec import SourceSpec
from digitalhub_runtime_python.transfer import MAX_ENTRIES, member_path

LINK = stat.S_IFLNK | 0o777


def make(path: Path, *members: tuple[str, str | bytes] | tuple[str, str | bytes, int]) -> Path:
    """A zip of (name, content[, mode]); names as they are, whatever they are."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # duplicate names are what some of these are about
        for name, content, *mode in members:
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode[0] if mode else 0o644) << 16
            archive.writestr(info, content)
    return path


def unpack(path: Path, fragment: str = "") -> dict[str, str]:
    dest = path.parent / "dest"
    fetch(SourceSpec(source=f"zip+{path}{fragment}"), dest, Settings())
    return files_below(dest)


def refused(path: Path, fragment: str = "") -> SourceFault:
    with pytest.raises(SourceFault) as caught:
        unpack(path, fragment)
    assert list((path.parent / "dest").iterdir()) == []
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "code.zip"


def test_names_are_taken_as_they_are_meant(path):
    make(
        path,
        ("./main.py", "a"),
        ("pkg\\win.py", "b"),
        ("pkg/", ""),
        ("empty\\", ""),
        ("x//y.py", "c"),
    )
    assert unpack(path) == {"main.py": "a", "pkg/win.py": "b", "x/y.py": "c"}
    assert (path.parent / "dest" / "empty").is_dir()


def test_the_right_to_be_run_is_kept_and_setuid_is_not(path):
    make(path, ("run.sh", "", stat.S_IFREG | 0o6755), ("main.py", "", stat.S_IFREG | 0o666))
    unpack(path)
    modes = [(path.parent / "dest" / n).stat().st_mode & 0o7777 for n in ("run.sh", "main.py")]
    assert modes == [0o755, 0o644]


def test_a_subfolder_of_an_archive_can_be_chosen(path):
    make(path, ("repo-main/src/main.py", "a"), ("repo-main/README", "b"))
    assert unpack(path, "#:repo-main/src") == {"main.py": "a"}


def test_a_missing_subfolder_is_answered_with_those_that_exist(path):
    make(path, ("repo-main/src/main.py", "a"))
    fault = refused(path, "#:src")
    assert fault.code == "source/not-found"
    assert "repo-main" in fault.hint


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py", "a/../../evil.py", "..", "/etc/cron.d/evil", "..\\evil.py", "a\\..\\..\\evil.py",
        "C:\\evil.py", "c:evil.py", "\\\\host\\share\\evil.py", "a\nb.py", "a\x1b[2Jb.py",
    ],
)  # fmt: skip
def test_a_name_that_leads_out_is_refused_by_name(path, name):
    make(path, ("main.py", ""), (name, "evil"))
    fault = refused(path)
    assert fault.code == "source/unsafe-path"
    assert repr(name) in fault.message
    assert not (path.parent / "evil.py").exists()


@given(st.text("ab./\\:~ \x00\n-é\ud800", max_size=30))
@example("C:")
@example("....//a")
@example("\u2025/a")
def test_a_member_name_stays_inside_or_is_refused(name):
    try:
        member = member_path(name)
    except ValueError:
        return
    assert isinstance(member, PurePosixPath)
    assert not member.is_absolute()
    assert member.parts and ".." not in member.parts and "." not in member.parts
    base = Path("/base/dest")
    assert base in (base / member).parents
    assert name.replace("\\", "/").split("/")[-1] in ("", ".", member.name)


NAME = st.text("ab./\\é", min_size=1, max_size=8)
MEMBER = st.tuples(
    NAME, st.sampled_from(["x", "..", "../b", "/tmp", "a", "b/.."]), st.sampled_from([0o644, LINK])
)


@settings(max_examples=150, deadline=None)
@given(st.lists(MEMBER, max_size=5))
@example([("a", "..", LINK), ("a/b", "x", 0o644)])
@example([("a", "..", LINK), ("a/b", "x", LINK)])
@example([("a/d", "..", LINK), ("b", "a/d/../..", LINK)])
def test_whatever_is_in_a_zip_nothing_leads_out(tmp_path_factory, members):
    folder = tmp_path_factory.mktemp("zip")
    (folder / "outside").mkdir()
    make(folder / "code.zip", *members)
    try:
        unpack(folder / "code.zip")
    except SourceFault as fault:
        assert fault.code in ("source/unsafe-path", "source/unsafe-link", "source/bad-archive")
        assert list((folder / "dest").iterdir()) == []
    for found in (folder / "dest").rglob("*"):
        if not found.is_symlink() or found.exists():
            assert (folder / "dest").resolve() in found.resolve().parents or (
                found.resolve() == (folder / "dest").resolve()
            )
    assert sorted(p.name for p in folder.iterdir()) == ["code.zip", "dest", "outside"]


def test_links_that_stay_inside_are_kept(path):
    make(path, ("main.py", "pkg/real.py", LINK), ("pkg/real.py", "a"), ("pkg/up", "..", LINK))
    assert unpack(path) == {"main.py": "-> pkg/real.py", "pkg/real.py": "a", "pkg/up": "-> .."}


@pytest.mark.parametrize(
    "members",
    [
        [("bad", "/etc", LINK)],
        [("bad", "../outside", LINK)],
        [("pkg/up", "..", LINK), ("bad", "pkg/up/../outside", LINK)],
        [("bad", "/etc", LINK), ("a/main.py", "a")],
    ],
)
def test_a_link_that_leads_out_is_refused_by_name(path, members):
    make(path, *members)
    fault = refused(path)
    assert fault.code == "source/unsafe-link"
    assert "bad" in fault.message


@pytest.mark.parametrize("mode", [0o644, LINK])
def test_nothing_is_written_through_a_link(path, mode):
    make(path, ("a", "..", LINK), ("a/evil.py", "evil", mode))
    assert refused(path).code == "source/bad-archive"
    assert sorted(p.name for p in path.parent.iterdir()) == ["code.zip", "dest"]


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "./a")])
def test_two_members_of_one_name_are_refused(path, names):
    make(path, *((name, "x") for name in names))
    fault = refused(path)
    assert fault.code == "source/bad-archive"
    assert "two members" in fault.message


def test_a_device_is_refused(path):
    make(path, ("null", "", stat.S_IFCHR | 0o666))
    assert refused(path).code == "source/bad-archive"


def test_what_is_no_zip_is_refused(path):
    path.write_bytes(b"PK but no zip")
    assert refused(path).code == "source/bad-archive"
    path.write_bytes(b"")
    assert refused(path).code == "source/bad-archive"


def test_a_web_page_in_place_of_a_zip_is_called_one(path):
    path.write_text("<!DOCTYPE html><title>Sign in</title>")
    assert "web page" in refused(path).hint


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.999])
def test_a_truncated_zip_is_refused(path, kept):
    make(path, ("main.py", "a" * 100), ("b.py", "b" * 1000))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert refused(path).code == "source/bad-archive"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_zip_is_refused_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("zip")
    path = make(folder / "code.zip", ("main.py", b"a" * 50), ("pkg/b.py", bytes(range(256))))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        unpack(path)
    except SourceFault as fault:
        assert fault.code in ("source/bad-archive", "source/unsafe-path", "source/unsafe-link")
        assert list((folder / "dest").iterdir()) == []


def test_a_zip_with_a_password_is_refused(path):
    make(path, ("main.py", "a"))
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    fault = refused(path)
    assert fault.code == "source/bad-archive"
    assert "encrypted" in fault.message


def test_a_bomb_is_stopped_by_its_ratio(path):
    make(path, ("zeros", bytes(4 * RATIO_FROM)))
    assert path.stat().st_size * MAX_RATIO < 4 * RATIO_FROM
    fault = refused(path)
    assert fault.code == "source/too-large"
    assert str(MAX_RATIO) in fault.message


def test_a_bomb_that_lies_about_its_size_is_stopped_too(path):
    make(path, ("zeros", bytes(4 * RATIO_FROM)))
    size = (4 * RATIO_FROM).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (1000).to_bytes(4, "little")))
    assert refused(path).code in ("source/too-large", "source/bad-archive")


def test_a_well_packed_table_is_no_bomb(path):
    make(path, ("table.csv", b"0,0,0\n" * 500_000))
    assert set(unpack(path)) == {"table.csv"}


def test_a_zip_of_too_many_files_is_refused_before_one_is_written(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(MAX_ENTRIES + 1):
            archive.writestr(zipfile.ZipInfo(f"{number:x}"), b"")
    fault = refused(path)
    assert fault.code == "source/too-large"
    assert str(MAX_ENTRIES) in fault.message


def test_a_zip_that_another_program_made_is_unpacked(tmp_path):
    folder = tmp_path / "code"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "ü.py").write_text("a")
    script = "import shutil, sys; shutil.make_archive(sys.argv[1], 'zip', sys.argv[2])"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "code"), str(folder)], check=True)
    assert unpack(tmp_path / "code.zip") == {"pkg/ü.py": "a"}


def test_a_zip_with_something_before_it_is_unpacked(path):
    """zipapps and self-extracting archives have a line before the zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("main.py", "a")
    path.write_bytes(b"#!/usr/bin/env python3\n" + buffer.getvalue())
    assert unpack(path) == {"main.py": "a"}
