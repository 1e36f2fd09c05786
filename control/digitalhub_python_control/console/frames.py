"""What is in the columns of a stored frame: counts, extremes and a histogram, from the rows at its start.

Only so many rows of a Parquet file are read, a group at a time, so that a frame of any size costs the
same time and memory; how many rows there are in all is in the file's own foot.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_ROWS = 20_000
"""Rows that are looked at."""
_BATCH = 1000
_COLUMNS = 60
_BINS = 20
_TOP = 5
_TEXT = 60
_BYTES = 64 * 1024 * 1024
"""Of what is looked at, in memory: cells may be large."""


@dataclass
class Column:
    """What is known of one column's values, in the rows that were looked at."""

    name: str
    type: str
    count: int = 0
    missing: int = 0
    distinct: int = 0
    low: str = ""
    high: str = ""
    mean: str = ""
    bins: list[int] = field(default_factory=list)
    top: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class Profile:
    """The columns of a frame."""

    rows: int
    """Of the whole frame."""
    looked: int
    columns: list[Column]
    left_out: int
    """Columns beside those."""


def of_parquet(content: BinaryIO, rows: int = _ROWS) -> Profile | None:
    """The profile of a Parquet file; None where it is none, or is broken."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(content, pre_buffer=False, buffer_size=1024 * 1024)
        fields = list(file.schema_arrow)
        names = [one.name for one in fields if not pa.types.is_nested(one.type)][:_COLUMNS]
        if len(set(names)) != len(names) or not names:
            return None
        parts: list[Any] = []
        looked = 0
        for batch in file.iter_batches(batch_size=min(_BATCH, rows), columns=names):
            parts.append(batch.slice(0, rows - looked))
            looked += len(parts[-1])
            if looked >= rows or sum(part.nbytes for part in parts) > _BYTES:
                break
        schema = pa.schema([one for one in fields if one.name in names])
        table = pa.Table.from_batches(parts, parts[0].schema if parts else schema)
        columns = [_column(name, table.column(name)) for name in table.column_names]
        return Profile(file.metadata.num_rows, looked, columns, len(fields) - len(columns))
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None


def _column(name: str, values: Any) -> Column:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    told = Column(name, str(kind), len(values), values.null_count)
    present = values.drop_null()
    if pa.types.is_floating(present.type):
        whole = present.filter(pc.is_finite(present))
        told.missing += len(present) - len(whole)
        present = whole
    if not len(present):
        return told
    counted = pc.value_counts(present) if not pa.types.is_null(present.type) else []
    told.distinct = len(counted)
    if _is_number(present.type):
        # Not by to_numpy, which imports pandas: a second, of a server that needs it for nothing else.
        numbers = np.from_dlpack(present.cast(pa.float64(), safe=False).combine_chunks())
        told.low, told.high = f"{numbers.min():.6g}", f"{numbers.max():.6g}"
        # Divided first, here and below: a sum or a difference of numbers can be more than one can be.
        told.mean = f"{(numbers / len(numbers)).sum():.6g}"
        span = numbers.max() / 4 - numbers.min() / 4
        # Of whole numbers each has a part of its own, where there are few: else some parts would get none.
        parts = int(4 * span) + 1 if pa.types.is_integer(kind) and 4 * span < _BINS else _BINS
        told.bins = np.histogram(numbers / 4, parts if told.distinct > 1 else 1)[0].tolist()
        return told
    if pa.types.is_temporal(present.type):
        ends = pc.min_max(present)
        told.low, told.high = (_short(str(ends[key])) for key in ("min", "max"))
        return told
    tops = Counter({at: one["counts"].as_py() for at, one in enumerate(counted)}).most_common(_TOP)
    told.top = [(_short(_text(counted[at]["values"].as_py())), count) for at, count in tops]
    return told


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
