"""Stand-ins for `python:3.x-slim-bookworm`, made from Debian's packages where no registry has the real ones.

    python tests/images/bases.py [3.11 …]     pull or make them; DOCKER_HOST says where

A minimal Debian, this machine's interpreter at /usr/local without its tests, pip alone in
site-packages, and this machine's CA bundle, which pip needs where a proxy signs its index.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import environments

DEBIAN = "dhpy-test/debian:bookworm"
MIRROR = os.environ.get("DHPY_DEBIAN_MIRROR", "http://deb.debian.org/debian")
# What the real image has, and the libraries that the standard library is linked with.
PACKAGES = (
    "ca-certificates,netbase,tzdata,libssl3,libsqlite3-0,libffi8,libbz2-1.0,liblzma5,zlib1g,"
    "libreadline8,libncursesw6,libuuid1,libexpat1,libnsl2,libcrypt1"
)
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
NOT_COPIED = (
    "test", "tests", "idle_test", "__pycache__", "site-packages", "idlelib", "turtledemo", "tkinter",
    "_tkinter*", "lib2to3", "config-3*", "*.a",
)  # fmt: skip
DOCKERFILE = """\
FROM {debian}
COPY local/ /usr/local/
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY pip.conf /etc/pip.conf
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 PYTHON_VERSION={version} \\
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
RUN ldconfig && python3 -m ensurepip --root / && cd /usr/local/bin \\
    && for name in python pip; do test -e $name || ln -s ${{name}}3 $name; done \\
    && pip uninstall -q -y setuptools --root-user-action=ignore; rm -rf /root/.cache
LABEL dhpy-test.stand-in="python:{version}-slim-bookworm"
CMD ["python3"]
"""


def ensure(version: str) -> str:
    """The reference of a base image that the engine has; made when it is absent.

    Raises:
        LookupError: it can be neither pulled nor made; the text says why.
    """
    reference = f"python:{version}-slim-bookworm"
    if _docker("image", "inspect", reference) or _docker("pull", "--quiet", reference):
        return reference
    interpreter = environments.interpreters().get(version)
    if interpreter is None:
        raise LookupError(f"no registry answers, and this machine has no Python {version}")
    ensure_debian()
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        _copy_interpreter(Path(interpreter).resolve().parents[1], context / "local")
        shutil.copyfile(BUNDLE, context / BUNDLE.name)
        (context / "pip.conf").write_text(f"[global]\ncert = {BUNDLE}\n")
        (context / "Dockerfile").write_text(DOCKERFILE.format(debian=DEBIAN, version=version))
        if not _docker("build", "--network=host", "--tag", reference, folder, show=True):
            raise LookupError(f"the stand-in {reference} cannot be built")
    return reference


def ensure_debian() -> None:
    """A minimal Debian without Python."""
    if _docker("image", "inspect", DEBIAN):
        return
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise LookupError("no registry answers, and debootstrap (as root) is needed for a stand-in")
    with tempfile.TemporaryDirectory() as folder:
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", folder]
        subprocess.run([*command, MIRROR], check=True, stdout=sys.stderr)
        for litter in (
            "var/cache/apt/archives",
            "var/lib/apt/lists",
            "usr/share/doc",
            "usr/share/man",
            "usr/share/locale",
        ):
            shutil.rmtree(Path(folder, litter), ignore_errors=True)
        Path(folder, "var/lib/apt/lists/partial").mkdir(parents=True)
        Path(folder, "var/cache/apt/archives/partial").mkdir(parents=True)
        with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(
                [docker(), "import", "--change", "LABEL dhpy-test.stand-in=debian", "-", DEBIAN],
                stdin=tar.stdout,
                check=True,
                stdout=sys.stderr,
            )


def _copy_interpreter(prefix: Path, target: Path) -> None:
    library = next((prefix / "lib").glob("python3.*"))
    ignore = shutil.ignore_patterns(*NOT_COPIED)
    shutil.copytree(library, target / "lib" / library.name, symlinks=True, ignore=ignore)
    (target / "lib" / library.name / "site-packages").mkdir()
    for shared in (prefix / "lib").glob("libpython3*"):
        if not shared.name.endswith(".a"):
            shutil.copy2(shared, target / "lib" / shared.name, follow_symlinks=False)
    (target / "bin").mkdir()
    shutil.copy2(prefix / "bin" / library.name, target / "bin" / library.name)
    (target / "bin" / "python3").symlink_to(library.name)


def docker() -> str:
    return "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"


def _docker(*arguments: str, show: bool = False) -> bool:
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}
    output = sys.stderr if show else subprocess.DEVNULL
    return (
        subprocess.run([docker(), *arguments], env=env, stdout=output, stderr=output).returncode
        == 0
    )


if __name__ == "__main__":
    for one in sys.argv[1:] or environments.VERSIONS:
        try:
            print(ensure(one))
        except LookupError as exc:
            print(f"python:{one}-slim-bookworm: {exc}")
