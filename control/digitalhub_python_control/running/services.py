"""What a service's run has that a job's has not: an address while it is up, and a restart when it dies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

RESTART_PAUSE = (0.5, 30.0)
"""Seconds before a restart: the first, doubled each time, and the longest."""
STEADY = 60.0
"""Seconds of life after which a crash counts as a first one again."""
CRASHES = 8
"""Restarts in a row without a steady minute between them, after which a service is given up."""


def is_service(entity: Mapping[str, Any]) -> bool:
    return str(entity.get("kind", "")).startswith("python+serve")


def service_status(ready: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """`status.service` for a service that answers at `ready["url"]`, as the SDK and Core write it.

    Args:
        ready: what the service wrote when it answered: `url`, `management_url`; in `status`, what its
            place knows better.
        spec: the run's spec.
    """
    parts = urlsplit(str(ready["url"]))
    name = str(spec.get("service_name") or spec.get("function") or "").rpartition("/")[2]
    return {
        # Without a scheme: SDK 0.14's own client puts http:// before it.
        "url": parts.netloc,
        "urls": [parts.netloc],
        "name": name.partition(":")[0],
        "namespace": "local",
        "type": str(spec.get("service_type") or "NodePort"),
        "ip": parts.hostname,
        "ports": [{"port": parts.port, "targetPort": parts.port, "protocol": "TCP"}],
        "management_url": ready.get("management_url"),
        **(ready.get("status") or {}),
    }


def restart_handle(handle: Mapping[str, Any], was_up: bool) -> dict[str, Any] | None:
    """The handle of the next attempt of a service that ended by itself; None: it is given up.

    One that never answered is not tried again: code that cannot be fetched or imported today cannot be
    in a minute.
    """
    crashes = 0 if time.time() - handle.get("began", 0) > STEADY else handle.get("crashes", 0)
    if crashes >= CRASHES or not (was_up or crashes):
        return None
    first, longest = RESTART_PAUSE
    return {
        **pausing(min(longest, first * 2**crashes), time.time()),
        "crashes": crashes + 1,
        **{key: handle[key] for key in ("home", "unreached") if key in handle},
    }


def pausing(seconds: float, now: float) -> dict[str, float]:
    """The handle of a run that is not to be started before that time has passed."""
    return {"not_before": now + seconds, "pause": seconds}


def pause_left(handle: Mapping[str, Any], now: float) -> float:
    """Seconds of a pause that are left: never more than it had, wherever the clock was set meanwhile."""
    return float(min(handle.get("not_before", 0) - now, handle.get("pause", RESTART_PAUSE[1])))
