"""The programs of a real Kubernetes, built once from the Go module proxy into the tests' cache.

    python tests/kubernetes/binaries.py     build what is absent; prints the folder

`binaries/go.mod` names the release and no code of ours; the build takes 5 minutes on two quiet cores.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "images"))
import docker_engine

MODULE = HERE / "binaries"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
DEBIAN = ("etcd", "containerd", "ctr", "runc", "iptables", "conntrack", "ip", "nsenter")
"""Programs of Debian's etcd-server, containerd, runc, iptables, conntrack, iproute2 and util-linux."""
PLUGINS = Path("/usr/lib/cni")


def release() -> str:
    """The release that go.mod names, e.g. `v1.33.13`."""
    found = re.search(r"^require k8s.io/kubernetes (\S+)", (MODULE / "go.mod").read_text(), re.M)
    assert found is not None, "go.mod requires no k8s.io/kubernetes"
    return found[1]


def folder() -> Path:
    return docker_engine.cache() / "kubernetes" / release()


def missing() -> list[str]:
    return [name for name in PROGRAMS if not (folder() / name).exists()]


def absent() -> str:
    """Why there can be no cluster on this machine; empty when there can."""
    if os.geteuid() != 0:
        return "only root may start a cluster of one's own"
    lacking = [name for name in DEBIAN if program(name) is None]
    if not (PLUGINS / "bridge").exists():
        lacking.append("containernetworking-plugins")
    if missing() and _go() is None:
        lacking.append("go")
    return f"{', '.join(lacking)} is not installed" if lacking else ""


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")


def ensure() -> Path:
    """The folder with all programs; whoever comes first builds them, the others wait.

    Raises:
        RuntimeError: Go cannot build them; the text says why.
    """
    target = folder()
    target.mkdir(parents=True, exist_ok=True)
    with open(target / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in missing():
            _build(name, target)
    return target


def _build(name: str, target: Path) -> None:
    package = "k8s.io/component-base/version"
    major, minor, _ = release().lstrip("v").split(".")
    numbers = {"gitVersion": release(), "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s -w", *(f"-X {package}.{key}={value}" for key, value in numbers.items())])
    go = _go()
    assert go is not None, "go is not installed"
    with tempfile.TemporaryDirectory(dir=target) as folder:
        made = Path(folder, name)
        done = subprocess.run(
            [go, "build", "-trimpath", "-ldflags", flags, "-o", str(made), f"k8s.io/kubernetes/cmd/{name}"],
            cwd=MODULE,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"},
            capture_output=True,
            text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"go cannot build {name}:\n{done.stderr[-2000:]}")
        made.replace(target / name)


def _go() -> str | None:
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")


if __name__ == "__main__":
    print(ensure())
