"""Nuclio's logger over the processor's socket: same names, same records, without logging's cost."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

import msgspec
import nuclio_sdk

from digitalhub_runtime_python.calls.encoding import has_nonfinite, spelled
from digitalhub_runtime_python.nuclio.wire import Outbox

_LEVELS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "critical",
}


class SocketLogger(nuclio_sdk.Logger):  # type: ignore[misc]
    """`context.logger`: every record goes to the processor, debug too, as the reference has it."""

    def __init__(self, outbox: Outbox, worker_id: str) -> None:
        super().__init__(logging.DEBUG, "digitalhub.nuclio")
        self._logger.propagate = False
        self._outbox = outbox
        self._own_handler = False
        self.bind(worker_id=worker_id)

    def set_handler(self, handler_name: str, file: Any, formatter: Any) -> None:
        """A handler of the user's takes the place of the socket, as it does with Nuclio's."""
        self._own_handler = True
        super().set_handler(handler_name, file, formatter)

    def _update_bound_vars_and_log(
        self, level: int, message: Any, *args: Any, **kw_args: Any
    ) -> None:
        if self._own_handler:
            super()._update_bound_vars_and_log(level, message, *args, **kw_args)
            return
        kw_args.update(self._bound_variables)
        text = _text(message)
        if args:
            try:
                text = text % args
            except Exception:  # noqa: BLE001 - a bad format, or a value's own: what is logged is not lost
                text = f"{text} ({', '.join(map(_shown, args))})"
        self._outbox.hold(log_packet(level, text, kw_args), urgent=level >= logging.ERROR)


def log_packet(level: int, message: str, more: dict[str, Any]) -> bytes:
    """One log record as a line."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    record = {
        "datetime": f"{stamp},{int(now % 1 * 1000):03d}",
        "level": _LEVELS.get(level, "info"),
        "message": message,
        "with": more,
    }
    return b"l%s\n" % _encode(record)


def _encode(record: dict[str, Any]) -> bytes:
    try:
        raw = _pack(record)
        if b"null" in raw and has_nonfinite(record["with"]):
            plain = msgspec.to_builtins(record["with"], str_keys=True, enc_hook=_shown)
            raw = _pack({**record, "with": spelled(plain)})
        return raw
    except Exception:  # noqa: BLE001 - also what a value's own methods raise
        # A key that is not text, a loop, a text that is not Unicode: what is logged is not lost.
        text = record["message"].encode("utf-8", "replace").decode()
        more = {
            _text(key): _shown(value).encode("ascii", "backslashreplace").decode()
            for key, value in record["with"].items()
        }
        return _pack({**record, "message": text, "with": more})


def _shown(value: Any) -> str:
    """What JSON lacks, as Nuclio's logger shows it; a value that cannot show itself fails no request."""
    with contextlib.suppress(Exception):
        shown = getattr(value, "__log__", None)
        return str(shown()) if shown is not None else repr(value)
    with contextlib.suppress(Exception):
        return repr(value)
    return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as exc:  # noqa: BLE001 - the value's own
        return f"Unable to serialize object: {exc}"


_pack = msgspec.json.Encoder(enc_hook=_shown).encode


def connect(outbox: Outbox, worker_id: str) -> SocketLogger:
    """The context's logger; our own modules' records go the same way."""
    own = logging.getLogger("digitalhub_runtime_python")
    own.addHandler(LoggingHandler(outbox, worker_id))
    own.setLevel(logging.INFO)
    own.propagate = False
    return SocketLogger(outbox, worker_id)


class LoggingHandler(logging.Handler):
    """Sends our own modules' records, from Python's logging, the same way."""

    def __init__(self, outbox: Outbox, worker_id: str) -> None:
        super().__init__(logging.INFO)
        self._outbox = outbox
        self._more = {"worker_id": worker_id}

    def emit(self, record: logging.LogRecord) -> None:
        try:
            packet = log_packet(record.levelno, self.format(record), dict(self._more))
            self._outbox.hold(packet, urgent=record.levelno >= logging.ERROR)
        except Exception:  # noqa: BLE001 - logging's own rule: a record that cannot be written never raises
            self.handleError(record)
