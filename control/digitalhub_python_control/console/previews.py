"""What a stored output looks like, and its files as the browser may open them.

Whatever a user's code wrote is answered with a policy that puts it into an origin of its own, where
nothing runs and from which nothing is asked; what a browser needs not show is an attachment.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from digitalhub_python_control.api import details, resources
from digitalhub_python_control.api.web import Call, Refusal
from digitalhub_python_control.console import charts, frames, gate
from digitalhub_python_control.console.web import Page
from digitalhub_python_control.files.objects import StoredObject
from digitalhub_python_control.store.entities import TYPES, Entity

_KEY = re.compile(r"store://([^/]+)/([^/]+)/([^/]+)/(.+):([^:]+)")
_IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".svg": "image/svg+xml"}  # fmt: skip
_TEXTS = (".txt", ".json", ".csv", ".md", ".yaml", ".yml", ".log", ".py", ".toml", ".xml")
_TEXT = 64 * 1024
"""Bytes of a text that a page shows."""
_ROWS = 50


def preview(call: Call, name: str, key: Any) -> dict[str, Any]:
    """What a page shows of one output; one that is not stored here says so."""
    told: dict[str, Any] = {"name": name, "key": str(key), "entity": None, "table": None, "profile": None, "text": None, "image": None, "frame": None, "files": [], "metrics": []}  # fmt: skip
    plural, entity = _stored(call, str(key))
    if entity is None:
        return told
    told["entity"] = entity
    place = f"{gate.HOME}p/{quote(call.project)}/files/{plural}/{quote(entity['id'])}"
    told["files"] = [{**one, "url": f"{place}/{quote(one['name'])}"} for one in _files(call, plural, entity)]  # fmt: skip
    told["table"] = _table(entity)
    if plural == "dataitems" and [f for f in told["files"] if f["name"].endswith(".parquet")]:
        told["profile"] = f"{gate.HOME}p/{quote(call.project)}/dataitems/{quote(entity['id'])}/profile"  # fmt: skip
    if plural == "models":
        told["metrics"] = list((entity["status"].get("metrics") or {}).items())
    if len(told["files"]) == 1:
        _show_file(call, entity, told)
    return told


def entity_of(call: Call, key: str) -> Entity | None:
    """The entity of this project that has that key; None where it is not stored here."""
    return _stored(call, key)[1]


def _stored(call: Call, key: str) -> tuple[str, Entity | None]:
    found = _KEY.fullmatch(key)
    plural = next((p for p, t in TYPES.items() if found and t.singular == found.group(2)), None)
    if found is None or plural is None or found.group(1) != call.project:
        return "", None
    return plural, call.store.get(plural, call.project, found.group(5))


def file(call: Call) -> Response:
    """A stored file of an entity, or what it is as an attachment (`?download`)."""
    plural = call.path["plural"]
    if plural not in details.WITH_FILES:
        raise Refusal(404, f"There are no files of {plural}.")
    entity = resources.find(call, plural)
    name = call.path["name"]
    found = _open(call, entity, name)
    if found is None:
        raise Refusal(404, f"There is no file {name!r} here.")
    stored, content = found
    suffix = PurePosixPath(name).suffix.lower()
    kind = _IMAGES.get(suffix) or ("text/html" if suffix in (".html", ".htm") else None)
    headers = {"Content-Length": str(stored.size)}
    if kind is None or "download" in call.query:
        plain = quote(PurePosixPath(name).name)
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{plain}"
    answer = StreamingResponse(_pieces(content), 200, headers, kind or "application/octet-stream")
    return gate.protect(answer, gate.FOREIGN_POLICY)


def profile(call: Call) -> Page:
    """What is in the columns of a stored frame."""
    entity = resources.find(call, "dataitems")
    found = None
    for one in _files(call, "dataitems", entity)[:1]:
        opened = _open(call, entity, one["name"])
        if opened is not None and one["name"].endswith(".parquet"):
            with opened[1] as content:
                found = frames.of_parquet(content)
    if found is None:
        raise Refusal(404, f"No Parquet file of {entity['name']!r} is stored here that could be read.")  # fmt: skip
    drawn = [(c, charts.histogram(c.name, c.bins, c.low, c.high)) for c in found.columns]
    return Page("profile.html", {"entity": entity, "profile": found, "columns": drawn})


def source_text(source: dict[str, Any]) -> str:
    """The code in a function's source; empty where it is elsewhere."""
    code = source.get("base64")
    if isinstance(code, str):
        try:
            return base64.b64decode(code).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return ""
    return code if isinstance(code := source.get("code"), str) else ""


def _files(call: Call, plural: str, entity: Entity) -> list[dict[str, Any]]:
    """Name and size of an entity's files that are stored here."""
    path = entity["spec"].get("path")
    if plural not in details.WITH_FILES or not isinstance(path, str):
        return []
    bucket, key = _place(path)
    if not key.endswith("/"):
        stored = call.objects.get(bucket, key)
        return [{"name": PurePosixPath(key).name, "size": stored.size}] if stored else []
    found = call.objects.listing(bucket, key, "", 200, "", "")
    return [{"name": one.key[len(key) :], "size": one.size} for one in found.objects]


def _open(call: Call, entity: Entity, name: str) -> tuple[StoredObject, BinaryIO] | None:
    path = entity["spec"].get("path")
    bucket, key = _place(path if isinstance(path, str) else "")
    if key.endswith("/"):
        key += name
    elif PurePosixPath(key).name != name:
        return None
    return call.objects.open(bucket, key) if bucket else None


def _place(path: str) -> tuple[str, str]:
    """(bucket, key) of an address here; empty for any other."""
    if not path.startswith("s3://"):
        return "", ""
    bucket, _, key = path[5:].partition("/")
    return bucket, key


def _show_file(call: Call, entity: Entity, told: dict[str, Any]) -> None:
    one = told["files"][0]
    suffix = PurePosixPath(one["name"]).suffix.lower()
    if suffix in _IMAGES:
        told["image"] = one["url"]
    elif suffix in (".html", ".htm"):
        told["frame"] = one["url"]
    elif suffix in _TEXTS:
        found = _open(call, entity, one["name"])
        if found is not None:
            with found[1] as content:
                told["text"] = _pretty(content.read(_TEXT).decode("utf-8", "replace"), suffix)


def _pretty(text: str, suffix: str) -> str:
    if suffix == ".json":
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):  # cut off, or none: shown as it is
            return text
    return text


def _table(entity: Entity) -> dict[str, Any] | None:
    """Names, types and first rows of a frame, as its entity has them."""
    preview = entity["status"].get("preview")
    fields = (entity["spec"].get("schema") or {}).get("fields") or []
    types = {f.get("name"): f.get("type") for f in fields if isinstance(f, dict)}
    if not isinstance(preview, dict):
        return None
    columns = [c for c in preview.get("cols") or [] if isinstance(c, dict)]
    values = [c["value"] if isinstance(c.get("value"), list) else [] for c in columns]
    rows = list(zip(*(column[:_ROWS] for column in values))) if values else []
    names = [str(c.get("name")) for c in columns] or [str(name) for name in types]
    return {"names": names, "types": types, "rows": rows, "count": preview.get("rows")}


def _pieces(content: BinaryIO) -> Any:
    with content:
        while piece := content.read(256 * 1024):
            yield piece
