"""A real Kubernetes of one node, kubelet included, in a network namespace of its own.

    python tests/kubernetes/cluster.py [COMMAND …]     run COMMAND (default: a shell) in it, with KUBECONFIG set

Everything it writes lies in one folder, nothing leaves the namespace, and it ends with the block:
every process by its id, then the namespace. It takes 2 s to come up where the programs are built.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import binaries

NODE = "192.0.2.1"
"""The node's address: kubelet wants one that is not loopback. Control planes of tests listen there."""
PODS = "198.18.0.0/16"
SERVICES = "198.19.0.0/24"
TOKEN = "cluster-admin-of-the-tests"
PAUSE = "registry.k8s.io/pause:3.9"

_PAUSE_SOURCE = """\
#include <signal.h>
#include <unistd.h>
static void end(int number) { _exit(0); }
int main(void) { signal(SIGINT, end); signal(SIGTERM, end); for (;;) pause(); }
"""
_CONTAINERD = """\
version = 2
root = "{home}/containerd"
state = "{run}/containerd"
[grpc]
  address = "{run}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{home}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{home}/certs.d"
"""
_KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "failCgroupV1": False,
    "failSwapOn": False,
    "containerLogMaxSize": "50Mi",
    "evictionHard": {"memory.available": "64Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    # A kubelet that thinks its disk full removes images that no pod uses, the sandboxes' first.
    "imageGCHighThresholdPercent": 100,
    "imageGCLowThresholdPercent": 99,
    "nodeStatusUpdateFrequency": "2s",
    "syncFrequency": "10s",
    "shutdownGracePeriod": "0s",
    "clusterDomain": "cluster.local",
    "registryPullQPS": 0,
}  # fmt: skip


class Cluster:
    """A cluster that runs; `kubeconfig` is its administrator's."""

    def __init__(self, home: Path, run: Path, name: str) -> None:
        self.home = home
        self.run = run
        self.namespace = name
        """Of the kernel's network, not of Kubernetes."""
        self.programs = binaries.folder()
        self.kubeconfig = home / "kubeconfig"
        self.port = 16443
        self.url = f"https://{NODE}:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    # Processes

    def inside(self, *command: str) -> list[str]:
        """A command line that runs in the cluster's network; /sys and its cgroups stay as they are."""
        return [str(binaries.program("nsenter")), f"--net=/run/netns/{self.namespace}", *command]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts, is in the cluster's network as long as the block lasts."""
        with open("/proc/thread-self/ns/net") as outside:
            with open(f"/run/netns/{self.namespace}") as inside:
                _setns(inside.fileno())
            try:
                yield
            finally:
                _setns(outside.fileno())

    def start(self, name: str, *command: str, **environ: str) -> None:
        with open(self.home / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                self.inside(*command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environ},
                start_new_session=True,
            )

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # Requests

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """The API server's JSON; text where it answers with that."""
        with self.entered():
            request = urllib.request.Request(
                f"{self.url}{path}",
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": kind},
            )
            context = ssl.create_default_context(cafile=str(self.home / "pki" / "apiserver.crt"))
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                data = answer.read()
                text = "json" not in (answer.headers.get_content_type() or "")
        return data.decode() if text else json.loads(data)

    def load_image(self, reference: str, archive: Path) -> None:
        """Put an image (`docker save`) where pods find it without a registry."""
        self.ctr("images", "import", str(archive))
        assert reference.partition(":")[0] in self.ctr("images", "ls", "-q"), reference

    def ctr(self, *arguments: str) -> str:
        command = ["ctr", "--address", f"{self.run}/containerd.sock", "-n", "k8s.io", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr}"
        return done.stdout

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    # Parts, each started and started again by its name

    def start_etcd(self) -> None:
        self.start(
            "etcd", "etcd", f"--data-dir={self.home}/etcd", "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:12379", "--advertise-client-urls=http://127.0.0.1:12379",
            "--listen-peer-urls=http://127.0.0.1:12380", "--initial-advertise-peer-urls=http://127.0.0.1:12380",
            "--initial-cluster=default=http://127.0.0.1:12380", "--log-level=error",
        )  # fmt: skip

    def start_apiserver(self) -> None:
        pki = self.home / "pki"
        self.start(
            "apiserver", f"{self.programs}/kube-apiserver", "--etcd-servers=http://127.0.0.1:12379",
            f"--bind-address={NODE}", f"--advertise-address={NODE}", f"--secure-port={self.port}",
            f"--cert-dir={pki}", f"--token-auth-file={self.home}/tokens.csv",
            "--authorization-mode=RBAC", "--endpoint-reconciler-type=none", "--profiling=false",
            f"--service-cluster-ip-range={SERVICES}", "--service-node-port-range=30000-32767",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/sa.key", f"--service-account-signing-key-file={pki}/sa.key",
            "--kubelet-preferred-address-types=InternalIP", "--max-requests-inflight=2000",
            "--enable-priority-and-fairness=false", "--feature-gates=ImageVolume=true",
            "--default-not-ready-toleration-seconds=2", "--default-unreachable-toleration-seconds=2",
        )  # fmt: skip

    def start_controllers(self) -> None:
        self.start(
            "controller-manager", f"{self.programs}/kube-controller-manager", "--leader-elect=false",
            f"--kubeconfig={self.kubeconfig}", f"--service-account-private-key-file={self.home}/pki/sa.key",
            f"--root-ca-file={self.home}/pki/apiserver.crt", "--bind-address=127.0.0.1",
            "--node-monitor-period=1s", "--node-monitor-grace-period=8s", "--kube-api-qps=500",
            "--kube-api-burst=1000", "--profiling=false", f"--cluster-cidr={PODS}",
        )  # fmt: skip

    def start_scheduler(self) -> None:
        self.start(
            "scheduler", f"{self.programs}/kube-scheduler", f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false", "--bind-address=127.0.0.1", "--kube-api-qps=500",
            "--kube-api-burst=1000", "--profiling=false",
        )  # fmt: skip

    def start_containerd(self) -> None:
        self.start("containerd", "containerd", f"--config={self.home}/containerd.toml")

    def start_kubelet(self) -> None:
        self.start(
            "kubelet", f"{self.programs}/kubelet", f"--config={self.home}/kubelet.json",
            f"--kubeconfig={self.kubeconfig}", f"--root-dir={self.run}/kubelet", "--hostname-override=node-1",
            f"--node-ip={NODE}", f"--container-runtime-endpoint=unix://{self.run}/containerd.sock",
            f"--cert-dir={self.home}/kubelet-pki",
        )  # fmt: skip

    def start_proxy(self) -> None:
        self.start(
            "proxy", f"{self.programs}/kube-proxy", f"--kubeconfig={self.kubeconfig}",
            "--proxy-mode=iptables", "--conntrack-max-per-core=0", "--hostname-override=node-1",
            f"--cluster-cidr={PODS}", "--metrics-bind-address=127.0.0.1:10249", "--iptables-min-sync-period=50ms",
        )  # fmt: skip

    def wait_for_api(self) -> None:
        self._wait("the API server", "apiserver", lambda: self.ask("GET", "/readyz") == "ok")

    def wait_for_node(self) -> None:
        self._wait("the node", "kubelet", self._node_is_ready)

    def _node_is_ready(self) -> bool:
        nodes = self.ask("GET", "/api/v1/nodes")["items"]
        conditions = [c for node in nodes for c in node["status"].get("conditions", ())]
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        accounts = self.ask("GET", "/api/v1/namespaces/default/serviceaccounts")["items"]
        return ready and bool(accounts)

    def _wait(self, what: str, name: str, check: Any, seconds: float = 90) -> None:
        give_up = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if check():
                    return
            dead = [n for n, p in self.processes.items() if p.poll() is not None]
            if dead or time.monotonic() > give_up:
                name = dead[0] if dead else name
                raise RuntimeError(f"{what} is not ready; {name} says:\n{self.log(name)[-3000:]}")
            time.sleep(0.1)


@contextlib.contextmanager
def running(home: Path) -> Iterator[Cluster]:
    """A cluster whose files are in `home`, which is empty; it ends with the block.

    Raises:
        RuntimeError: a part does not start; the text is its log's end.
    """
    binaries.ensure()
    with _only_one():
        yield from _running(home)


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    """Wait for another suite's cluster: a machine has one tree of cgroups, and kubelets end what is not theirs."""
    with open("/run/dhpy-k8s.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _running(home: Path) -> Iterator[Cluster]:
    # Sockets have short names, and the kubelet's mounts must not lie in a folder that somebody removes.
    with tempfile.TemporaryDirectory(prefix="dhpy-k8s-", dir="/run", ignore_cleanup_errors=True) as short:  # fmt: skip
        cluster = Cluster(home, Path(short), Path(short).name)
        _prepare(cluster)
        _network(cluster.namespace)
        try:
            cluster.start_etcd()
            cluster.start_containerd()
            cluster.start_apiserver()
            cluster.wait_for_api()
            cluster.start_controllers()
            cluster.start_scheduler()
            cluster.start_proxy()
            _load_pause(cluster)
            cluster.start_kubelet()
            cluster.wait_for_node()
            yield cluster
        finally:
            _end(cluster)


def _prepare(cluster: Cluster) -> None:
    home = cluster.home
    for folder in ("pki", "cni", "certs.d", "kubelet-pki"):
        (home / folder).mkdir(parents=True)
    key = home / "pki" / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (home / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    (home / "containerd.toml").write_text(
        _CONTAINERD.format(home=home, run=cluster.run, pause=PAUSE, plugins=binaries.PLUGINS)
    )
    (home / "kubelet.json").write_text(json.dumps(_KUBELET))
    bridge = {
        "cniVersion": "0.4.0", "name": "pods", "type": "bridge", "bridge": "cni0",
        "isDefaultGateway": True, "hairpinMode": True,
        "ipam": {"type": "host-local", "dataDir": f"{cluster.run}/ipam", "ranges": [[{"subnet": PODS}]]},
    }  # fmt: skip
    (home / "cni" / "10-pods.conf").write_text(json.dumps(bridge))
    cluster.kubeconfig.write_text(kubeconfig(cluster.url, TOKEN, home / "pki" / "apiserver.crt"))


def kubeconfig(url: str, token: str, authority: Path | None) -> str:
    """A kubeconfig as text: JSON is YAML."""
    server = {"server": url, **({"certificate-authority": str(authority)} if authority else {})}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": server}],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        }
    )


def _network(name: str) -> None:
    ip = str(binaries.program("ip"))
    subprocess.run([ip, "netns", "add", name], check=True)
    for line in (
        "link set lo up",
        "link add br0 type bridge",
        f"addr add {NODE}/24 dev br0",
        "link set br0 up",
        "route add default via 192.0.2.254",
    ):
        subprocess.run([ip, "-n", name, *line.split()], check=True)
    command = ["nsenter", f"--net=/run/netns/{name}", "sysctl", "-qw", "net.ipv4.ip_forward=1"]
    subprocess.run(command, check=False)


def _load_pause(cluster: Cluster) -> None:
    """The image of pods' sandboxes, made of five lines of C: no registry has to answer."""
    import io
    import tarfile

    with tempfile.TemporaryDirectory() as folder:
        program, archive = Path(folder, "pause"), Path(folder, "pause.tar")
        subprocess.run(
            ["cc", "-static", "-Os", "-x", "c", "-", "-o", str(program)],
            input=_PAUSE_SOURCE.encode(),
            check=True,
        )
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            tar.add(program, "pause")
        _save(archive, PAUSE, layer.getvalue(), {"Entrypoint": ["/pause"]})
        give_up = time.monotonic() + 30
        while not Path(cluster.run, "containerd.sock").exists() and time.monotonic() < give_up:
            time.sleep(0.05)
        cluster.ctr("images", "import", str(archive))


def _save(archive: Path, reference: str, layer: bytes, config: dict[str, Any]) -> None:
    """An image of one layer in the form of `docker save`."""
    import hashlib
    import io
    import tarfile

    body = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        parts = {"config.json": body, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}  # fmt: skip
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _end(cluster: Cluster) -> None:
    """Containers first, as long as somebody knows them; then every process that was started here."""
    with contextlib.suppress(Exception):
        if "kubelet" in cluster.processes:
            cluster.end("kubelet", signal.SIGKILL)
        for task in cluster.ctr("tasks", "ls", "-q").split():
            subprocess.run(
                ["ctr", "--address", f"{cluster.run}/containerd.sock", "-n", "k8s.io", "tasks", "rm", "-f", task],
                capture_output=True,
            )  # fmt: skip
    for name in [*cluster.processes]:
        cluster.end(name, signal.SIGTERM if name == "containerd" else signal.SIGKILL)
    _end_shims(cluster)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(
        [m for m in mounts if m.startswith((str(cluster.run), str(cluster.home)))]
    ):
        subprocess.run(["umount", "-l", mount], capture_output=True)
    subprocess.run(["ip", "netns", "del", cluster.namespace], capture_output=True)
    _remove_cgroups()
    shutil.rmtree(cluster.home / "containerd", ignore_errors=True)


def _end_shims(cluster: Cluster) -> None:
    """containerd's shims outlive it; ours have our socket on their command line."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if b"containerd-shim" in line and f"{cluster.run}/".encode() in line:
                os.kill(int(entry.name), signal.SIGKILL)


def _remove_cgroups() -> None:
    for root in Path("/sys/fs/cgroup").glob("*/kubepods"), [Path("/sys/fs/cgroup/kubepods")]:
        for folder in root:
            for inner, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(inner)


def _setns(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, 0x40000000) != 0:  # CLONE_NEWNET; os.setns is Python 3.12's
        raise OSError(ctypes.get_errno(), "setns")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((NODE, 0))
        return int(sock.getsockname()[1])


def main() -> int:
    if reason := binaries.absent():
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with running(Path(folder)) as cluster:
            command = sys.argv[1:] or [os.environ.get("SHELL", "/bin/sh")]
            env = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
            return subprocess.run(cluster.inside(*command), env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
