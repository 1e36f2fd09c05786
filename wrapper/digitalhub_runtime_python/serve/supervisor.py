"""Starts the workers and the management port, replaces what dies, and ends them all in order.

A small loop that imports what the workers need once and then forks them: a worker starts in
milliseconds and shares those pages. It runs no thread and no event loop, so that a fork is safe.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable

from digitalhub_runtime_python.serve import board, management, refusing, worker
from digitalhub_runtime_python.serve.front import STUCK
from digitalhub_runtime_python.serve.processes import (
    Tether,
    Worker,
    ask_to_end,
    ending,
    kill_group,
    send,
)
from digitalhub_runtime_python.serve.worker import Service

logger = logging.getLogger(__name__)

BACKOFF = (0.05, 30.0)
"""Seconds before a worker that crashed is started again: the first time, and at most."""

STEADY = 60.0
"""Seconds that a worker must have lived for its next crash to count as a first one."""

MARGIN = 2.0
"""Seconds beyond the grace time after which a worker is killed."""

MANAGEMENT_AFTER = 0.5
"""Seconds after which the management port answers at the latest; sooner where a worker is ready sooner."""

SILENT = 1.0
"""Seconds beyond the deadline after which a worker that gives no sign of life is killed."""

MANAGEMENT_SILENT = 10.0
"""Seconds without a sign of life after which the management process is replaced."""

_TICK = 0.25


class Supervisor:
    """Keeps a service up until it is told to end.

    Args:
        listener: the function's listening socket.
        manager: the management port's.
        on_ready: called once, when every worker has answered for the first time.
        watch: yields whether the code has changed since the last time; None to not look.
    """

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        manager: socket.socket,
        *,
        on_ready: Callable[[], None],
        watch: Iterator[bool] | None = None,
    ) -> None:
        self._service = service
        self._listener = listener
        self._manager = manager
        self._on_ready = on_ready
        self._watch = watch
        self._board = board.Board(service.serve.workers)
        self._workers = [Worker(i, slot) for i, slot in enumerate(self._board.slots)]
        # Old workers: pid -> when it is killed, and its control, whose end would end it at once.
        self._retired: dict[int, tuple[float, socket.socket | None]] = {}
        self._management, self._management_at = 0, 0.0
        self._lifeline: socket.socket | None = None
        self._tether = Tether()
        self._looked = self._awake = 0.0  # when signs of life were last looked for
        self._announced = False
        self._signals: list[int] = []
        self._end_by: float | None = None
        self._status = 0

    def run(self) -> int:
        """Serve; the exit status."""
        self._wakeup, signalled = socket.socketpair()
        self._wakeup.setblocking(False)
        signalled.setblocking(False)
        before = signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
        handlers = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
            # What nohup, or a shell's `&`, has it ignore stays ignored.
            if number == signal.SIGCHLD or signal.getsignal(number) is not signal.SIG_IGN
        }
        gc.freeze()  # what is there now is never collected: a collection would unshare its pages
        try:
            # The workers go first: where there is little CPU, an answer of theirs is what is waited for.
            self._management_at = time.monotonic() + MANAGEMENT_AFTER
            while not self._finished():
                self._start_due()
                self._wait()
                self._act_on_signals()
                self._reap()
                self._look_for_life()
                self._look_for_changes()
                self._enforce_end()
        finally:
            self._kill_all()
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for end in (self._wakeup, signalled, self._lifeline):
                if end is not None:
                    end.close()
            self._tether.close()
            gc.unfreeze()
        return self._status

    # --- starting ---

    def _start_management(self) -> None:
        host, port = self._listener.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        local = self._manager.getsockname()[0] in ("127.0.0.1", "::1")
        app = management.Management(self._board, self._service.folder, (host, port), local=local)
        if self._lifeline is not None:
            self._lifeline.close()
        self._lifeline, theirs = socket.socketpair()
        self._board.beat = time.monotonic()
        self._management = self._fork(
            lambda: management.main(app, self._board, self._manager, theirs), self._listener
        )
        theirs.close()

    def _start_due(self) -> None:
        now = time.monotonic()
        if self._end_by is None:
            for place in self._workers:
                if not place.pid and place.start_at is not None and place.start_at <= now:
                    self._start(place)
            if not self._management and self._management_at <= now:
                self._start_management()

    def _start(self, place: Worker) -> None:
        mine, theirs = socket.socketpair()
        args = (self._service, place.index, place.slot, self._listener, theirs)
        place.slot.values[board.STATE] = board.STARTING
        place.slot.values[board.STARTS] += 1
        place.slot.values[board.BEAT] = 0.0  # until it serves
        place.pid = self._fork(lambda: worker.main(*args), self._manager, mine)
        place.slot.values[board.PID] = place.pid
        theirs.close()
        mine.setblocking(False)
        place.control, place.started, place.ready, place.failure = mine, time.monotonic(), False, {}
        place.start_at, place.hung = None, False

    def _fork(self, main: Callable[[], int], *not_needed: socket.socket) -> int:
        """Run `main` in a new process; its pid."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        status = 70
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            worker.set_signals(lambda: os._exit(128 + signal.SIGTERM))
            # Their other ends must see an end when the supervisor dies.
            retired = [control for _, control in self._retired.values()]
            for end in (self._lifeline, *retired, *(w.control for w in self._workers)):
                if end is not None:
                    end.close()
            for unused in (self._wakeup, *not_needed):
                unused.close()
            if self._manager in not_needed:  # the management process holds on to it
                self._tether.fasten()
            status = main()
        except BaseException:
            logger.critical("a process of the service has failed", exc_info=True)
        finally:
            worker.exit_process(status)
        raise AssertionError("not reached")

    # --- watching ---

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals.append(number)

    def _wait(self) -> None:
        """Until something happens, or a moment has passed."""
        controls = {w.control: w for w in self._workers if w.control is not None}
        due = [w.start_at for w in self._workers if w.start_at is not None and not w.pid]
        pause = min([_TICK, *(max(0.0, at - time.monotonic()) for at in due)])
        readable, _, _ = select.select([self._wakeup, *controls], [], [], pause)
        for end in readable:
            if end is self._wakeup:
                with contextlib.suppress(BlockingIOError):
                    end.recv(4096)
            else:
                self._hear(controls[end])

    def _hear(self, place: Worker) -> None:
        """Take what a worker says: `R`, it takes requests; `F` and JSON, it has failed to start."""
        assert place.control is not None  # noqa: S101
        try:
            message = place.control.recv(65536)
        except (BlockingIOError, ConnectionError):
            return
        if not message:
            place.control.close()
            place.control = None
        elif message.startswith(b"R"):
            place.ready = True
            self._management_at = 0.0
            if self._end_by is None:
                place.slot.values[board.STATE] = board.READY
            self._announce()
        elif message.startswith(b"F"):
            with contextlib.suppress(ValueError):
                place.failure = json.loads(message[1:])

    def _announce(self) -> None:
        if not self._announced and all(w.ready for w in self._workers):
            self._announced = True
            self._board.state = board.READY
            self._on_ready()

    def _reap(self) -> None:
        while True:
            try:
                pid, state = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            status = os.waitstatus_to_exitcode(state)
            if pid == self._management:
                self._management, self._management_at = 0, time.monotonic() + BACKOFF[0]
                if self._end_by is None:
                    logger.error("the management process ended with %d; it is replaced", status)
            elif pid in self._retired:
                _, control = self._retired.pop(pid)
                if control is not None:
                    control.close()
                kill_group(pid)
            else:
                for place in self._workers:
                    if place.pid == pid:
                        self._lost(place, status)

    def _look_for_life(self) -> None:
        """Kill what gives no sign of life: a handler that keeps the interpreter's lock is seen from outside alone."""
        now = time.monotonic()
        # This process has slept too long itself: a machine that was paused paused the workers as well.
        if now - self._looked > 4 * _TICK:
            self._awake = now
        self._looked = now
        serve = self._service.serve
        limit = serve.hang_timeout
        if serve.request_timeout is not None:
            limit = max(1.0, serve.request_timeout) + SILENT
        for place in self._workers:
            beat = place.slot.values[board.BEAT]
            if place.pid and beat and not place.hung and now - max(beat, self._awake) > limit:
                place.hung = True
                logger.error(
                    "worker %d has given no sign of life for %.1f s; it is killed", place.index, now - beat
                )  # fmt: skip
                kill_group(place.pid)
        if self._management and now - max(self._board.beat, self._awake) > MANAGEMENT_SILENT:
            send(self._management, signal.SIGKILL)

    def _lost(self, place: Worker, status: int) -> None:
        """A worker has ended: replace it, or end with it where it never came up."""
        pid, place.pid = place.pid, 0
        if place.control is not None:
            self._hear(place)  # its last words may still be there
        if place.control is not None:
            place.control.close()
            place.control = None
        kill_group(pid)  # what the user's code had started
        place.slot.forget()
        place.slot.values[board.STATE] = board.STARTING
        if self._end_by is not None:
            if status and place.ready and not self._status:
                self._status = 128 + signal.SIGTERM  # requests were cut off
            return
        if not self._announced and not place.ready and self._watch is None:
            # It will not come up the next time either; whoever started the service should know.
            logger.error("the function cannot be served: %s", ending(status))
            self._status = place.failure.get("status") or (status if status > 0 else 1)
            self._end()
            return
        if self._watch is not None and not place.ready:
            logger.error("the function cannot be served; it is tried again when its code changes")
            reason = str(place.failure.get("error") or ending(status))
            refuse = functools.partial(refusing.main, self._listener, reason)
            place.pid = self._fork(refuse, self._manager)
            return
        lived = time.monotonic() - place.started
        level = logging.ERROR if status else logging.WARNING
        steady = place.hung or status in (0, STUCK) or lived > STEADY
        place.failures = 0 if steady else place.failures + 1
        first, most = BACKOFF
        pause = min(most, first * 2 ** (place.failures - 1)) if place.failures else 0.0
        place.start_at = time.monotonic() + pause
        logger.log(
            level,
            "worker %d %s after %.1f s; it is replaced %s",
            place.index,
            ending(status),
            lived,
            f"in {pause:g} s" if pause else "at once",
        )

    def _look_for_changes(self) -> None:
        if self._watch is None or self._end_by is not None or not next(self._watch):
            return
        logger.warning("the code has changed; the workers are replaced")
        kill_at = time.monotonic() + self._service.serve.grace + MARGIN
        for place in self._workers:
            if place.pid:
                ask_to_end(place)
                self._retired[place.pid] = kill_at, place.control
                place.pid, place.control = 0, None
            place.start_at, place.failures, place.ready = 0.0, 0, False

    # --- the end ---

    def _act_on_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                if self._end_by is None:
                    logger.warning(
                        "ending: requests in flight have %g s", self._service.serve.grace
                    )
                    self._end()
                else:
                    logger.warning("ended by a second signal")
                    self._status = 128 + number
                    self._end_by = 0.0

    def _end(self) -> None:
        self._end_by = time.monotonic() + self._service.serve.grace + MARGIN
        self._board.state = board.DRAINING
        for place in self._workers:
            place.slot.values[board.STATE] = board.DRAINING
            if place.pid:
                ask_to_end(place)

    def _enforce_end(self) -> None:
        now = time.monotonic()
        for pid in [p for p, (at, _) in self._retired.items() if at < now]:
            kill_group(pid)
        if self._end_by is not None and now > self._end_by:
            if any(w.pid for w in self._workers) and not self._status:
                self._status = 128 + signal.SIGTERM
            self._kill_all()

    def _finished(self) -> bool:
        if self._end_by is None or self._retired:
            return False
        return not any(w.pid for w in self._workers)

    def _kill_all(self) -> None:
        pids = [*self._retired, *(w.pid for w in self._workers if w.pid)]
        for pid in pids:
            kill_group(pid)
        if self._management:
            pids.append(self._management)
            send(self._management, signal.SIGKILL)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self._retired.clear()
        self._management = 0
        for place in self._workers:
            place.pid = 0
