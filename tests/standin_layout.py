"""A base image as an OCI layout, made of a few small files: for tests that start no container."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Member = tuple[str, Any]
"""(path, content): bytes are a file, None is a folder, `("link", target)` a link."""


def python_files(version: str = "3.11", prefix: str = "usr/local") -> list[Member]:
    """What tells that there is a Python, and that its libc is Debian bookworm's."""
    library = f"{prefix}/lib/python{version}"
    folders = ["usr", *_parents(f"{library}/site-packages/x"), f"{prefix}/bin", "opt", "lib64"]
    return [
        *((name, None) for name in dict.fromkeys(folders)),
        (f"{prefix}/bin/python{version}", b"\x7fELF"),
        (f"{prefix}/bin/python3", ("link", f"python{version}")),
        (f"{library}/os.py", b"# os\n"),
        ("lib64/libc.so.6", b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n\0"),
    ]  # fmt: skip


def installed(name: str, version: str, files: Mapping[str, bytes], site: str) -> list[Member]:
    """A distribution that lies in the base image."""
    info = f"{name}-{version}.dist-info"
    everything = {**files, f"{info}/METADATA": f"Name: {name}\n".encode()}
    record = "".join(f"{path},,\n" for path in [*everything, f"{info}/RECORD"])
    members = {**everything, f"{info}/RECORD": record.encode()}
    return [(f"{site}/{path}", content) for path, content in members.items()]


def write_base(
    folder: Path,
    members: Sequence[Member] | None = None,
    *,
    tars: Sequence[bytes] = (),
    name: str = "",
    platform: str = "linux/amd64",
    config: Mapping[str, Any] | None = None,
    alter: Callable[[dict[str, Any]], Any] = lambda manifest: None,
) -> Path:
    """Write it; `tars` are layers as they are, instead of `members`."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def keep(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    layers = list(tars) or [tar_of(python_files() if members is None else members)]
    system, _, machine = platform.partition("/")
    image = {
        "os": system,
        "architecture": machine,
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["python3"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
    }  # fmt: skip
    layer_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **keep(json.dumps(image).encode())},
        "layers": [{"mediaType": layer_type, **keep(_packed(layer))} for layer in layers],
    }  # fmt: skip
    alter(manifest)
    described = {"mediaType": manifest["mediaType"], **keep(json.dumps(manifest).encode())}
    if name:
        described["annotations"] = {"org.opencontainers.image.ref.name": name}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def tar_of(members: Sequence[Member]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for path, content in members:
            member = tarfile.TarInfo(path)
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            elif isinstance(content, tuple):
                member.type, member.linkname = tarfile.SYMTYPE, content[1]
                tar.addfile(member)
            else:
                member.size, member.mode = len(content), 0o644
                tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _packed(data: bytes) -> bytes:
    # Python's own gzip writes another header in each version.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
