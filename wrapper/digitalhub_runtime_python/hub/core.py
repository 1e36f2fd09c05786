"""DigitalHub Core's REST API from the container, without the SDK: 0.05 s of CPU where the SDK takes 1 s."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

import urllib3

from digitalhub_runtime_python.errors import ArgumentFault, Fault, OutputFault, PlatformFault
from digitalhub_runtime_python.hub import files
from digitalhub_runtime_python.outputs import Output
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import RunSpec

logger = logging.getLogger(__name__)

MERGED = ("results", "outputs")
"""Keys of a status that are merged entry by entry; every other reported key replaces."""


class CoreHub:
    """The platform as a run in a container sees it; one connection, kept open.

    Raises:
        PlatformFault: platform/not-configured, when the environment names no run or no endpoint.
    """

    def __init__(self, settings: Settings) -> None:
        missing = [
            name
            for name, value in (
                ("DHCORE_ENDPOINT", settings.endpoint),
                ("PROJECT_NAME", settings.project),
                ("RUN_ID", settings.run_id),
            )
            if not value
        ]
        if missing:
            raise PlatformFault(
                "platform/not-configured",
                f"The environment lacks {', '.join(missing)}.",
                "The platform sets them; without a platform set DHPY_RUN_FILE, or use `dhpy run`.",
            )
        self._settings = settings
        self._token = settings.credentials.access_token
        self._refresh_token = settings.credentials.refresh_token
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=10, read=60),
            # Every call here may be repeated: entities carry ids of our making, a report is the whole status.
            retries=urllib3.Retry(
                total=5,
                backoff_factor=0.2,
                status_forcelist=(429, 502, 503, 504),
                allowed_methods=None,
                raise_on_status=False,
            ),
        )
        self._session: tuple[Any, Any] | None = None

    def load_run(self) -> RunSpec:
        return RunSpec.from_entity(self._get("runs", self._settings.run_id))

    def resolve_input(self, key: str, form: str) -> Any:
        if form in ("frame", "polars", "path"):
            project, entity_type, entity_id = _parse_key(key)
            entity = self._get(f"{entity_type}s", entity_id, project=project)
            return files.load(str(entity["spec"].get("path") or ""), form, self._settings)
        _parse_key(key)
        self.project()  # the SDK finds an entity's project in its own context
        try:
            return _session_module().get_entity(key)
        except Exception as exc:
            if type(exc).__module__.startswith("digitalhub."):
                raise _no_input(key, str(exc)) from exc
            raise

    def store_output(self, run: RunSpec, output: Output) -> str:
        if not self._settings.files_store:
            raise OutputFault(
                "outputs/no-store",
                f"Output {output.name!r} is a file, and the platform names no files store.",
                "Set DHCORE_DEFAULT_FILES_STORE, e.g. s3://bucket.",
            )
        entity_id = uuid.uuid4().hex
        place = f"{self._settings.files_store}/{run.project}/{output.entity_type}/{output.name}/{entity_id}/"
        entity: dict[str, Any] = {
            "id": entity_id,
            "name": output.name,
            "project": run.project,
            "kind": output.kind,
            "metadata": {
                "name": output.name,
                "project": run.project,
                "relationships": [{"type": "produced_by", "dest": run.key}],
            },
            "spec": {
                **output.spec,
                "path": place if output.path.is_dir() else place + output.path.name,
            },
            "status": {"state": "UPLOADING"},
        }
        plural = f"{output.entity_type}s"
        # First the entity, then the bytes: bytes without an entity would be nobody's to delete.
        self._create(plural, entity)
        try:
            info = files.upload(output.path, entity["spec"]["path"], self._settings)
        except Exception as exc:
            fault = OutputFault(
                "outputs/upload",
                f"Output {output.name!r} could not be uploaded to {entity['spec']['path']}: {exc}",
                "Check the files store and its credentials.",
            )
            with contextlib.suppress(Fault):
                entity["status"] = {"state": "ERROR", "message": fault.message[:500]}
                self._put(plural, entity)
            raise fault from exc
        entity["status"] = {**output.status, "state": "READY", "files": info}
        self._put(plural, entity)
        return f"store://{run.project}/{output.entity_type}/{output.kind}/{output.name}:{entity_id}"

    def report(self, status: Mapping[str, Any]) -> None:
        if self._session is not None and "outputs" in status:
            # What the handler logged by itself is found by its name too, as with upstream's runtime.
            logged = _session_module().logged(self._settings.project)
            # An entity that it also returned has its output's name already.
            more = {n: k for n, k in logged.items() if k not in status["outputs"].values()}
            status = {**status, "outputs": {**more, **status["outputs"]}}
        give_up = time.monotonic() + self._settings.report_timeout
        pause = 0.5
        while True:
            try:
                entity = self._get("runs", self._settings.run_id)
                entity["status"] = merge_status(entity.get("status") or {}, status)
                self._put("runs", entity)
                return
            except PlatformFault as fault:
                if fault.code == "platform/refused" or time.monotonic() + pause > give_up:
                    raise self._keep(status, fault) from fault
                logger.warning(
                    "the report could not be delivered, trying again in %.0f s: %s", pause, fault
                )
                time.sleep(pause)
                pause = min(pause * 2, 10)

    def project(self) -> Any:
        return self._sdk_session()[0]

    def run(self) -> Any:
        return self._sdk_session()[1]

    def _sdk_session(self) -> tuple[Any, Any]:
        if self._session is None:
            module = _session_module()
            self._session = module.open_session(self._settings.project, self._settings.run_id)
        return self._session

    def _keep(self, status: Mapping[str, Any], fault: PlatformFault) -> PlatformFault:
        place = self._settings.workspace / f"report-{self._settings.run_id}.json"
        try:
            place.write_text(json.dumps(status), "utf-8")
            kept = f"It is kept in {place.absolute()}."
        except OSError as exc:
            kept = f"It could not be kept in {place.absolute()} either ({exc.strerror}): {json.dumps(status)}"
        return PlatformFault(
            "platform/report",
            f"The report of run {self._settings.run_id} was not delivered: {fault.message} {kept}",
            "PUT it into the run's status when the platform is back.",
        )

    # --- HTTP -----------------------------------------------------------------------------------

    def _get(self, plural: str, entity_id: str, project: str = "") -> dict[str, Any]:
        return self._request("GET", self._path(plural, entity_id, project))

    def _put(self, plural: str, entity: Mapping[str, Any]) -> None:
        self._request("PUT", self._path(plural, str(entity["id"]), str(entity["project"])), entity)

    def _create(self, plural: str, entity: Mapping[str, Any]) -> None:
        try:
            self._request("POST", self._path(plural, "", str(entity["project"])), entity)
        except PlatformFault as fault:
            # The answer of an earlier try got lost: the id is ours, so what is there is this entity.
            if "Duplicated entity" not in fault.message:
                raise

    def _path(self, plural: str, entity_id: str, project: str = "") -> str:
        return f"/api/v1/-/{project or self._settings.project}/{plural}" + (
            f"/{entity_id}" if entity_id else ""
        )

    def _request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        url = self._settings.endpoint + path
        payload = None if body is None else json.dumps(body).encode()
        response = self._send(method, url, payload)
        if response.status == 401 and self._refresh():
            response = self._send(method, url, payload)
        text = response.data.decode("utf-8", "replace")
        if response.status >= 500 or response.status == 429:
            raise PlatformFault(
                "platform/failed", f"{method} {url} answered {response.status}: {text[:300]}", ""
            )
        if response.status >= 400:
            raise PlatformFault(
                "platform/refused",
                f"{method} {url} answered {response.status}: {text[:300]}",
                "Check the run's id, its project, and the credentials."
                if response.status != 400
                else "",
            )
        try:
            return json.loads(text) if text.strip() else {}
        except ValueError as exc:
            raise PlatformFault(
                "platform/failed", f"{method} {url} answered no JSON: {text[:100]!r}.", ""
            ) from exc

    def _send(self, method: str, url: str, payload: bytes | None) -> Any:
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
            return self._http.request(method, url, body=payload, headers=headers)
        except urllib3.exceptions.HTTPError as exc:
            reason = getattr(exc, "reason", None) or exc
            raise PlatformFault(
                "platform/unreachable",
                f"The platform at {self._settings.endpoint} cannot be reached: {reason}.",
                "Check DHCORE_ENDPOINT and the network.",
            ) from exc

    def _refresh(self) -> bool:
        """Trade the refresh token for a new access token, as the SDK does; False where there is none."""
        credentials = self._settings.credentials
        if not self._refresh_token:
            return False
        endpoint = credentials.token_endpoint
        if not endpoint and credentials.issuer:
            found = self._http.request(
                "GET", credentials.issuer.rstrip("/") + "/.well-known/openid-configuration"
            )
            endpoint = str(json.loads(found.data).get("token_endpoint") or "")
        if not endpoint:
            return False
        response = self._http.request(
            "POST",
            endpoint,
            fields={
                "grant_type": "refresh_token",
                "refresh_token": self._refresh_token,
                "client_id": credentials.client_id,
                "scope": "credentials",
            },
            encode_multipart=False,
        )
        if response.status != 200:
            return False
        tokens = json.loads(response.data)
        self._token = str(tokens.get("access_token") or "")
        # A refresh token is used once; the next one comes with the answer.
        self._refresh_token = str(tokens.get("refresh_token") or self._refresh_token)
        return bool(self._token)


def merge_status(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The status to PUT: what is there, with what is reported over it; the state stays as it is."""
    merged = {**old, **{k: v for k, v in new.items() if k != "state"}}
    for key in MERGED:
        if key in new:
            merged[key] = {**(old.get(key) or {}), **(new[key] or {})}
    return merged


def _parse_key(key: Any) -> tuple[str, str, str]:
    """(project, entity type, id) of `store://project/type/kind/name:id`."""
    parts = str(key).partition("store://")[2].split("/") if isinstance(key, str) else []
    entity_id = parts[-1].rpartition(":")[2] if parts else ""
    if len(parts) < 4 or not all(parts) or not entity_id:
        raise ArgumentFault(
            "arguments/input",
            f"The input {key!r} is no entity key.",
            "Pass an entity's key, as in inputs={'data': dataitem.key}.",
        )
    return parts[0], parts[1], entity_id


def _no_input(key: str, why: str) -> ArgumentFault:
    return ArgumentFault(
        "arguments/input", f"The input {key!r} cannot be had: {why}", "Check the key."
    )


def _session_module() -> Any:
    # Only sdk/ imports digitalhub; by name, since most runs never come here.
    return importlib.import_module("digitalhub_runtime_python.sdk.session")
