"""Asks a control plane over its API, as `dhpy` does: runs by any name that people give them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from digitalhub_python_control.settings import ControlSettings
from digitalhub_runtime_python.errors import PlatformFault, UsageFault

Entity = dict[str, Any]
_PAGE = 1000


class Client:
    """Asks a control plane, with the settings' credentials.

    urllib3 and not requests: no proxy of the environment gets between us and this machine.
    """

    def __init__(self, url: str, settings: ControlSettings) -> None:
        self.url = url
        self._http = urllib3.PoolManager(timeout=60, retries=False)
        self._headers = _authorization(settings)

    def close(self) -> None:
        """Close its connections."""
        self._http.clear()

    def get(self, path: str) -> Any:
        """The JSON at `path`; None where there is nothing (404).

        Raises:
            PlatformFault: it does not answer, or refuses.
        """
        return self._ask("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        """POST `body` as JSON; the JSON of the answer. Raises as `get` does."""
        return self._ask("POST", path, body)

    def delete(self, path: str) -> None:
        """DELETE what is at `path`, if it is there. Raises as `get` does."""
        self._ask("DELETE", path)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        sent = None if body is None else json.dumps(body)
        headers = {**self._headers, **({"Content-Type": "application/json"} if sent else {})}
        try:
            answer = self._http.request(method, f"{self.url}{path}", body=sent, headers=headers)
        except urllib3.exceptions.HTTPError as exc:
            raise PlatformFault(
                "control/no-answer",
                f"The control plane at {self.url} does not answer: {type(exc).__name__}.",
                "Look at server.log in its home; start it again with: dhpy up",
            ) from exc
        if answer.status == 404:
            return None
        if answer.status == 401:
            raise PlatformFault(
                "control/credentials",
                f"The control plane at {self.url} asks for credentials.",
                "Set DHPY_USER and DHPY_PASSWORD, or DHPY_TOKEN, as where it was started.",
            )
        if answer.status == 400:
            raise UsageFault("usage/refused", _message(answer.data))
        if answer.status != 200:
            raise PlatformFault(
                "control/no-answer",
                f"The control plane at {self.url} answers {answer.status} to {method} {path}.",
                "Look at server.log in its home.",
            )
        return json.loads(answer.data or b"null")

    def listed(
        self, plural: str, project: str | None, filters: Mapping[str, str], limit: int | None = None
    ) -> Iterator[Entity]:
        """Entities of one type, newest first; of every project where none is named.

        Args:
            plural: `runs` or `functions`.
            project: an unknown one has nothing in it.
            filters: parameters of the list request.
            limit: at most so many; None: all.

        Raises:
            UsageFault: usage/project, when there is no such project.
        """
        place = f"/api/v1/-/{quote(project, safe='')}" if project else "/api/v1"
        number, total, left = 0, 1, limit
        while number < total and left != 0:
            size = _PAGE if limit is None else min(_PAGE, limit)
            asked = {**filters, "page": str(number), "size": str(size)}
            page = self.get(f"{place}/{plural}?{urlencode(asked)}")
            if page is None:
                raise UsageFault(
                    "usage/project", f"There is no project {project!r}.", "Check its name."
                )
            for entity in page["content"]:
                if left == 0:
                    return
                left = None if left is None else left - 1
                yield entity
            total, number = int(page["totalPages"]), number + 1

    def find_run(self, name: str, project: str | None) -> Entity:
        """A run by its id, a beginning of it that no other has, its key, or `last`.

        Raises:
            UsageFault: usage/run, when none or several match.
        """
        identity = name.rsplit("/", 1)[-1].rpartition(":")[2]
        if name.startswith("store://"):
            project = name[len("store://") :].partition("/")[0]
        filters = {} if name == "last" else {"id": identity}
        found = list(self.listed("runs", project, filters, 1 if name == "last" else 6))
        exact = [run for run in found if run["id"] == identity]
        if (name == "last" and found) or len(found) == 1 or exact:
            return (exact or found)[0]
        where = f"in project {project!r}" if project else "in any project"
        if not found:
            raise UsageFault("usage/run", f"There is no run {name!r} {where}.", "List them with: dhpy runs")  # fmt: skip
        several = ", ".join(run["id"][: len(identity) + 6] for run in found[:5])
        raise UsageFault("usage/run", f"Several runs begin with {name!r}: {several}{', …' if len(found) > 5 else ''}.", "Write more of the id.")  # fmt: skip

    def log_text(self, run: Mapping[str, Any], limit: int | None = None) -> tuple[str, int]:
        """What the run has written until now, or the end of it, and how many bytes before it were left out.

        Args:
            limit: bytes of the end; None: what the server answers by itself.
        """
        asked = f"?limit={limit}" if limit is not None else ""
        items = self.get(f"{path_of(run)}/logs{asked}") or []
        parts = [base64.b64decode(item.get("content") or "") for item in items]
        omitted = sum(int(item.get("status", {}).get("omitted") or 0) for item in items)
        return b"".join(parts).decode("utf-8", "replace"), omitted


def path_of(run: Mapping[str, Any]) -> str:
    """Where a run is in the API."""
    return f"/api/v1/-/{quote(run['project'], safe='')}/runs/{quote(run['id'], safe='')}"


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode("utf-8", "replace")


def _authorization(settings: ControlSettings) -> dict[str, str]:
    if settings.user:
        return dict(urllib3.make_headers(basic_auth=f"{settings.user}:{settings.password}"))
    return {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
