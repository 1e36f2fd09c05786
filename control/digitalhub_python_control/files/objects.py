"""The index of stored files: bucket and key -> which bytes, how many, since when."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from sqlalchemy import ColumnElement, and_, delete, insert, select

from digitalhub_python_control.files.blobs import Blobs, Writer
from digitalhub_python_control.store import times
from digitalhub_python_control.store.database import objects
from digitalhub_python_control.store.store import Store

_BATCH = 1000


@dataclass(frozen=True)
class StoredObject:
    """One stored file."""

    bucket: str
    key: str
    blob: str
    size: int
    etag: str
    content_type: str
    modified: int
    """Microseconds since 1970, UTC."""
    meta: dict[str, str] = field(default_factory=dict)
    """Headers that are answered as they came: x-amz-meta-*, Content-Encoding, …"""


@dataclass(frozen=True)
class Condition:
    """`If-Match` and `If-None-Match` of a write: etags without quotes, or `*`."""

    match: str | None = None
    none_match: str | None = None

    def holds(self, current: StoredObject | None) -> bool:
        if self.match is not None and not _is(self.match, current):
            return False
        return self.none_match is None or not _is(self.none_match, current)


class ConditionError(Exception):
    """The object is not what the writer expected it to be."""


@dataclass(frozen=True)
class Listing:
    """One page of a bucket's content."""

    objects: list[StoredObject]
    prefixes: list[str]
    next_token: str | None


class Objects:
    """Stored files: the index in the database, the bytes in `blobs`."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self.blobs = blobs

    def get(self, bucket: str, key: str) -> StoredObject | None:
        with self._store.reading() as connection:
            row = connection.execute(select(objects).where(*_same(bucket, key))).one_or_none()
        return None if row is None else _stored(row._mapping)

    def open(self, bucket: str, key: str) -> tuple[StoredObject, BinaryIO] | None:
        """A stored file and its bytes; looks twice, since a writer may replace both in between.

        Raises:
            FileNotFoundError: the bytes are gone from the disk.
        """
        for _ in range(10):
            stored = self.get(bucket, key)
            if stored is None:
                return None
            try:
                return stored, self.blobs.open(stored.blob)
            except FileNotFoundError:
                continue
        raise FileNotFoundError(f"The bytes of {key!r} are gone from the disk.")

    def put(
        self,
        bucket: str,
        key: str,
        writer: Writer,
        content_type: str,
        meta: dict[str, str],
        condition: Condition,
    ) -> StoredObject:
        """Store what was written under a key; readers see the old bytes or the new, never half.

        Raises:
            ConditionError: the condition does not hold; nothing has changed.
        """
        try:
            blob = self.blobs.keep(writer)
        except BaseException:
            writer.discard()
            raise
        stored = StoredObject(
            bucket, key, blob, writer.size, writer.etag, content_type, times.now(), meta
        )
        return self._enter(stored, condition)

    def copy(
        self, source: StoredObject, bucket: str, key: str, replaced: StoredObject | None = None
    ) -> StoredObject:
        """The same bytes under another key, with the headers of `replaced` where it is given."""
        described = replaced or source
        blob = self.blobs.duplicate(source.blob)
        stored = StoredObject(
            bucket,
            key,
            blob,
            source.size,
            source.etag,
            described.content_type,
            times.now(),
            described.meta,
        )
        return self._enter(stored, Condition())

    def delete(self, bucket: str, key: str) -> None:
        """Remove a file; no error where there is none."""
        with self._store.writing() as connection:
            blob = connection.execute(
                select(objects.c.blob).where(*_same(bucket, key)).with_for_update()
            ).scalar()
            connection.execute(delete(objects).where(*_same(bucket, key)))
        if blob is not None:
            self.blobs.remove(blob)

    def delete_below(self, bucket: str, prefix: str) -> None:
        """Remove every file whose key starts with `prefix`."""
        for stored in list(self._walk(bucket, prefix, _from(prefix))):
            self.delete(bucket, stored.key)

    def buckets(self) -> list[str]:
        query = select(objects.c.bucket).distinct().order_by(objects.c.bucket)
        with self._store.reading() as connection:
            return list(connection.execute(query).scalars())

    def listing(
        self, bucket: str, prefix: str, delimiter: str, size: int, token: str, start_after: str
    ) -> Listing:
        """One page of keys in the order of their bytes; keys that share a prefix up to the
        delimiter count as one.

        Raises:
            ValueError: the token is not one of ours.
        """
        start = _from(prefix)
        if token or start_after:
            start = and_(start, _read_token(token) if token else _after(start_after))
        found: list[StoredObject] = []
        prefixes: list[str] = []
        last = ""
        while True:
            skipped = None
            for stored in self._walk(bucket, prefix, start):
                if len(found) + len(prefixes) >= size:
                    return Listing(found, prefixes, last)
                end = stored.key.find(delimiter, len(prefix)) if delimiter else -1
                if end < 0:
                    found.append(stored)
                    last = _token(">", stored.key)
                    continue
                common = stored.key[: end + len(delimiter)]
                prefixes.append(common)
                skipped = _following(common)
                last = _token("=", skipped)
                break
            if skipped is None:
                return Listing(found, prefixes, None)
            start = objects.c.key >= skipped

    def sweep(self, started: float) -> int:
        """Remove bytes that no key leads to, left by a crash; how many files that were."""
        removed = 0
        with self._store.reading() as connection:
            known = set(connection.execute(select(objects.c.blob)).scalars())
        for blob in self.blobs.sweep(started):
            if blob not in known:
                self.blobs.remove(blob)
                removed += 1
        return removed

    def _enter(self, stored: StoredObject, condition: Condition) -> StoredObject:
        same = _same(stored.bucket, stored.key)
        values = {**vars(stored), "meta": json.dumps(stored.meta)}
        try:
            with self._store.writing() as connection:
                row = connection.execute(
                    select(objects).where(*same).with_for_update()
                ).one_or_none()
                old = None if row is None else _stored(row._mapping)
                if not condition.holds(old):
                    raise ConditionError
                connection.execute(delete(objects).where(*same))
                connection.execute(insert(objects).values(**values))
        except BaseException:
            self.blobs.remove(stored.blob)
            raise
        if old is not None:
            self.blobs.remove(old.blob)
        return stored

    def _walk(self, bucket: str, prefix: str, start: ColumnElement[bool]) -> Iterator[StoredObject]:
        conditions = [objects.c.bucket == bucket]
        if prefix and (end := _following(prefix)):
            conditions.append(objects.c.key < end)
        while True:
            query = select(objects).where(*conditions, start).order_by(objects.c.key).limit(_BATCH)
            with self._store.reading() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                yield _stored(row._mapping)
            if len(rows) < _BATCH:
                return
            start = _after(rows[-1].key)


def _same(bucket: str, key: str) -> tuple[ColumnElement[bool], ...]:
    return objects.c.bucket == bucket, objects.c.key == key


def _after(key: str) -> ColumnElement[bool]:
    return objects.c.key > key


def _from(key: str) -> ColumnElement[bool]:
    return objects.c.key >= key


def _following(prefix: str) -> str:
    """The first key after all that start with `prefix`; empty where there is none.

    UTF-8 sorts as its code points do, so that is the prefix with its last character plus one.
    """
    prefix = prefix.rstrip("\U0010ffff")
    if not prefix:
        return ""
    successor = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if 0xD800 <= successor <= 0xDFFF else successor)


def _token(how: str, key: str) -> str:
    return base64.urlsafe_b64encode((how + key).encode()).decode()


def _read_token(token: str) -> ColumnElement[bool]:
    try:
        text = base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, UnicodeError) as exc:
        raise ValueError("not a continuation token") from exc
    if text[:1] not in (">", "=") or "\0" in text:
        raise ValueError("not a continuation token")
    return _after(text[1:]) if text[0] == ">" else _from(text[1:])


def _is(expected: str, current: StoredObject | None) -> bool:
    return current is not None and expected in ("*", current.etag)


def _stored(row: object) -> StoredObject:
    values = dict(row)  # type: ignore[call-overload]
    return StoredObject(**{**values, "meta": json.loads(values["meta"])})
