"""Tables, the engine under them, and what the database's errors mean; no entity is known here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from digitalhub_runtime_python.errors import Fault, PlatformFault, UsageFault

logger = logging.getLogger(__name__)

SCHEMA = "3"
"""Goes up with every change of the tables below."""
_UPGRADES = {
    "1": ("ALTER TABLE entities ADD COLUMN owner VARCHAR(32)",),
    "2": (
        "CREATE INDEX IF NOT EXISTS entities_by_time ON entities (type, project, created, seq, target, state, updated)",
    ),
}
"""What makes each earlier schema the next one; tables that are new are made anyway."""

metadata = MetaData()
# SQLite counts only an INTEGER key up by itself; PostgreSQL's INTEGER ends at 2 billion.
_Serial = BigInteger().with_variant(Integer, "sqlite")
# S3 lists keys by their bytes; PostgreSQL sorts by the locale unless told.
_Bytewise = Text().with_variant(Text(collation="C"), "postgresql")

about = Table(
    "about",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

entities = Table(
    "entities",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),  # breaks ties of `created`
    Column("type", String(32), nullable=False),
    Column("project", String(64), nullable=False),
    Column("id", String(256), nullable=False),
    Column("name", String(256), nullable=False),
    Column("kind", String(128), nullable=False),
    Column("user", String(256), nullable=False),
    Column("state", String(32), nullable=False),
    Column("function", Text),
    Column("workflow", Text),
    Column("task", Text),
    Column("created", BigInteger, nullable=False),  # microseconds since 1970, UTC
    Column("updated", BigInteger, nullable=False),
    # Lower case, for searches; labels each on a line of its own.
    Column("description", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("body", Text, nullable=False),  # the entity's JSON; text, since JSONB refuses NaN
    # Runs only; the reconciler's.
    Column("target", String(16)),
    Column("engine", String(64)),
    Column("handle", Text),
    Column("attempt", Integer, nullable=False, default=0),
    Column("owner", String(32)),  # the control plane that works on it; see planes.py
    UniqueConstraint("type", "project", "id"),
    Index("entities_by_name", "project", "type", "name", "created"),
    Index("entities_by_function", "project", "type", "function"),
    Index("entities_by_target", "target", "state"),
    # Pages are chosen and counted by it alone: the rows themselves are long.
    Index("entities_by_time", "type", "project", "created", "seq", "target", "state", "updated"),
)

planes = Table(
    "planes",  # control planes that share the database
    metadata,
    Column("id", String(32), primary_key=True),
    Column("beat", BigInteger, nullable=False),
)

secret_values = Table(
    "secret_values",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("value", LargeBinary, nullable=False),  # encrypted, see vault.py
)

details = Table(
    "details",  # what belongs to an entity and is read apart from it: metrics, files
    metadata,
    Column("type", String(32), primary_key=True),
    Column("project", String(64), primary_key=True),
    Column("id", String(256), primary_key=True),
    Column("what", String(16), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("body", Text, nullable=False),
)

objects = Table(
    "objects",  # stored files: name and place; the bytes lie in files/ (blobs.py)
    metadata,
    Column("bucket", String(64), primary_key=True),
    Column("key", _Bytewise, primary_key=True),
    Column("blob", String(32), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", String(64), nullable=False),  # md5 of the bytes
    Column("content_type", Text, nullable=False),
    Column("modified", BigInteger, nullable=False),  # microseconds since 1970, UTC
    Column("meta", Text, nullable=False),  # JSON: x-amz-meta-* and the like
)


def connect(url: str) -> Engine:
    """An engine on `url` whose tables exist.

    Raises:
        UsageFault: it is not a URL, or its driver is not installed.
        PlatformFault: the database cannot be opened, is corrupt, or is another program's.
    """
    try:
        parsed = make_url(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        options: dict[str, Any] = {} if is_sqlite else {"pool_pre_ping": True}
        engine = create_engine(parsed, **options)
    except (ArgumentError, ImportError, ValueError) as exc:
        # SQLAlchemy's words about a URL that it cannot read hold the URL, and with it a password.
        is_malformed = not isinstance(exc, (NoSuchModuleError, ImportError))
        why = "it is not well formed" if is_malformed else _first_line(exc)
        raise UsageFault(
            "usage/database-url",
            f"The database's URL cannot be used: {why}.",
            "Use sqlite:///path or postgresql+psycopg://user@host/name"
            " (with the extra `postgres` installed).",
        ) from None
    if is_sqlite:
        _prepare_sqlite(engine)
    with translated(), engine.execution_options(writes=True).begin() as connection:
        if is_sqlite:
            _check_sqlite(connection)
        metadata.create_all(connection)
        _check_schema(connection)
    return engine


@contextmanager
def translated() -> Iterator[None]:
    """Turns the database's errors into faults, so that they become one clear line."""
    try:
        yield
    except Fault:
        raise
    except SQLAlchemyError as exc:
        raise _fault(exc) from exc


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # begin() below starts transactions, not the driver
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.execute("PRAGMA journal_mode=WAL")  # readers never wait for the writer
        cursor.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that first reads and then writes must take the lock at once: SQLite cannot
        # upgrade it while another one writes, and would fail instead of waiting.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_sqlite(connection: Connection) -> None:
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise _corrupt(" ".join(str(found).split()))


def _check_schema(connection: Connection) -> None:
    found = connection.execute(select(about.c.value).where(about.c.name == "schema")).scalar()
    if found is None:
        connection.execute(insert(about).values(name="schema", value=SCHEMA))
        return
    while found in _UPGRADES:
        for statement in _UPGRADES[found]:
            connection.exec_driver_sql(statement)
        found = str(int(found) + 1)
        connection.execute(update(about).where(about.c.name == "schema").values(value=found))
        logger.info("the database has schema %s now", found)
    if found != SCHEMA:
        raise PlatformFault(
            "control/database-version",
            f"The database has schema {found}; this version works with {SCHEMA}.",
            "Use the version that made it, or choose another DHPY_HOME or DHPY_DATABASE_URL.",
        )


def _corrupt(detail: str) -> PlatformFault:
    return PlatformFault(
        "control/database-corrupt",
        f"The database is damaged: {detail}.",
        "Restore dhpy.db (with its -wal and -shm files) from a copy, or move it away to start empty.",
    )


# What the drivers say -> code, message, hint. The first row that fits counts.
_MEANINGS = (
    (
        ("database or disk is full", "no space left"),
        "control/disk-full",
        "The disk is full; nothing was changed.",
        "Free some space on the disk of DHPY_HOME.",
    ),
    (
        ("readonly database", "read-only"),
        "control/read-only",
        "The database cannot be written.",
        "Make DHPY_HOME writable, or choose another one.",
    ),
    (
        ("unable to open database file",),
        "control/database-unreachable",
        "The database file cannot be opened.",
        "Check that DHPY_HOME exists and may be written.",
    ),
)


def _fault(exc: SQLAlchemyError) -> PlatformFault:
    detail = _first_line(exc)
    lowered = detail.lower()
    if "not a database" in lowered or "malformed" in lowered:
        return _corrupt(detail)
    for needles, code, message, hint in _MEANINGS:
        if any(needle in lowered for needle in needles):
            return PlatformFault(code, message, hint)
    return PlatformFault(
        "control/database-unreachable",
        f"The database does not answer as it should: {detail}.",
        "Check DHPY_DATABASE_URL, and the server's log.",
    )


def _first_line(exc: BaseException) -> str:
    # The driver's own words: SQLAlchemy's would add the statement, and with it users' values.
    cause = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
    lines = str(cause).strip().splitlines()
    return (lines[0] if lines else type(cause).__name__).rstrip(".")
