"""What a build will do again and why: this plan beside the last one of the same image."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from digitalhub_python_builder import caches
from digitalhub_python_builder.plan import Plan, tree_digest

_PIN = re.compile(r"^([A-Za-z0-9._-]+)(==\S+| @ \S+)", re.M)


def record(plan: Plan) -> dict[str, Any]:
    """What is kept of a plan; no contents, no secrets."""
    return {
        "steps": [list(step) for step in plan.steps()],
        "pins": {name: text.lstrip("= @") for name, text in _PIN.findall(plan.requirements)},
        "code": {name: tree_digest({name: content}) for name, content in plan.code.items()},
    }


def explain(plan: Plan, last: dict[str, Any] | None) -> list[str]:
    """One line per step: kept, or rebuilt and why; the first change rebuilds all below it."""
    if last is None:
        return ["Nothing is known of an earlier build: every step is built."]
    before: dict[str, str] = dict(last["steps"])
    now = record(plan)
    lines, changed = [], ""
    for name, key in plan.steps():
        if not key and not before.get(name):
            continue
        if changed:
            state = f"rebuilt: it stands below {changed}"
        elif before.get(name) == key:
            state = "kept"
        else:
            changed, state = name, f"rebuilt: {_why(name, key, before.get(name), last, now)}"
        lines.append(f"{name:<15} {state}")
    # One instruction less moves everything below it.
    gone = [name for name in before if name not in dict(plan.steps())]
    return lines + [f"{name:<15} removed" for name in gone]


def _why(name: str, key: str, before: str | None, last: dict[str, Any], now: dict[str, Any]) -> str:
    if name in ("requirements", "code"):
        field = "pins" if name == "requirements" else "code"
        return _difference(last[field], now[field])
    if before is None or not before:
        return "it is new"
    if not key:
        return "it is gone"
    if name.startswith("instruction"):
        return f"it was {before!r}"
    return "it has changed"


def _difference(old: dict[str, str], new: dict[str, str]) -> str:
    versions = all(len(value) < 64 for value in [*old.values(), *new.values()])
    parts = [f"+ {name}" for name in sorted(set(new) - set(old))]
    parts += [f"- {name}" for name in sorted(set(old) - set(new))]
    for name in sorted(set(old) & set(new)):
        if old[name] != new[name]:
            parts.append(f"{name} {old[name]} → {new[name]}" if versions else f"{name} has changed")
    return ", ".join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "") or "it has changed"  # fmt: skip


def load_last(cache: Path, name: str) -> dict[str, Any] | None:
    """What was kept of the last plan for an image."""
    try:
        found: dict[str, Any] = json.loads(_file(cache, name).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found


def keep(cache: Path, name: str, plan: Plan) -> None:
    """Keep what `explain` needs of a plan that was built."""
    caches.keep(_file(cache, name), json.dumps(record(plan)), cache)


def _file(cache: Path, name: str) -> Path:
    return cache / "plans" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
