"""Stands in for Nuclio's processor in our images: reads `function.yaml` and runs our own engine.

DigitalHub Core starts a pod with `/opt/nuclio/processor --config <home>/function.yaml`. What that
needs is to know whether to run a job or a service; the rest is in the run, which the platform has.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.errors import EnvironmentFault, UsageFault
from digitalhub_runtime_python.nesting import read_yaml

DEFAULT_CONFIG = "/etc/nuclio/config/processor/processor.yaml"
COMMANDS = {"job": "job", "http": "serve", "openinference": "serve"}
"""Kind of a trigger -> our command."""

# What the settings of an HTTP trigger and of the function are to our own server.
_SETTINGS: tuple[tuple[tuple[str, ...], str, float], ...] = (
    (("trigger", "numWorkers"), "DHPY_WORKERS", 1),
    (("trigger", "workerAvailabilityTimeoutMilliseconds"), "DHPY_WAIT", 0.001),
    (("trigger", "attributes", "maxRequestBodySize"), "DHPY_BODY_LIMIT", 1),
    (("trigger", "attributes", "readBufferSize"), "DHPY_HEADER_LIMIT", 1),
)
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# Core writes a mapping per line; a line of a long text starts with a backslash or inside one.
_ATTRIBUTE = re.compile(
    r'^ +(model_name|model_version|rest_port|enable_rest): "?([^"\n]*)"?$', re.M
)
_KIND = re.compile(r'^ +kind: "?([A-Za-z][\w-]*)"?$', re.MULTILINE)


def translate(argv: list[str], environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of our own that stand for a call of the processor.

    Args:
        argv: `--config FILE`, and `--platform-config FILE`, which is not needed.

    Raises:
        UsageFault: usage/function-file, usage/trigger.
        EnvironmentFault: environment/yaml, a file that is not Core's, and no PyYAML to read it.
    """
    config = Path(_option(argv, "config") or DEFAULT_CONFIG)
    try:
        text = config.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageFault(
            "usage/function-file",
            f"The function's file {config} cannot be read: {getattr(exc, 'strerror', None) or exc}.",
            "Name it with --config.",
        ) from exc
    kind, settings = _trigger(text, config)
    # What is set by hand goes before what the file says.
    own = {"DHPY_CODE_FOLDER": str(config.absolute().parent)}
    if kind != "job":
        own["DHPY_HOST"] = "0.0.0.0"  # noqa: S104 - as the processor does: a pod's own address
        own.update(settings)
    return [COMMANDS[kind]], {**own, **environ}


def _option(argv: list[str], name: str) -> str:
    for place, word in enumerate(argv):
        if word in (f"--{name}", f"-{name}"):
            return argv[place + 1] if place + 1 < len(argv) else ""
        if word.startswith((f"--{name}=", f"-{name}=")):
            return word.partition("=")[2]
    return ""


def _trigger(text: str, config: Path) -> tuple[str, dict[str, str]]:
    """The kind of the one trigger, and what its settings are to our server."""
    kinds = _KIND.findall(text)
    if "extproc" in kinds:
        raise UsageFault(
            "usage/trigger",
            "This is a guardrail function (trigger extproc, Envoy's gRPC), which this image does not serve.",
            "Set RUNTIME_GUARDRAIL_IMAGE_3_… of DigitalHub Core to the published image; it is RUNTIME_PYTHON_IMAGE_3_… by default.",
        )
    is_cores = text.startswith(("---\napiVersion", "apiVersion")) and "numWorkers" not in text
    if len(kinds) == 1 and kinds[0] in ("job", "http") and is_cores and "\n      url" not in text:
        # It sets nothing else, and reading YAML costs 0.3 s in a pod of 0.1 CPU.
        return kinds[0], {}
    if kinds == ["openinference"] and importlib.util.find_spec("yaml") is None:
        # What is more than a word or a number, its tensors, is shown to clients and no more.
        return kinds[0], _inference({"attributes": _words(text)}, config)
    spec = _read(text, config).get("spec") or {}
    triggers = [t for t in (spec.get("triggers") or {}).values() if isinstance(t, dict)]
    known = [t for t in triggers if t.get("kind") in COMMANDS]
    if len(known) != 1:
        found = ", ".join(str(t.get("kind")) for t in triggers) or "none"
        raise UsageFault(
            "usage/trigger",
            f"{config} must have one trigger of kind job or http; it has {found}.",
            "For other triggers use an image with Nuclio's own processor and our wrapper.",
        )
    kind = str(known[0]["kind"])
    return kind, {
        **_settings(spec, known[0]),
        **(_inference(known[0], config) if kind == "openinference" else {}),
    }


def _words(text: str) -> dict[str, Any]:
    """The attributes of one word each, as Core writes them."""
    found: dict[str, Any] = dict(_ATTRIBUTE.findall(text))
    if str(found.get("rest_port", "")).isdigit():
        found["rest_port"] = int(found["rest_port"])
    if "enable_rest" in found:
        found["enable_rest"] = found["enable_rest"] != "false"
    return found


def _inference(trigger: Mapping[str, Any], config: Path) -> dict[str, str]:
    """What an openinference trigger says of the model, and the port of its REST side."""
    attributes = trigger.get("attributes") or {}
    if attributes.get("enable_rest") is False:
        raise UsageFault(
            "usage/trigger",
            f"{config} turns REST off, and this image serves the Open Inference Protocol over REST only.",
            "Leave enable_rest on, or set RUNTIME_OPENINFERENCE_IMAGE_3_… of DigitalHub Core to the published image, which has gRPC.",
        )
    import json

    found = {"DHPY_INFERENCE": json.dumps(attributes)}
    if isinstance(attributes.get("rest_port"), int):
        found["DHPY_PORT"] = str(attributes["rest_port"])
    return found


def _read(text: str, config: Path) -> dict[str, Any]:
    try:
        documents = read_yaml(text)
    except ImportError as exc:
        raise EnvironmentFault(
            "environment/yaml",
            f"{config} is not as DigitalHub Core writes it, and PyYAML is not installed to read it.",
            "Add pyyaml to the function's requirements, or use the full image.",
        ) from exc
    except ValueError as exc:
        raise UsageFault("usage/function-file", f"{config} is not YAML: {exc}.", "") from exc
    value = documents[0] if len(documents) == 1 else None
    if not isinstance(value, dict) or not isinstance(value.get("spec"), dict):
        raise UsageFault("usage/function-file", f"{config} has no spec.", "It is a NuclioFunction.")
    return value


def _settings(spec: Mapping[str, Any], trigger: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, variable, unit in _SETTINGS:
        value: Any = {"trigger": trigger}
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, (int, float)) and value > 0:
            found[variable] = f"{value * unit:g}" if unit != 1 else str(value)
    if (seconds := _seconds(spec.get("eventTimeout"))) is not None:
        found["DHPY_REQUEST_TIMEOUT"] = f"{seconds:g}"
    host, _, port = str(trigger.get("url") or "").rpartition(":")
    if port.isdigit():
        found["DHPY_PORT"] = port
        found["DHPY_HOST"] = host or "0.0.0.0"  # noqa: S104 - as above
    return found


def _seconds(text: object) -> float | None:
    """Go's `1m30s` as seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text if isinstance(text, str) else "")
    return sum(float(number) * _DURATIONS[unit] for number, unit in parts) if parts else None
