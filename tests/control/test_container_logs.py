"""What containers print, on its way into a run's log: nothing secret, nothing twice, nothing without end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitalhub_python_control.running.container_logs import copy
from digitalhub_python_control.running.engines.keeper import Log
from digitalhub_python_control.running.hiding import forms_of
from digitalhub_python_control.running.kubernetes.following import _Shared
from digitalhub_runtime_python.redaction import replaced

HIDDEN = forms_of(
    {"MINE": "s3cret/välue 'x'", "PEM": "-----BEGIN X-----\nline0one\nline0two\n"}, ["MINE", "PEM"]
)
LINES = st.lists(
    st.lists(st.sampled_from([*HIDDEN, b"s3cret/v", b"plain ", b"\xff\x00", b"2026-01-01T00:00:00Z x"]), max_size=6).map(b"".join),
    min_size=1, max_size=8,
)  # fmt: skip


class Killed(BaseException):
    """The control plane is gone: nothing after it happens."""


def _pieces(lines: list[bytes], size: int) -> list[bytes]:
    """As Docker hands them out: each piece of a long line with a moment of its own."""
    found = []
    for number, line in enumerate(lines):
        whole = line + b"\n"
        for start in range(0, len(whole), size):
            moment = f"2026-11-27T07:30:{number:02}.{start:09}Z ".encode()
            found.append(moment + whole[start : start + size])
    return found


def _until(pieces: list[bytes], line: int) -> Iterator[bytes]:
    """Those up to the end of so many lines."""
    for piece in pieces:
        if line == 0:
            raise Killed
        yield piece
        line -= piece.endswith(b"\n")


@given(LINES, st.integers(1, 50), st.integers(0, 8))
def test_a_log_is_what_was_printed_without_secrets_and_each_line_once_over_restarts(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int, killed: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    pieces = _pieces(lines, size)
    if killed < len(lines):
        with pytest.raises(Killed):
            copy(
                _until(pieces, killed),
                Log(str(folder / "log"), 1 << 20),
                HIDDEN,
                folder / "position",
            )
    copy(pieces, Log(str(folder / "log"), 1 << 20), HIDDEN, folder / "position")
    kept = (folder / "log").read_bytes()
    assert kept == b"".join(replaced(line, HIDDEN) + b"\n" for line in lines)
    assert not [form for form in HIDDEN if form in kept]


@given(LINES, st.integers(1, 50))
def test_a_long_line_of_a_pod_comes_in_pieces_of_which_the_first_has_the_moment(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    lines = [line.replace(b"2026-01-01T00:00:00Z", b"") for line in lines]
    pieces = []
    for number, line in enumerate(lines):
        whole = line + b"\n"
        pieces.append(f"2026-11-27T07:30:{number:02}.000000000Z ".encode() + whole[:size])
        pieces += [whole[start : start + size] for start in range(size, len(whole), size)]
    copy(pieces, Log(str(folder / "log"), 1 << 20), HIDDEN, folder / "position", b"[x1] ")
    assert (folder / "log").read_bytes() == b"".join(
        b"[x1] " + replaced(line, HIDDEN) + b"\n" for line in lines
    )


def test_what_has_no_line_break_at_the_end_is_kept_and_ended(tmp_path: Path) -> None:
    copy(
        [b"2026-11-27T07:30:00Z the end of s3c"],
        Log(str(tmp_path / "log"), 1 << 20),
        HIDDEN,
        tmp_path / "position",
    )
    assert (tmp_path / "log").read_bytes() == b"the end of s3c\n"


def test_the_log_of_a_container_is_bounded_and_says_so(tmp_path: Path) -> None:
    limit = 64 * 1024
    pieces = (f"2026-11-27T07:30:00.{n:09}Z line {n}\n".encode() for n in range(50_000))
    copy(pieces, Log(str(tmp_path / "log"), limit), [], tmp_path / "position")
    now, before = (tmp_path / "log").read_bytes(), (tmp_path / "log.1").read_bytes()
    assert len(now) + len(before) < limit + 1024
    assert now.endswith(b"line 49999\n")
    assert b"dhpy: the log is longer than 65536 bytes (DHPY_MAX_RUN_LOG)" in now


def test_pods_that_write_to_one_log_lose_no_line_of_the_half_that_is_kept(tmp_path: Path) -> None:
    limit = 512 * 1024
    lock = threading.Lock()

    def write(pod: int) -> None:
        log = _Shared(tmp_path / "log", limit, lock)
        pieces = [f"2026-11-27T07:30:00.{n:09}Z {n}\n".encode() for n in range(20_000)]
        copy(pieces, log, [], tmp_path / f"{pod}.position", f"[{pod}] ".encode())
        log.end()

    pods = [threading.Thread(target=write, args=(pod,)) for pod in range(3)]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.join()
    kept = (tmp_path / "log.1").read_text() + (tmp_path / "log").read_text()
    assert limit // 2 < len(kept) < limit + 1024
    for pod in range(3):
        numbers = [
            int(line.partition("] ")[2])
            for line in kept.splitlines()
            if line.startswith(f"[{pod}]")
        ]
        assert numbers == list(range(20_000 - len(numbers), 20_000))
