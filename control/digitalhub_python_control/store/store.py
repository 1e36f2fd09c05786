"""Keeps entities, runs' progress and secrets in the database; every method is one transaction.

Thread-safe. Entities are JSON documents beside the columns that lists filter on. What a run should
become (`target`) is stored before anything acts on it; the reconciler does the acting.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Callable

from sqlalchemy import Connection, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from digitalhub_python_control.store import times
from digitalhub_python_control.store.database import (
    connect,
    details,
    entities,
    secret_values,
    translated,
)
from digitalhub_python_control.store.entities import Entity
from digitalhub_python_control.store.names import plain
from digitalhub_python_control.store.queries import latest, listing, visible
from digitalhub_python_control.store.records import (
    RECORD,
    Key,
    RunRecord,
    columns_of,
    moved,
    record_of,
    same_run,
)
from digitalhub_python_control.store.vault import Vault
from digitalhub_runtime_python.errors import Fault
from digitalhub_runtime_python.states import ENDED, may_move

logger = logging.getLogger(__name__)

_UNSET: Any = object()


__all__ = ["DuplicateError", "RunRecord", "Store"]


class DuplicateError(Exception):
    """An entity of that type and id exists already."""


class Store:
    """The control plane's memory.

    Args:
        database_url: an SQLAlchemy URL of SQLite or PostgreSQL.
        vault: encrypts secrets and signs tokens; without one, no secret can be stored.

    Raises:
        UsageFault, PlatformFault: the database cannot be used.
    """

    def __init__(self, database_url: str, vault: Vault | None = None) -> None:
        self.engine = connect(database_url)
        self._writing = self.engine.execution_options(writes=True)
        self._vault = vault
        # Without a key that is kept, what is signed is good for as long as this process lives.
        self.sign = (vault or Vault(os.urandom(32))).sign
        self.on_change: Callable[[str, str], None] = lambda project, identity: None
        """Called with a run's project and id after it was created, or its target was changed."""

        self.plane: str | None = None
        """This control plane's name, where several share the database: whose the runs are that it moves."""

    @property
    def can_be_shared(self) -> bool:
        """Whether several control planes may use the database at once."""
        return self.engine.dialect.name == "postgresql"

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with translated(), self._writing.begin() as connection:
            yield connection

    # Entities

    def create(self, plural: str, entity: Entity, *, target: str | None = None) -> None:
        """Add an entity.

        Raises:
            DuplicateError: there is one of that type and id in the project.
        """
        columns = {"type": plural, "target": target, "attempt": 0, **columns_of(entity)}
        created = times.parse(entity["metadata"]["created"], "metadata.created")
        try:
            with self.writing() as connection:
                connection.execute(insert(entities).values(created=created, **columns))
                self._tell_others(connection, plural, entity["project"], entity["id"])
        except Fault as exc:
            if isinstance(exc.__cause__, IntegrityError):
                raise DuplicateError(entity["id"]) from exc
            raise
        if plural == "runs":
            self.on_change(entity["project"], entity["id"])

    def get(self, plural: str, project: str, identity: str) -> Entity | None:
        """The entity, or None where there is none to be seen."""
        query = select(entities.c.body).where(
            *visible(plural, project), entities.c.id == plain(identity)
        )
        with self.reading() as connection:
            body = connection.execute(query).scalar()
        return None if body is None else json.loads(body)

    def change(
        self, plural: str, project: str, identity: str, change: Callable[[Entity], Entity]
    ) -> Entity | None:
        """Read, change and write an entity in one transaction; None where there is none."""
        with self.writing() as connection:
            row = connection.execute(
                select(entities.c.seq, entities.c.body)
                .where(*visible(plural, project), entities.c.id == plain(identity))
                .with_for_update()
            ).one_or_none()
            if row is None:
                return None
            entity = change(json.loads(row.body))
            connection.execute(
                update(entities).where(entities.c.seq == row.seq).values(**columns_of(entity))
            )
        return entity

    def page(
        self,
        plural: str,
        project: str | None,
        filters: Mapping[str, str],
        *,
        all_versions: bool = True,
        page: int = 0,
        size: int | None = None,
    ) -> tuple[list[Entity], int]:
        """One page of entities, newest first, and how many there are in all."""
        found = listing(plural, project, filters, all_versions=all_versions)
        newest = (entities.c.created.desc(), entities.c.seq.desc())
        chosen = found.order_by(*newest)
        if size is not None:
            chosen = chosen.limit(size).offset(page * size)
        # Their bodies are read for those of the page alone, and sorted once more: `in` keeps no order.
        rows = select(entities.c.body).where(entities.c.seq.in_(chosen)).order_by(*newest)
        with self.reading() as connection:
            total = connection.execute(select(func.count()).select_from(found.subquery())).scalar_one()  # fmt: skip
            bodies = connection.execute(rows).scalars().all() if total else []
        return [json.loads(body) for body in bodies], total

    def runs_that_name(self, project: str, keys: Sequence[str], most: int = 2000) -> list[Entity]:
        """Of the newest `most` runs those whose document has one of these keys, oldest first."""
        if not keys:
            return []
        newest = listing("runs", project, {}, all_versions=True)
        newest = newest.order_by(entities.c.created.desc(), entities.c.seq.desc()).limit(most)
        named = (entities.c.body.contains(json.dumps(key)[1:-1], autoescape=True) for key in keys)
        rows = select(entities.c.body).where(entities.c.seq.in_(newest), or_(*named))
        with self.reading() as connection:
            bodies = connection.execute(rows.order_by(entities.c.created, entities.c.seq)).scalars()
            return [json.loads(body) for body in bodies]

    def last_change(self, plural: str, project: str) -> str:
        """A text that is another one after entities of a type were added, changed or removed."""
        query = select(func.count(), func.max(entities.c.updated), func.max(entities.c.seq)).where(
            *visible(plural, project)
        )
        with self.reading() as connection:
            return " ".join(str(value) for value in connection.execute(query).one())

    def latest(self, project: str, plurals: Iterable[str]) -> dict[str, list[Entity]]:
        """The latest version of everything of these types in a project, newest first."""
        found = latest([entities.c.project == project, entities.c.type.in_(list(plurals))])
        rows = (
            select(entities.c.type, entities.c.body)
            .where(entities.c.seq.in_(found))
            .order_by(entities.c.created.desc(), entities.c.seq.desc())
        )
        result: dict[str, list[Entity]] = {plural: [] for plural in plurals}
        with self.reading() as connection:
            for row in connection.execute(rows):
                result[row.type].append(json.loads(row.body))
        return result

    def delete(self, plural: str, project: str, identities: Iterable[str]) -> int:
        """Remove entities and what hangs on them (metrics, files' list); how many there were."""
        removed = 0
        with self.writing() as connection:
            for identity in identities:
                removed += connection.execute(
                    delete(entities).where(
                        entities.c.type == plural,
                        entities.c.project == project,
                        entities.c.id == identity,
                    )
                ).rowcount
                connection.execute(
                    delete(details).where(
                        details.c.type == plural,
                        details.c.project == project,
                        details.c.id == identity,
                    )
                )
        return removed

    # Details: metrics and lists of files

    def details(self, plural: str, project: str, identity: str, what: str) -> dict[str, Any]:
        """Name -> value of everything of that sort which was stored for an entity."""
        query = select(details.c.name, details.c.body).where(
            details.c.type == plural,
            details.c.project == project,
            details.c.id == identity,
            details.c.what == what,
        )
        with self.reading() as connection:
            rows = connection.execute(query.order_by(details.c.name)).all()
        return {row.name: json.loads(row.body) for row in rows}

    def set_detail(
        self, plural: str, project: str, identity: str, what: str, name: str, value: Any
    ) -> None:
        """Store one value; it replaces the one of that name."""
        key = {"type": plural, "project": project, "id": identity, "what": what, "name": name}
        same = [details.c[field] == part for field, part in key.items()]
        with self.writing() as connection:
            changed = connection.execute(
                update(details).where(*same).values(body=json.dumps(value))
            ).rowcount
            if not changed:
                connection.execute(insert(details).values(**key, body=json.dumps(value)))

    # Secrets

    def secret_values(self, project: str, names: Iterable[str]) -> dict[str, str]:
        """The values of those secrets that exist, decrypted."""
        wanted = [name for name in names if "\0" not in name]
        query = select(secret_values.c.name, secret_values.c.value).where(
            secret_values.c.project == project, secret_values.c.name.in_(wanted)
        )
        with self.reading() as connection:
            rows = connection.execute(query).all()
        return {row.name: self._open(f"{project}/{row.name}", row.value) for row in rows}

    def set_secret_values(self, project: str, values: Mapping[str, str]) -> None:
        """Store values of secrets, encrypted."""
        assert self._vault is not None, "a store of secrets needs a vault"  # noqa: S101
        sealed = {n: self._vault.seal(f"{project}/{n}", v) for n, v in values.items()}
        with self.writing() as connection:
            for name, value in sealed.items():
                same = (secret_values.c.project == project, secret_values.c.name == name)
                connection.execute(delete(secret_values).where(*same))
                connection.execute(
                    insert(secret_values).values(project=project, name=name, value=value)
                )

    def delete_secret_values(self, project: str, names: Iterable[str] | None = None) -> None:
        """Forget the values of these secrets, or of all of a project."""
        query = delete(secret_values).where(secret_values.c.project == project)
        if names is not None:
            query = query.where(secret_values.c.name.in_(list(names)))
        with self.writing() as connection:
            connection.execute(query)

    def _open(self, place: str, sealed: bytes) -> str:
        assert self._vault is not None, "a store of secrets needs a vault"  # noqa: S101
        return self._vault.open(place, bytes(sealed))

    # Runs, as the reconciler needs them

    def unsettled_runs(self, *, ready: bool = True) -> list[RunRecord]:
        """Every run whose target is not reached, oldest first; without `ready` those that were begun."""
        query = (
            select(*RECORD)
            .where(
                entities.c.type == "runs",
                entities.c.target.is_not(None),
                or_(entities.c.target == "DELETE", entities.c.state.not_in(ENDED)),
            )
            .order_by(entities.c.seq)
        )
        if not ready:
            query = query.where(or_(entities.c.state != "READY", entities.c.target != "RUN"))
        with self.reading() as connection:
            return [record_of(row) for row in connection.execute(query)]

    def ready_runs(self) -> list[Key]:
        """Every run that waits to be begun, oldest first."""
        query = (
            select(entities.c.project, entities.c.id)
            .where(
                entities.c.type == "runs", entities.c.target == "RUN", entities.c.state == "READY"
            )
            .order_by(entities.c.seq)
        )
        with self.reading() as connection:
            return [(row.project, row.id) for row in connection.execute(query)]

    def get_run_record(self, project: str, identity: str) -> RunRecord | None:
        """The run, also one that is being deleted."""
        query = select(*RECORD).where(*same_run(project, identity))
        with self.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else record_of(row)

    def move_run(
        self,
        project: str,
        identity: str,
        state: str,
        *,
        message: str | None = None,
        status: Mapping[str, Any] | None = None,
        handle: Any = _UNSET,
        engine: str | None = _UNSET,
        attempt: int = _UNSET,
        owned: bool = False,
    ) -> RunRecord | None:
        """Move a run to a state, and get it as it then is.

        None where it may not go there, is gone, or is another control plane's: what that one does about
        a run must not be undone by one that was held up.

        Args:
            status: is merged into the run's status; a value None removes the key.
            owned: the run becomes this control plane's, unless it is another one's.
        """
        with self.writing() as connection:
            row = connection.execute(
                select(*RECORD).where(*same_run(project, identity)).with_for_update()
            ).one_or_none()
            if row is None or not may_move(row.state, state):
                return None
            if owned and row.owner not in (None, self.plane):
                return None
            entity = moved(json.loads(row.body), state, message, status)
            owner = self.plane if owned else _UNSET
            given = {"handle": handle, "engine": engine, "attempt": attempt, "owner": owner}
            given = {name: value for name, value in given.items() if value is not _UNSET}
            columns = {**columns_of(entity), **given}
            if columns.get("handle") is not None:
                columns["handle"] = json.dumps(handle)
            connection.execute(update(entities).where(entities.c.seq == row.seq).values(**columns))
        return dataclasses.replace(record_of(row), entity=entity, state=state, **given)

    def set_target(self, project: str, identity: str, target: str | None) -> None:
        """Store what a run should come to; the reconciler sees to it."""
        query = update(entities).where(*same_run(project, identity)).values(target=target)
        with self.writing() as connection:
            connection.execute(query)
            self._tell_others(connection, "runs", project, identity)
        self.on_change(project, identity)

    def _tell_others(
        self, connection: Connection, plural: str, project: str, identity: str
    ) -> None:
        """Tell the other control planes of a run, once the transaction has succeeded."""
        if plural == "runs" and self.can_be_shared:
            message = f"{project}/{identity}/{self.plane}"
            connection.execute(select(func.pg_notify("dhpy_runs", message)))

    def delete_run(self, project: str, identity: str) -> None:
        """Remove a run whose process is gone."""
        self.delete("runs", project, [identity])

    def count_runs(self) -> dict[str, int]:
        """State -> number of runs."""
        query = (
            select(entities.c.state, func.count())
            .where(*visible("runs", None))
            .group_by(entities.c.state)
        )
        with self.reading() as connection:
            rows = connection.execute(query).all()
        return {row[0]: row[1] for row in rows}
