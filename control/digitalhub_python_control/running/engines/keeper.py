"""`python -I -S keeper.py FOLDER`: starts attempts of runs, keeps each to its end, and ends all that it has started.

The control plane holds the other end of standard input, a socket. For every order that comes over it
this process forks a keeper: a process that outlives the control plane, starts the run's command, copies
its output into the log, and writes down how it ended. Forking one that is ready costs a twentieth of
starting an interpreter. It is single-threaded and knows nothing but this file, for both reasons, and
`redaction.py`, which lies in FOLDER and takes secrets out of what the command prints.

A keeper adopts whatever the command leaves behind, in sessions of its own too (Linux: it is a child
subreaper), and kills it once the command has ended. If the keeper itself is killed, the command dies with
it. SIGTERM is passed on to the command's process group.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import time
from typing import Any

_PDEATHSIG, _SUBREAPER = 1, 36  # prctl(2)
_CHUNK = 64 * 1024
_PATIENCE = 10.0
"""Seconds that a process may take to die of SIGKILL; one that waits for a dead disk never does."""
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def main() -> None:
    """Take orders until the control plane is gone."""
    sys.path.append(sys.argv[1])
    hiding = importlib.import_module("redaction").Hiding
    orders = socket.socket(fileno=0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a keeper
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # our end is that of the socket
    gc.disable()
    gc.freeze()  # or the first collection in a child would copy every page
    while (order := receive(orders)) is not None:
        if os.fork() == 0:
            try:
                keep(order, orders, hiding)
            except BaseException as exc:  # noqa: BLE001 - a fork must not go on as its parent
                sys.stderr.write(f"the keeper of {order['attempt']} failed: {exc!r}\n")
                os._exit(1)
            os._exit(0)


def send(place: socket.socket, message: Any) -> None:
    """Write one message: its length, and JSON."""
    content = json.dumps(message).encode()
    place.sendall(struct.pack("!I", len(content)) + content)


def receive(place: socket.socket) -> Any:
    """Read one message; None where the other end is gone."""
    head = _exactly(place, 4)
    content = head and _exactly(place, struct.unpack("!I", head)[0])
    return json.loads(content) if content else None


def keep(order: dict[str, Any], orders: socket.socket, hiding: Any) -> None:
    """Run one attempt, unless somebody else runs it, and answer who does.

    Args:
        order: `attempt`, `work`: folders; `log`: file; `max_log`: bytes; `command`, `environment`;
            `cgroup`: a folder for the command's own control group, or ""; `hidden`: what its output may not show.
        hiding: the class of redaction.py.
    """
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        attempt = os.open(order["attempt"], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        mine, who = claim(attempt)
        answer: dict[str, Any] = {"claim": who}
    except OSError as exc:
        mine, answer = False, {"error": f"{exc.strerror}: {exc.filename or order['attempt']}"}
    if mine:
        signals = _Signals()  # from here on SIGTERM is the command's
    with contextlib.suppress(OSError):  # the control plane was killed; the next one finds the claim
        send(orders, answer)
    orders.close()
    if mine:
        hidden = [one.encode("utf-8", "surrogatepass") for one in order["hidden"]]
        log = Log(order["log"], order["max_log"], hiding(hidden))
        log.add(b"")  # there from the start
        status = _run(order, log, signals)
        write(attempt, "exit", f"{status}\n")
        _remove_cgroup(order["cgroup"])


def claim(attempt: int) -> tuple[bool, str]:
    """Whether this process is the one that runs the attempt, and who is: pid, start time, boot."""
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            born = file.read()
        with open(_BOOT_ID, encoding="ascii") as file:
            boot = file.read()
    except OSError:
        born, boot = os.popen(f"ps -o lstart= -p {os.getpid()}").read(), ""  # noqa: S605
    name = f"claim.{os.getpid()}"
    _create(attempt, name, f"{os.getpid()}\n{born.strip()}\n{boot.strip()}\n")
    try:
        # A hard link is made by one process only, and has its content at once.
        os.link(name, "started", src_dir_fd=attempt, dst_dir_fd=attempt, follow_symlinks=False)
        mine = True
    except FileExistsError:
        mine = False
    finally:
        os.unlink(name, dir_fd=attempt)
    number = os.open("started", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=attempt)
    with os.fdopen(number, encoding="utf-8", errors="replace") as file:
        return mine, file.read()


def write(folder: int, name: str, text: str) -> None:
    """Put a file into a folder, whatever is there under its name."""
    new = f".{name}.{os.getpid()}"
    _create(folder, new, text)
    try:
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except IsADirectoryError:  # the run's own work; nobody else comes here
        shutil.rmtree(f"/proc/self/fd/{folder}/{name}", ignore_errors=True)
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)


class Log:
    """A run's log, bounded: its first half is dropped when it is full, and a line says so.

    What cannot be written is counted, and said once there is room again; the run does not wait for it.

    Args:
        limit: bytes.
        hiding: has `add` and `rest`, which give what can be shown of what was printed; None shows all.
    """

    def __init__(self, path: str, limit: int, hiding: Any = None) -> None:
        self._path = path
        self._hiding = hiding
        self._flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        self._at_start = True
        self._half = limit // 2
        self._lost = self._dropped = 0
        self._file = -1

    def add(self, content: bytes) -> None:
        self._add(self._hiding.add(content) if self._hiding else content)

    def end(self) -> None:
        """Nothing more comes."""
        if self._hiding:
            self._add(self._hiding.rest())
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _add(self, content: bytes) -> None:
        try:
            self._open()
            if self._lost:
                self._write(f"dhpy: {self._lost} bytes of output were lost: the disk was full\n".encode())  # fmt: skip
                self._lost = 0
            if os.fstat(self._file).st_size >= self._half:
                content = self._end_line(content)
                if content:
                    self._begin_half()
            self._write(content)
        except OSError:
            self._lost += len(content)

    def _open(self) -> None:
        if self._file >= 0 and not self._is_current():
            os.close(self._file)  # somebody else, who writes to it too, has begun the next half
            self._file = -1
        if self._file < 0:
            self._file = os.open(self._path, self._flags, 0o600)

    def _end_line(self, content: bytes) -> bytes:
        """Write what still belongs to the last line, unless it has no end; what comes after it."""
        if self._at_start:
            return content
        line, end, rest = content.partition(b"\n")
        if not end and os.fstat(self._file).st_size >= self._half + _CHUNK:
            return content
        self._write(line + end)
        return rest

    def _begin_half(self) -> None:
        os.close(self._file)
        self._file = -1
        with contextlib.suppress(FileNotFoundError):
            self._dropped += os.stat(f"{self._path}.1", follow_symlinks=False).st_size
        os.replace(self._path, f"{self._path}.1")
        self._file = os.open(self._path, self._flags, 0o600)
        if self._dropped:
            self._write(f"dhpy: the log is longer than {2 * self._half} bytes (DHPY_MAX_RUN_LOG); {self._dropped} bytes before this half were dropped\n".encode())  # fmt: skip

    def _is_current(self) -> bool:
        mine = os.fstat(self._file)
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def _write(self, content: bytes) -> None:
        self._at_start = content.endswith(b"\n") if content else self._at_start
        while content:
            content = content[os.write(self._file, content) :]


class _Signals:
    """SIGTERM and SIGCHLD, heard by `poll`."""

    def __init__(self) -> None:
        self.read, write_end = os.pipe()
        os.set_blocking(self.read, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def heard(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(self.read, 4096)
        return b""


def _run(order: dict[str, Any], log: Log, signals: _Signals) -> int:
    """The command's exit status; nothing of it lives any more."""
    prctl(_SUBREAPER, 1)
    output, into = os.pipe()
    os.set_blocking(output, False)
    command = os.fork()
    if command == 0:
        _become(order, into)
    os.close(into)
    waiting = select.poll()
    waiting.register(output, select.POLLIN)
    waiting.register(signals.read, select.POLLIN)
    status = None
    while status is None:
        for number, _ in waiting.poll():
            if number == output and not _copy(output, log):
                waiting.unregister(output)
            elif number == signals.read and signal.SIGTERM in signals.heard():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(command, signal.SIGTERM)
        status = _reap(command)
    _end_the_rest(command, log)
    while _copy(output, log):
        pass
    log.end()
    return status


def _copy(output: int, log: Log) -> bool:
    """Copy what is there; whether there may be more."""
    try:
        content = os.read(output, _CHUNK)
    except BlockingIOError:
        return False
    log.add(content)
    return bool(content)


def _become(order: dict[str, Any], into: int) -> None:
    """Become the command, in a session of its own; never returns."""
    try:
        keeper = os.getppid()
        os.setsid()
        prctl(_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(128 + signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(into, 1)
        os.dup2(into, 2)
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):  # fmt: skip
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        _enter_cgroup(order["cgroup"])
        os.chdir(order["work"])
        os.execvpe(order["command"][0], order["command"], order["environment"])
    except FileNotFoundError as exc:
        os.write(2, f"dhpy: {exc.filename}: not found\n".encode())
        os._exit(127)
    except BaseException as exc:  # noqa: BLE001 - a fork must not go on as its parent
        os.write(2, f"dhpy: {order['command'][0]} cannot be started: {exc}\n".encode())
        os._exit(126)


def _reap(command: int) -> int | None:
    """Let everything that has ended go; the command's exit status, where it is among them."""
    status = None
    while True:
        try:
            pid, how = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == command:
            status = 128 + os.WTERMSIG(how) if os.WIFSIGNALED(how) else os.WEXITSTATUS(how)


def _end_the_rest(command: int, log: Log) -> None:
    """Kill what the command has left: its group, and all that was handed to us when its parents died."""
    give_up = time.monotonic() + _PATIENCE
    pause = 0.001
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(command, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        left = descendants(os.getpid())
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > give_up:
            log.add(f"dhpy: these processes do not die: {left}\n".encode())
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def descendants(pid: int) -> list[int]:
    """The processes that descend from one, itself left out; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    # The name stands in brackets and may hold anything, brackets and blanks included.
                    parent = int(file.read().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found, new = [], [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, ())]
        found += new
    return found


def prctl(option: int, value: int) -> None:
    """Tell Linux something about this process; nothing happens elsewhere."""
    if _LIBC is not None:
        _LIBC.prctl(option, value, 0, 0, 0)


def _libc() -> Any:
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "prctl") else None


_LIBC = _libc()


def _enter_cgroup(folder: str) -> None:
    if folder:
        with open(f"{folder}/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")


def _remove_cgroup(folder: str) -> None:
    for _ in range(50 if folder else 0):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError:  # what was killed has not quite gone
            time.sleep(0.01)
        else:
            return


def _create(folder: int, name: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "w", encoding="utf-8") as file:
        file.write(text)


def _exactly(place: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        try:
            part = place.recv(size - len(content))
        except ConnectionResetError:
            part = b""
        if not part:
            return b""
        content += part
    return content


if __name__ == "__main__":
    main()
    sys.exit(0)
