"""Requests to DigitalHub Core's REST API: credentials, retries, and what an answer means."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from digitalhub_runtime_python.errors import PlatformFault
from digitalhub_runtime_python.imports import without
from digitalhub_runtime_python.nesting import read_json
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.states import MERGES

with without("importlib.metadata"):  # asked for versions by HTTP/2 alone
    import urllib3

logger = logging.getLogger(__name__)

T = TypeVar("T")


class CoreClient:
    """One connection to the platform, kept open; every request may be repeated."""

    merges = False
    """Whether the platform has said so of the status that was PUT; see `states.MERGES`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._token = settings.credentials.access_token
        self._refresh_token = settings.credentials.refresh_token
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=10, read=60),
            # Entities carry ids of our making, and a report is the whole status: repeating is safe.
            retries=urllib3.Retry(
                total=5,
                backoff_factor=0.2,
                status_forcelist=(429, 500, 502, 503, 504),
                allowed_methods=None,
                raise_on_status=False,
                respect_retry_after_header=False,  # it may say an hour; nobody waits for that
            ),
        )

    def hurry(self) -> None:
        """Try every request once from here on, and briefly: the process is about to be killed."""
        self._http = urllib3.PoolManager(timeout=2, retries=False)

    def get(
        self, plural: str, entity_id: str, project: str = "", seconds: float | None = None
    ) -> dict[str, Any]:
        """Read an entity.

        Args:
            seconds: try once, and wait so long; None: as patiently as usual.

        Raises:
            PlatformFault: platform/unreachable or platform/failed, which may pass;
                platform/not-found; platform/refused.
        """
        return self._request("GET", self._path(plural, entity_id, project), seconds=seconds)

    def latest(self, plural: str, name: str, project: str) -> dict[str, Any]:
        """Read the latest version of a named entity; raises as `get`."""
        path = self._path(plural, "", project)
        page = self._request("GET", path, fields={"name": name})
        found = page.get("content")
        if not isinstance(found, list) or not found or not isinstance(found[0], dict):
            raise PlatformFault(
                "platform/not-found",
                f"GET {path}?name={name} found nothing.",
                "Check the name.",
                http_status=404,
            )
        return found[0]

    def put(
        self, plural: str, entity: Mapping[str, Any], seconds: float | None = None
    ) -> dict[str, Any]:
        """Replace an entity, and get it as it then is; `seconds` and what it raises as `get`."""
        path = self._path(plural, str(entity["id"]), str(entity["project"]))
        try:
            return self._request("PUT", path, body=entity, seconds=seconds)
        except PlatformFault as fault:
            finite = _finite(entity)
            # JSON has no NaN, and a platform may insist on that.
            if fault.http_status != 400 or finite == entity:
                raise
            logger.warning("the platform takes no NaN: such numbers are sent as text")
            return self._request("PUT", path, body=finite, seconds=seconds)

    def create(self, plural: str, entity: Mapping[str, Any]) -> None:
        """Store a new entity; raises as `get`."""
        project = str(entity["project"])
        try:
            self._request("POST", self._path(plural, "", project), body=entity)
        except PlatformFault as fault:
            # The answer of an earlier try may have got lost: the id is ours, so what is there is this entity.
            if fault.http_status not in (400, 409) or not self._exists(plural, entity, project):
                raise

    def _exists(self, plural: str, entity: Mapping[str, Any], project: str) -> bool:
        try:
            self.get(plural, str(entity["id"]), project)
        except PlatformFault:
            return False
        return True

    def _path(self, plural: str, entity_id: str, project: str) -> str:
        place = f"/api/v1/-/{project or self._settings.project}/{plural}"
        return f"{place}/{entity_id}" if entity_id else place

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        fields: dict[str, str] | None = None,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        url = self._settings.endpoint + path
        payload = None if body is None else json.dumps(body).encode()
        once: dict[str, Any] = {"timeout": seconds, "retries": False} if seconds else {}
        response = self._send(method, url, payload, fields, once)
        if response.status == 401 and self._refresh():
            response = self._send(method, url, payload, fields, once)
        self.merges = self.merges or MERGES in response.headers
        text = response.data.decode("utf-8", "replace")
        if response.status >= 300:
            raise _fault(
                response.status, f"{method} {url} answered {response.status}: {text[:300]}"
            )
        try:
            answer = read_json(text) if text.strip() else {}
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise PlatformFault(
                "platform/failed",
                f"{method} {url} answered no JSON object: {text[:100]!r}.",
                "Check that DHCORE_ENDPOINT is the platform's own address.",
                retry=True,
            )
        return answer

    def _send(
        self,
        method: str,
        url: str,
        payload: bytes | None,
        fields: dict[str, str] | None,
        how: dict[str, Any],
    ) -> Any:
        headers = {"Accept": "application/json"}
        if payload is not None:
            headers["Content-Type"] = "application/json"
        credentials = self._settings.credentials
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        elif credentials.user:
            headers.update(
                urllib3.make_headers(basic_auth=f"{credentials.user}:{credentials.password}")
            )
        try:
            return self._http.request(
                method, url, fields=fields, body=payload, headers=headers, **how
            )
        except urllib3.exceptions.HTTPError as exc:
            # Before version 2, urllib3 begins with the address of an object of its own.
            reason = re.sub(r"^<[^>]*>: ", "", str(getattr(exc, "reason", None) or exc))
            # A malformed address does not mend itself.
            malformed = isinstance(exc, urllib3.exceptions.LocationValueError)
            raise PlatformFault(
                "platform/refused" if malformed else "platform/unreachable",
                f"The platform at {self._settings.endpoint} cannot be reached: {reason}.",
                "Check DHCORE_ENDPOINT and the network.",
                retry=not malformed,
            ) from exc

    def _refresh(self) -> bool:
        """Trade the refresh token for a new access token, as the SDK does; False where that fails."""
        credentials = self._settings.credentials
        if not self._refresh_token:
            return False
        try:
            endpoint = credentials.token_endpoint or self._token_endpoint()
            tokens = self._tokens(endpoint) if endpoint else {}
        except (urllib3.exceptions.HTTPError, ValueError):
            return False  # the 401 that led here is what the user hears of
        if not tokens.get("access_token"):
            return False
        self._token = str(tokens["access_token"])
        # A refresh token is used once; the next one comes with the answer.
        self._refresh_token = str(tokens.get("refresh_token") or self._refresh_token)
        return True

    def _tokens(self, endpoint: str) -> dict[str, Any]:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self._refresh_token,
            "client_id": self._settings.credentials.client_id,
            "scope": "credentials",
        }
        response = self._http.request("POST", endpoint, fields=form, encode_multipart=False)
        return _object(response.data) if response.status == 200 else {}

    def _token_endpoint(self) -> str:
        issuer = self._settings.credentials.issuer.rstrip("/")
        if not issuer:
            return ""
        place = f"{issuer}/.well-known/openid-configuration"
        return str(_object(self._http.request("GET", place).data).get("token_endpoint") or "")


def _finite(value: Any) -> Any:
    """The same JSON with every number that JSON does not know as text: "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    return value


def _object(data: bytes) -> dict[str, Any]:
    value = read_json(data)
    return value if isinstance(value, dict) else {}


def _fault(status: int, message: str) -> PlatformFault:
    code, hint = "platform/refused", "Check DHCORE_ENDPOINT and the credentials."
    passing = status >= 500 or status == 429
    if passing:
        code, hint = "platform/failed", "Look into the platform's own log."
    elif status == 404:
        code, hint = "platform/not-found", "Check the id and the project."
    elif status in (400, 401, 403):
        hint = {400: "", 401: "Check the credentials.", 403: "Check what the credentials may do."}[status]  # fmt: skip
    return PlatformFault(code, message, hint, retry=passing, http_status=status)
