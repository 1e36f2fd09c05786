"""Archives of tar, and what is fetched that is not Python."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from servers.surroundings import clean_environ, files_below

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import fetch
from digitalhub_runtime_python.spec import SourceSpec

CODE = b"def f(): return 1\n"


def make(path: Path, *members: tuple[str, Any], mode: str = "w:gz") -> Path:
    """A tar of (name, content) and (name, TarInfo without its name)."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo()
            info.name = name
            raw = content if isinstance(content, bytes) else b""
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


def get(path: str | Path, tmp_path: Path, dest: str = "dest") -> dict[str, str]:
    fetched = fetch(
        SourceSpec(source=str(path)), tmp_path / dest, Settings(environ=clean_environ(tmp_path))
    )
    return files_below(fetched.root)


def refused(path: str | Path, tmp_path: Path) -> SourceFault:
    with pytest.raises(SourceFault) as caught:
        get(path, tmp_path)
    assert list((tmp_path / "dest").iterdir()) == []
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    "name, mode",
    [("c.tar", "w"), ("c.tar.gz", "w:gz"), ("c.tgz", "w:gz"), ("c.tar.bz2", "w:bz2"), ("c.tar.xz", "w:xz"),
     ("c.zip", "w:gz")],
)  # fmt: skip
def test_a_tar_is_unpacked_whatever_its_packing_and_name(
    tmp_path: Path, name: str, mode: str
) -> None:
    hard, soft = special(tarfile.LNKTYPE, "main.py"), special(tarfile.SYMTYPE, "../main.py")
    path = make(tmp_path / name, (".", special(tarfile.DIRTYPE)), ("main.py", CODE), ("pkg/a.py", b"a"),
                ("hard.py", hard), ("pkg/soft.py", soft), mode=mode)  # fmt: skip
    assert get(path, tmp_path) == {
        "main.py": CODE.decode(), "hard.py": CODE.decode(), "pkg/a.py": "a", "pkg/soft.py": "-> ../main.py"
    }  # fmt: skip


@pytest.mark.parametrize(
    "member, code",
    [
        (("../out", b"x"), "source/unsafe-path"),
        (("/etc/x", b"x"), "source/unsafe-path"),
        (("bad", special(tarfile.SYMTYPE, "/etc")), "source/unsafe-link"),
        (("bad", special(tarfile.SYMTYPE, "../../x")), "source/unsafe-link"),
        (("bad", special(tarfile.LNKTYPE, "nothing")), "source/bad-archive"),
        (("bad", special(tarfile.FIFOTYPE)), "source/bad-archive"),
        (("bad", special(tarfile.CHRTYPE)), "source/bad-archive"),
        (("main.py", CODE), "source/bad-archive"),
        (("zeros", b"\0" * (40 << 20)), "source/too-large"),
    ],
)
def test_a_tar_that_leads_out_or_bursts_is_refused(tmp_path: Path, member: Any, code: str) -> None:
    path = make(tmp_path / "c.tar.gz", ("main.py", CODE), member)
    assert refused(path, tmp_path).code == code
    assert sorted(p.name for p in tmp_path.iterdir() if p.name in ("out", "x")) == []


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("kept", [0.3, 0.7])
def test_a_damaged_tar_is_refused_or_whole(tmp_path: Path, mode: str, kept: float) -> None:
    path = make(tmp_path / "c.tar", ("main.py", bytes(range(256)) * 40), ("b.py", CODE), mode=mode)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept)])
    if mode == "w" and kept == 0.7:
        return  # a tar's end is padding
    assert refused(path, tmp_path).code == "source/bad-archive"


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
NOTEBOOK = json.dumps({"cells": [], "nbformat": 4}).encode()


@pytest.mark.parametrize(
    "raw, what",
    [
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x1f\x8b\x08....", "packed by gzip"),
        (b"\x7fELF\x02\x01", "a program"),
        (b"%PDF-1.7", "a PDF"),
        (b"\x89PNG\r\n", "a picture"),
        (b"PAR1....", "a Parquet table"),
        (b"\n <!DOCTYPE html><title>Sign in</title>", "a web page"),
        (b"<?xml version='1.0'?><Error/>", "XML"),
        (b'{"message": "Not Found"}', "JSON"),
        (NOTEBOOK, "a Jupyter notebook"),
        (LFS, "a pointer to a file in Git LFS"),
        (b"abc\0def", "binary data"),
    ],
)
def test_what_is_not_python_is_refused_by_what_it_is(tmp_path: Path, raw: bytes, what: str) -> None:
    (tmp_path / "main.py").write_bytes(raw)
    fault = refused(tmp_path / "main.py", tmp_path)
    assert fault.code == "source/not-python"
    assert f"is {what}, not Python" in fault.message


@pytest.mark.parametrize("raw", [CODE, b"", b"{1: 2}\n", b"#!/usr/bin/python\n", "# coding: latin-1\nx = 'é'\n".encode("latin-1"), b"\xef\xbb\xbfx = 1\n"])  # fmt: skip
def test_what_may_be_python_is_taken(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "main.py").write_bytes(raw)
    get(tmp_path / "main.py", tmp_path)
    assert (tmp_path / "dest" / "main.py").read_bytes() == raw
