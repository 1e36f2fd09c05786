"""Several control planes on one PostgreSQL: which of them are alive, whose runs are whose, and who tells whom.

A control plane counts its beat up; one whose beat another has seen stand still for some seconds is gone,
and its runs are taken over. Nobody's clock matters: each compares only what it saw with its own patience.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Callable

from sqlalchemy import delete, insert, or_, select, update

from digitalhub_python_control.store.database import entities, planes
from digitalhub_python_control.store.store import Store
from digitalhub_runtime_python.errors import Fault
from digitalhub_runtime_python.states import ENDED

logger = logging.getLogger(__name__)

BEAT = 1.0
"""Seconds between two beats."""
GONE = 5.0
"""Seconds without a beat after which a control plane's runs are taken over."""


def identity(home: Path) -> str:
    """The name of the control plane in a home: the same after a restart, which finds its own runs at once."""
    place = home / "plane"
    if not place.exists():
        new = place.with_name(f"plane.{os.getpid()}")
        new.write_text(secrets.token_hex(8), "ascii")
        new.replace(place)
    return place.read_text("ascii").strip()


class Planes:
    """This control plane among those that share its database.

    Args:
        store: on PostgreSQL; from here on it stores whose a run is.
        me: this control plane's name.
        tell: is called with the project and id of a run that another one has changed.
        look: is called when runs of others may have become ours, or a change may have been missed.
    """

    def __init__(
        self,
        store: Store,
        me: str,
        tell: Callable[[str, str], None],
        look: Callable[[], None],
    ) -> None:
        self._store = store
        self._me = me
        self._tell = tell
        self._look = look
        self._closing = threading.Event()
        self._seen: dict[str, tuple[int, float]] = {}
        self._threads = [
            threading.Thread(target=work, name=f"planes {work.__name__}", daemon=True)
            for work in (self._beat, self._listen)
        ]
        store.plane = me

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop beating: the others take our runs over unless we are soon back."""
        self._closing.set()
        for thread in self._threads:
            thread.join(5)

    def _beat(self) -> None:
        last = float("-inf")
        while not self._closing.is_set():
            if time.monotonic() - last > GONE / 2:
                self._seen.clear()  # it was us who could not look; the others get their time again
            try:
                for other in gone(self._seen, beat(self._store, self._me), time.monotonic()):
                    if other != self._me:
                        logger.warning("the control plane %s is gone; taking its runs over", other)
                        take_over(self._store, other, self._me)
                        self._look()
                last = time.monotonic()
            except Fault as fault:
                logger.warning("no beat: %s", fault)
            self._closing.wait(BEAT)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                with self._store.engine.connect() as connection:
                    driver = connection.connection.driver_connection
                    assert driver is not None  # noqa: S101 - a connection that is open has one
                    connection.detach()  # it is never given back: whoever had it next would listen too
                    driver.autocommit = True
                    driver.execute("LISTEN dhpy_runs")
                    self._look()  # what was said while nobody listened
                    while not self._closing.is_set():
                        for note in driver.notifies(timeout=1.0):
                            project, run, who = note.payload.split("/")
                            if who != self._me:
                                self._tell(project, run)
            except Exception as exc:  # noqa: BLE001 - the driver's own; the database comes back
                logger.warning("cannot hear the other control planes: %s", str(exc).split("\n")[0])
                self._closing.wait(1.0)


def beat(store: Store, me: str) -> dict[str, int]:
    """Count this control plane's beat up; every one's beat by name."""
    with store.writing() as connection:
        mine = update(planes).where(planes.c.id == me).values(beat=planes.c.beat + 1)
        if not connection.execute(mine).rowcount:
            connection.execute(insert(planes).values(id=me, beat=1))
        return {row.id: row.beat for row in connection.execute(select(planes))}


def gone(seen: dict[str, tuple[int, float]], beats: Mapping[str, int], now: float) -> list[str]:
    """Whose beat has stood still for too long; `seen` is brought up to date."""
    for name in seen.keys() - beats.keys():
        del seen[name]
    for name, count in beats.items():
        if seen.get(name, (None, 0))[0] != count:
            seen[name] = (count, now)
    return [name for name, (_, since) in seen.items() if now - since > GONE]


def take_over(store: Store, other: str, me: str) -> int:
    """Make the unsettled runs of another control plane ours; how many there were."""
    unsettled = or_(entities.c.target == "DELETE", entities.c.state.not_in(ENDED))
    query = (
        update(entities)
        .where(entities.c.type == "runs", entities.c.owner == other, unsettled)
        .values(owner=me)
    )
    with store.writing() as connection:
        taken: int = connection.execute(query).rowcount
        connection.execute(delete(planes).where(planes.c.id == other))
    return taken
