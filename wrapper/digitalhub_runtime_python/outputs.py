"""Maps what a function returned to results and stored outputs: docs/reference/outputs.md is this file's table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from digitalhub_runtime_python import formats, tables
from digitalhub_runtime_python.decorator import OutputDeclaration
from digitalhub_runtime_python.error_report import text_of
from digitalhub_runtime_python.errors import Fault, OutputFault
from digitalhub_runtime_python.spec import RunSpec

logger = logging.getLogger(__name__)

RESULT_LIMIT = 256 * 1024
"""Bytes of JSON that a result may have: the status is read with every list of runs."""
RESULTS_LIMIT = 512 * 1024
"""Bytes of all results of a run: a proxy before the platform may take no more than a megabyte."""
SMALL = 1024
"""Bytes of a result that is never stored as a file."""

ENTITY_TYPES = {
    "artifact": "artifact",
    "dataitem": "dataitem",
    "table": "dataitem",
    "croissant": "dataitem",
    "iceberg": "dataitem",
    "model": "model",
    "mlflow": "model",
    "sklearn": "model",
    "huggingface": "model",
}
"""Kind of a declared output -> type of the entity that it becomes."""


@dataclass(frozen=True)
class Output:
    """A returned value as a file or folder on disk, ready to be stored as an entity."""

    name: str
    entity_type: str
    """`artifact`, `dataitem` or `model`: the singular of the API's plural."""
    kind: str
    """The entity's kind: `artifact`, `table`, `model`, `mlflow`, …"""
    path: Path
    """A file or a folder; it belongs to the run's workspace and goes with it."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """More of the entity's spec: a table's `schema`, the declaration's `spec_kwargs`."""
    status: Mapping[str, Any] = field(default_factory=dict)
    """More of the entity's status: a table's `preview`."""


@dataclass
class Collected:
    """What became of the returned value."""

    results: dict[str, Any] = field(default_factory=dict)
    """Output name -> JSON value."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Output name -> key of the stored entity."""
    problems: list[Fault] = field(default_factory=list)
    """One for each output that could not be stored."""
    size: int = 0
    """Bytes of the results' JSON."""

    def takes(self, size: int) -> bool:
        """Whether a value of so many bytes of JSON is a result, and no file."""
        fits = size <= RESULT_LIMIT and self.size + size <= RESULTS_LIMIT
        return fits or size <= SMALL

    def raise_for_problems(self) -> None:
        """Raise what failed, after everything else has been stored."""
        if len(self.problems) == 1:
            raise self.problems[0]
        if self.problems:
            raise OutputFault(
                "outputs/not-stored",
                f"{len(self.problems)} outputs could not be stored: "
                + " ".join(p.message for p in self.problems),
                "The others were stored.",
            )


def collect(
    value: Any,
    declared: Sequence[OutputDeclaration],
    run: RunSpec,
    store: Callable[[RunSpec, Output], str],
    folder: Path,
) -> Collected:
    """Turn a function's value into results and stored entities.

    Args:
        value: what the function returned; a tuple is several outputs, a list is one unless as many
            names (two or more) as elements are declared.
        declared: what `@handler` recorded.
        run: the run that produced it.
        store: stores one Output and returns its key, a Hub's `store_output`.
        folder: where files are written; the caller's, and the caller's to remove.
    """
    collected = Collected()
    stored = []
    for index, (declaration, item) in enumerate(_named(value, declared)):
        try:
            _collect_one(collected, declaration, item, run, store, folder / str(index))
        except Exception as exc:  # noqa: BLE001 - one output must not lose the others
            collected.problems.append(_problem(declaration["name"], item, exc))
        else:
            stored.append(item)
    for (
        item
    ) in stored:  # not before: a temporary file goes when it is closed, and may be two outputs
        formats.release(item)
    return collected


def _collect_one(
    collected: Collected,
    declaration: Mapping[str, Any],
    item: Any,
    run: RunSpec,
    store: Callable[[RunSpec, Output], str],
    place: Path,
) -> None:
    name = declaration["name"]
    if _is_entity(item):
        collected.outputs[name] = _save_entity(item, run)
        return
    item = formats.listed(item)
    form = formats.json_form(item) if "kind" not in declaration else None
    if form is not None and collected.takes(len(form.text)) and not form.is_deep:
        collected.results[name] = form.value
        collected.size += len(form.text)
        return
    place.mkdir(parents=True, exist_ok=True)
    collected.outputs[name] = store(run, _write(declaration, item, place, form))


def _problem(name: str, item: Any, exc: Exception) -> OutputFault:
    if isinstance(exc, OutputFault):
        return exc
    why = exc.message if isinstance(exc, Fault) else f"{type(exc).__name__}: {text_of(exc)}"
    problem = OutputFault(
        "outputs/not-stored",
        f"Output {name!r} ({formats.class_name(item)}) could not be stored: {why}",
        exc.hint
        if isinstance(exc, Fault)
        else "Return a type that `dhpy help reference/outputs` names, or store it with project.log_artifact().",
    )
    problem.__cause__ = exc
    return problem


def _named(value: Any, declared: Sequence[OutputDeclaration]) -> list[tuple[dict[str, Any], Any]]:
    """Each returned value with its declaration."""
    entries = [dict(d) if isinstance(d, dict) else {"name": d} for d in declared]
    if isinstance(value, tuple):
        values = list(value)
        if not entries:  # a named tuple brings its own names
            entries = [{"name": n} for n in getattr(value, "_fields", ())]
    elif isinstance(value, list) and len(entries) == len(value) >= 2:
        values = value
    elif value is None and not entries:
        values = []
    else:
        values = [value]
    if entries and len(entries) != len(values):
        logger.warning(
            "%d outputs are declared and %d values were returned: %s",
            len(entries),
            len(values),
            "the values without a name get one"
            if len(values) > len(entries)
            else "the names without a value are left out",
        )
    taken = {e["name"] for e in entries}
    for index in range(len(entries), len(values)):
        name, n = f"output_{index}", index
        while name in taken:
            n += 1
            name = f"output_{n}"
        taken.add(name)
        entries.append({"name": name})
    return list(zip(entries, values))


def _is_entity(value: Any) -> bool:
    # By name: the SDK is the user's import, not ours.
    return any(c.__module__.startswith("digitalhub.entities.") for c in type(value).__mro__)


def _save_entity(value: Any, run: RunSpec) -> str:
    """Save an SDK entity and relate it to the run; its key."""
    relationships = getattr(value.metadata, "relationships", None) or []
    if not any(r.get("type") == "produced_by" and r.get("dest") == run.key for r in relationships):
        value.add_relationship(relation="produced_by", dest=run.key)
    try:
        if hasattr(type(value), "update"):  # SDK 0.16
            value.update()
        else:
            value.save(update=True)
    except Exception as exc:
        if type(exc).__name__ != "EntityNotExistsError":
            raise
        value.save()
    return str(value.key)


def _write(
    declaration: Mapping[str, Any], value: Any, place: Path, form: formats.JsonForm | None
) -> Output:
    """Write a value below `place` in the format that fits its type and the declared kind."""
    name = declaration["name"]
    kind = declaration.get("kind")
    if kind is not None and kind not in ENTITY_TYPES:
        raise OutputFault(
            "outputs/kind",
            f"Output {name!r} asks for kind {kind!r}, which is not known.",
            f"Use one of {', '.join(ENTITY_TYPES)}.",
        )
    stem = formats.file_name(name)
    natural, path = formats.write(value, place / stem, kind, form)
    kind = kind or natural
    spec, status = tables.describe_table(path) if kind == "table" else ({}, {})
    return Output(
        name=stem,
        entity_type=ENTITY_TYPES[kind],
        kind=kind,
        path=path,
        spec={**spec, **(declaration.get("spec_kwargs") or {})},
        status=status,
    )
