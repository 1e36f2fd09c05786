"""The workers' numbers in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from digitalhub_runtime_python.serve import board

_GAUGES = (
    ("dhpy_worker_up", "Whether the worker takes requests.", None),
    ("dhpy_worker_resident_bytes", "Resident memory of the worker.", board.RSS),
    ("dhpy_worker_connections", "Open connections.", board.CONNECTIONS),
    ("dhpy_worker_requests_in_flight", "Requests that have no answer yet.", board.IN_FLIGHT),
    ("dhpy_worker_requests_waiting", "Requests that wait for the handler.", board.WAITING),
)


def render(the_board: board.Board) -> str:
    """All metrics; counters go on where a worker was replaced."""
    slots = list(enumerate(the_board.slots))
    lines: list[str] = []
    for name, text, place in _GAUGES:
        lines += _head(name, text, "gauge")
        for index, slot in slots:
            up = float(slot.takes_requests())
            value = up if place is None else slot.values[place] * (1.0 if up else 0.0)
            lines.append(f'{name}{{worker="{index}"}} {value:.17g}')
    lines += _head("dhpy_worker_starts_total", "Times the worker was started.", "counter")
    for index, slot in slots:
        lines.append(
            f'dhpy_worker_starts_total{{worker="{index}"}} {slot.values[board.STARTS]:.17g}'
        )
    lines += _head("dhpy_requests_total", "Answered requests.", "counter")
    for index, slot in slots:
        for status in range(100, 600):
            if count := slot.values[board.STATUS + status - 100]:
                labels = f'worker="{index}",status="{status}"'
                lines.append(f"dhpy_requests_total{{{labels}}} {count:.17g}")
    name = "dhpy_request_duration_seconds"
    lines += _head(name, "From the head of a request to the last byte of its answer.", "histogram")
    for index, slot in slots:
        lines += _histogram(name, index, slot.values)
    return "\n".join(lines) + "\n"


def _histogram(name: str, index: int, values: memoryview[float]) -> Iterator[str]:
    total = 0.0
    bounds: Iterable[object] = (*board.BUCKETS, "+Inf")
    for i, bound in enumerate(bounds):
        total += values[board.BUCKET + i]
        yield f'{name}_bucket{{worker="{index}",le="{bound}"}} {total:.17g}'
    yield f'{name}_sum{{worker="{index}"}} {values[board.DURATION]:.17g}'
    yield f'{name}_count{{worker="{index}"}} {total:.17g}'


def _head(name: str, text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
