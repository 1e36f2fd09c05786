"""What an image is made of, for those who check it: a bill of materials and its provenance, from the plan.

Nothing is scanned: the lock says what was installed, by hash. The same plan gives the same bytes: there is no
time in them, and what has to be unique is made from the image's digest.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from packaging.utils import canonicalize_name

from digitalhub_python_builder.plan import Plan, tree_digest
from digitalhub_python_builder.requirements import redact
from digitalhub_runtime_python._version import __version__
from digitalhub_runtime_python.errors import UsageFault

_NAMESPACE = uuid.UUID("5f2d3c38-6f6a-5c0e-9c39-6a7b5d1d8e21")
_ENTRY = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(?:==\s*([^\s;\\]+)|@\s*([^\s;\\]+))"
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_BUILD_TYPE = "https://digitalhub.io/python-image/v1"


@dataclass(frozen=True)
class Component:
    """A package of a lock."""

    name: str
    """Canonical."""
    version: str
    """Empty for one that the lock has by URL."""
    url: str = ""
    """Without a login; empty for one of an index."""
    hashes: tuple[str, ...] = ()
    """The sha256 of each file that it may be installed from."""

    @property
    def purl(self) -> str:
        """Its package URL, by the type `pypi` of the purl specification."""
        version = f"@{quote(self.version, '')}" if self.version else ""
        return f"pkg:pypi/{quote(self.name, '')}{version}" + (f"?download_url={quote(self.url, '')}" if self.url else "")  # fmt: skip


def components(lock: str) -> list[Component]:
    """The packages of a lock, by name."""
    found = []
    for entry in re.split(r"\n(?=\S)", lock.strip()):
        match = _ENTRY.match(entry)
        if match:
            url = redact(match[3] or "").replace("***@", "").partition("#")[0]
            found.append(Component(canonicalize_name(match[1]), match[2] or "", url, tuple(_HASH.findall(entry))))  # fmt: skip
    return sorted(found, key=lambda one: (one.name, one.version))


def cyclonedx(plan: Plan, image: str, digest: str) -> bytes:
    """A bill of materials as CycloneDX 1.6 JSON.

    Args:
        image: the image's name.
        digest: what it is known by: of its manifest, or of its configuration.
    """
    parts: list[dict[str, Any]] = [
        {
            "type": "container", "bom-ref": "base", "name": plan.base_image,
            **({"version": plan.base_id} if plan.base_id else {}),
        }
    ]  # fmt: skip
    for one in components(plan.requirements):
        part: dict[str, Any] = {
            "type": "library",
            "bom-ref": one.purl,
            "name": one.name,
            "purl": one.purl,
        }
        if one.version:
            part["version"] = one.version
        if len(one.hashes) == 1:
            part["hashes"] = [{"alg": "SHA-256", "content": one.hashes[0]}]
        elif one.hashes:
            # Any one of these files, by the platform: a hash of the component itself would say that it is all of them.
            part["properties"] = [
                {"name": "digitalhub:file:sha256", "value": value} for value in one.hashes
            ]
        if one.url:
            part["externalReferences"] = [{"type": "distribution", "url": one.url}]
        parts.append(part)
    return _json({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "serialNumber": f"urn:uuid:{_identity(plan, digest)}",
        "metadata": {
            "component": {"type": "container", "bom-ref": "image", "name": image, "version": digest},
            "tools": {"components": [{"type": "application", "name": "digitalhub-runtime-python", "version": __version__}]},
        },
        "components": parts,
        "dependencies": [{"ref": "image", "dependsOn": sorted(part["bom-ref"] for part in parts)}],
    })  # fmt: skip


def spdx(plan: Plan, image: str, digest: str) -> bytes:
    """The same as SPDX 2.3 JSON; without a time of its own it says 1970, as reproducible builds do."""
    packages: list[dict[str, Any]] = [
        {"SPDXID": "SPDXRef-image", "name": image, "versionInfo": digest, "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "primaryPackagePurpose": "CONTAINER"},
        {"SPDXID": "SPDXRef-base", "name": plan.base_image, "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "primaryPackagePurpose": "CONTAINER", **({"versionInfo": plan.base_id} if plan.base_id else {})},
    ]  # fmt: skip
    for number, one in enumerate(components(plan.requirements)):
        package: dict[str, Any] = {
            "SPDXID": f"SPDXRef-{re.sub(r'[^A-Za-z0-9.-]', '-', one.name)}-{number}",
            "name": one.name, "downloadLocation": one.url or "NOASSERTION", "filesAnalyzed": False, "primaryPackagePurpose": "LIBRARY",
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": one.purl}],
        }  # fmt: skip
        if one.version:
            package["versionInfo"] = one.version
        if len(one.hashes) == 1:
            package["checksums"] = [{"algorithm": "SHA256", "checksumValue": one.hashes[0]}]
        packages.append(package)
    related = [{"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS", "relatedSpdxElement": one["SPDXID"]} for one in packages[1:]]  # fmt: skip
    return _json({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": image,
        "documentNamespace": f"https://digitalhub.io/spdx/{_identity(plan, digest)}",
        "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": [f"Tool: digitalhub-runtime-python-{__version__}"]},
        "packages": packages,
        "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-image"}, *related],
    })  # fmt: skip


def provenance(plan: Plan, image: str, digest: str, *, engine: str, revision: str = "") -> bytes:
    """How it came to be: an in-toto statement with SLSA provenance 1.

    What instructions say is given as hashes of them: their text may name a secret.

    Args:
        revision: of the source, such as `git:<commit>`; empty where it has none.
    """
    lock = f"sha256:{_sha256(plan.requirements.encode())}" if plan.requirements else ""
    inputs = [{"uri": f"docker:{plan.base_image}", **_digests(plan.base_id)}]
    if plan.requirements:
        inputs.append({"uri": "lock", **_digests(lock)})
    if plan.code:
        inputs.append({"uri": "code", **_digests(f"sha256:{tree_digest(plan.code)}"), **({"annotations": {"revision": revision}} if revision else {})})  # fmt: skip
    return _json({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": image, **_digests(digest)}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {
                    "python": plan.python, "platform": plan.platform, "labels": dict(plan.labels), "environment": sorted(plan.envs),
                    "instructions": [f"sha256:{_sha256(text.encode())}" for text in plan.instructions],
                },
                "internalParameters": {"plan": plan.digest, "steps": {name: _sha256(key.encode()) for name, key in plan.steps() if key}},
                "resolvedDependencies": inputs,
            },
            "runDetails": {"builder": {"id": f"https://digitalhub.io/python-image/{engine}", "version": {"digitalhub-runtime-python": __version__}}},
        },
    })  # fmt: skip


FORMS: Mapping[str, Any] = {"cyclonedx": cyclonedx, "spdx": spdx}
"""Name of a form -> what writes it."""


def form_of(name: str) -> str:
    """The form that a file's name asks for: `NAME.spdx.json` SPDX, any other `.json` CycloneDX.

    Raises:
        UsageFault: it is not a name of a JSON file.
    """
    lower = name.lower()
    if not lower.endswith(".json"):
        raise UsageFault("usage/output", f"{name!r} does not tell the form of a bill of materials.", "Write NAME.cdx.json or NAME.spdx.json.")  # fmt: skip
    return "spdx" if lower.endswith(".spdx.json") else "cyclonedx"


def _identity(plan: Plan, digest: str) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, f"{digest} {plan.digest}")


def _digests(digest: str) -> dict[str, Any]:
    kind, _, value = digest.partition(":")
    return {"digest": {kind: value}} if value else {}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
