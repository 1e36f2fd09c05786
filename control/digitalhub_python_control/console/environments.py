"""The page of images and environments: what was made for functions, how large it is, who uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from digitalhub_python_builder import environments, kept_environments
from digitalhub_python_control import shown
from digitalhub_python_control.api import resources
from digitalhub_python_control.api.web import Call, Refusal
from digitalhub_python_control.console import gate
from digitalhub_python_control.console.web import Page, redirect
from digitalhub_python_control.store import times, usage
from digitalhub_python_control.store.entities import Entity

_BUILDS = 100
_USERS = 5
"""Functions that are named beside an environment; of others the number is told."""


def page(call: Call) -> Page:
    """Every environment of this machine, and the images that were built for this project."""
    resources.check_project(call)
    users = usage.of_environments(call.store)
    kept = kept_environments.listing(call.settings.cache)
    days = call.settings.environment_days
    unused = environments.prune(call.settings.cache, days, _in_use(call), remove=False)
    rows = [_row(one, users.get(str(one.python), usage.Use())) for one in kept]
    return Page(
        "environments.html",
        {
            "rows": rows,
            "total": sum(one.size or 0 for one in kept),
            "days": days,
            "unused": len([folder for folder in unused if folder.parent.name == "environments"]),
            "images": _images(call),
        },
    )


def prune(call: Call) -> Response:
    """Remove the environments that no run has used for DHPY_ENVIRONMENT_DAYS; one that is in use stays."""
    resources.check_project(call)
    if (call.body.get("do") or [""])[0] != "prune":
        raise Refusal(400, "There is no such action.")
    environments.prune(call.settings.cache, call.settings.environment_days, _in_use(call))
    return redirect(f"{gate.HOME}p/{quote(call.project, safe='')}/environments")


def _in_use(call: Call) -> list[Path]:
    handles = [run.handle for run in call.store.unsettled_runs() if isinstance(run.handle, dict)]
    return [Path(h[key]) for h in handles for key in ("python", "runtime") if h.get(key)]


def _row(one: kept_environments.Kept, use: usage.Use) -> dict[str, Any]:
    named = [
        (reference.rpartition("/")[2].partition(":")[0] or "run", f"{gate.HOME}p/{quote(project, safe='')}/runs/{quote(identity, safe='')}")
        for (project, reference), identity in use.functions.items()
    ]  # fmt: skip
    return {
        "name": one.folder.name.partition("-")[2][:12],
        "python": one.python_version,
        "requirements": one.requirements,
        "bytes": one.size,
        "used": times.text(int(one.used * 1_000_000)),
        "runs": use.runs,
        "functions": list(dict(named).items())[:_USERS],
        "others": max(0, len(dict(named)) - _USERS),
    }


def _images(call: Call) -> list[dict[str, Any]]:
    """The images of the last builds, newest first, and which function's versions use them now."""
    builds, _ = call.store.page("runs", call.project, {"action": "build", "state": "COMPLETED"}, size=_BUILDS)  # fmt: skip
    functions, _ = call.store.page("functions", call.project, {}, all_versions=False, size=1000)
    users: dict[str, list[Entity]] = {}
    for function in functions:
        users.setdefault(str(function["spec"].get("image") or ""), []).append(function)
    found: dict[str, dict[str, Any]] = {}
    before: dict[str, dict[str, Any]] = {}
    for run in builds[::-1]:
        build = run["status"].get("build")
        image = build.get("image") if isinstance(build, dict) else None
        if not isinstance(image, str):
            continue
        name = shown.function_of(run)
        reason = _reason(before.get(name), run)
        before[name] = run
        found.pop(image, None)
        found[image] = {"image": image, "run": run, "reason": reason, "users": users.pop(image, [])}
    named = [{"image": i, "run": None, "reason": "", "users": u} for i, u in users.items() if i]
    return [*list(found.values())[::-1], *named]


def _reason(old: Entity | None, new: Entity) -> str:
    """Why an image was built again: what differs between the two builds."""
    if old is None:
        return "first build"
    before, after = old["status"]["build"], new["status"]["build"]
    parts = []
    for title, field in (("Python", "python_version"), ("base image", "base_image"), ("requirements", "requirements"), ("code", "source")):  # fmt: skip
        if old["spec"].get(field) != new["spec"].get(field):
            parts.append(title)
    if not parts and before.get("lock") != after.get("lock"):
        parts.append("versions of packages")
    if old["status"].get("dockerfile") != new["status"].get("dockerfile") and not parts:
        parts.append("instructions")
    return f"changed: {', '.join(parts)}" if parts else "nothing changed"
