"""Images without a daemon, as far as no container and no registry is needed: layers, bases, layouts."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import environments
import pytest
from standin_layout import installed, python_files, tar_of, write_base

from digitalhub_python_builder.build import Options, Result, build
from digitalhub_python_builder.locks import lock_alone
from digitalhub_python_builder.native import packages, python, tree
from digitalhub_python_builder.native.layers import Entry, write
from digitalhub_python_builder.native.store import Store
from digitalhub_runtime_python.errors import EnvironmentFault
from digitalhub_runtime_python.spec import FunctionSpec, SourceSpec

SITE = "usr/local/lib/python3.11/site-packages"
CODE = {"main.py": b"def f(): return 1\n"}
NOWHERE = {"DOCKER_HOST": "unix:///nowhere", "CONTAINERD_ADDRESS": "/nowhere"}


def _build(tmp_path: Path, base: Path, *requirements: str, **options: Any) -> Result:
    function = FunctionSpec(
        name="demo", project="p", source=SourceSpec(source="main.py", handler="f"),
        python_version="PYTHON3_11", requirements=requirements, base_image=f"oci:{base}",
    )  # fmt: skip
    wanted = Options(engine="native", output=f"oci:{tmp_path / 'out'}", platform="linux/amd64", flavour="slim", **options)  # fmt: skip
    environ = {**os.environ, **NOWHERE}
    return build(function, wanted, code=CODE, cache=tmp_path / "cache", environ=environ)


def _files(layout: Path) -> dict[str, tarfile.TarInfo]:
    """The files of an image's own layers, uppermost last, with whiteouts."""
    found: dict[str, tarfile.TarInfo] = {}
    for layer in _manifest(layout)["layers"][1:]:
        with tarfile.open(_blob(layout, layer["digest"])) as tar:
            found.update({member.name: member for member in tar})
    return found


def _manifest(layout: Path) -> dict[str, Any]:
    index = json.loads((layout / "index.json").read_text())
    return dict(json.loads(_blob(layout, index["manifests"][0]["digest"]).read_bytes()))


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest[7:]


def test_a_function_on_a_foreign_base_has_runtime_requirements_and_code(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    result = _build(tmp_path, base, "six==1.16.0")
    files = _files(tmp_path / "out")
    assert {f"{SITE}/six.py", f"{SITE}/dhpy.pth", "opt/function/code/main.py", "shared"} <= set(files)  # fmt: skip
    assert "opt/dhpy/digitalhub_runtime_python/lifecycle.py" in files
    assert files["shared"].mode == 0o1777
    assert {(f.uid, f.gid, f.mtime, f.uname) for f in files.values()} == {(0, 0, 0, "")}
    config = json.loads(_blob(tmp_path / "out", result.image.id).read_bytes())
    assert config["config"]["User"] == "8877" and config["created"] == "1970-01-01T00:00:00Z"
    assert config["config"]["Entrypoint"][0] == "python3"
    assert len(config["rootfs"]["diff_ids"]) == len(_manifest(tmp_path / "out")["layers"])


def test_a_package_of_the_base_in_another_version_leaves_no_file(tmp_path: Path) -> None:
    old = {"six.py": b"old", "six_extra/__init__.py": b"", "six_extra/data.txt": b"x", "../../../bin/six": b"#!"}  # fmt: skip
    members = [*python_files(), *installed("six", "1.15.0", old, SITE), ("usr/local/lib/python3.11/site-packages/__pycache__/six.cpython-311.pyc", b"old")]  # fmt: skip
    members = [(os.path.normpath(path), content) for path, content in members]
    _build(tmp_path, write_base(tmp_path / "base", members), "six==1.16.0")
    names = set(_files(tmp_path / "out"))
    hidden = {name.replace(".wh.", "") for name in names if "/.wh." in name}
    assert {f"{SITE}/six.py", f"{SITE}/six-1.15.0.dist-info", f"{SITE}/six_extra", "usr/local/bin/six"} <= hidden  # fmt: skip
    assert f"{SITE}/__pycache__" in hidden or f"{SITE}/__pycache__/six.cpython-311.pyc" in hidden
    assert f"{SITE}/six-1.16.0.dist-info/RECORD" in names
    assert SITE not in hidden and "usr/local/bin" not in hidden


def test_a_package_that_the_base_has_in_that_version_makes_no_layer(tmp_path: Path) -> None:
    members = [*python_files(), *installed("six", "1.16.0", {"six.py": b"there"}, SITE)]
    _build(tmp_path, write_base(tmp_path / "base", members), "six==1.16.0")
    assert f"{SITE}/six.py" not in _files(tmp_path / "out")


def test_a_record_that_leads_out_of_the_image_hides_nothing_there(tmp_path: Path) -> None:
    old = {"six.py": b"old", "../../../../../../../../etc/passwd": b""}
    members = [*python_files(), ("etc/passwd", b"root"), *((p, c) for p, c in installed("six", "1.15.0", old, SITE) if ".." not in p)]  # fmt: skip
    _build(tmp_path, write_base(tmp_path / "base", members), "six==1.16.0")
    hidden = [name for name in _files(tmp_path / "out") if "/.wh." in name or name.startswith(".wh.")]  # fmt: skip
    assert hidden and all(name.startswith(("usr/local/lib/", "etc/.wh.passwd")) for name in hidden)
    assert not any(".." in name for name in hidden)


HOSTS = [version for version in ("3.9", "3.13") if (environments.HOME / version).exists()]
SCRIPT = """
import json, sys
from pathlib import Path
from test_native import _build
from standin_layout import write_base
place = Path(sys.argv[1])
_build(place, write_base(place / "base"), "click==8.1.7", "six==1.16.0")
print(json.loads((place / "out" / "index.json").read_text())["manifests"][0]["digest"])
"""


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="asks other Pythons by itself")
def test_one_plan_is_one_digest_from_every_host_home_umask_locale_and_time(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    found = {}
    for number, version in enumerate(["3.11", *HOSTS]):
        place = tmp_path / f"place{number}" / "/".join(["deeper"] * (number + 1))
        place.mkdir(parents=True)
        env = {
            **os.environ, "HOME": str(place), "PYTHONHASHSEED": str(number), "PYTHONPATH": f"{tests}:{tests}/builder",
            "LC_ALL": ["C.UTF-8", "C", "POSIX"][number], "TZ": ["UTC", "Asia/Tokyo", "America/Lima"][number],
        }  # fmt: skip
        program = environments.HOME / version / "bin" / "python"
        done = subprocess.run(
            [str(program), "-c", SCRIPT, str(place)], env=env, capture_output=True, text=True, umask=[0o022, 0o077, 0o002][number],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found[version] = done.stdout.strip()
    assert len(set(found.values())) == 1, found


def _raw(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, data: bytes = b"") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT) + data + b"\0" * 1024


HOSTILE = {
    "a path that leads out": (tar_of([("../../etc/passwd", b"x")]), "leads out"),
    "a path that leads out on the way": (tar_of([("a/../../b", b"x")]), "leads out"),
    "a whiteout of the folder above": (tar_of([("usr/.wh...", b"")]), "hides"),
    "a whiteout of itself": (tar_of([("usr/.wh..", b"")]), "hides"),
    "a whiteout of nothing": (tar_of([("usr/.wh.", b"")]), "hides"),
    "a header of a gigabyte": (_raw("x", tarfile.XHDTYPE, 1 << 30), "header"),
    "a long name of a gigabyte": (_raw("x", tarfile.GNUTYPE_LONGNAME, 1 << 30), "header"),
    "no tar": (b"not a tar" * 200, "cannot be read"),
    "links in circles": (
        tar_of([("usr/local/bin/python3", ("link", "python")), ("usr/local/bin/python", ("link", "python3"))]), "circles",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(HOSTILE))
def test_a_hostile_base_is_refused(tmp_path: Path, what: str) -> None:
    layer, why = HOSTILE[what]
    base = write_base(tmp_path / "base", tars=[layer])
    with pytest.raises(EnvironmentFault, match=why) as caught:
        _build(tmp_path, base)
    assert caught.value.code == "build/base-image-unsafe"
    assert not (tmp_path / "out").exists()


def test_a_layer_that_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "SIZE_LIMIT", 8 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = tarfile.TarInfo("zeros")
    head.size = 64 << 20
    parts = [packer.compress(head.tobuf())]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(64)]
    data = b"".join([*parts, packer.flush()])
    with pytest.raises(EnvironmentFault, match="unpacks to more than 8 MiB"):
        tree.read_layer(io.BytesIO(data), len(data), "application/x+gzip", "sha256:x")


@pytest.mark.parametrize(
    "data", [b"", b"(\xb5/\xfd", b"(\xb5/\xfd" + b"\xff" * 99, b"no zstd at all" * 50]
)
def test_a_layer_in_zstd_that_is_spoiled_is_refused(data: bytes) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        tree.read_layer(io.BytesIO(data), len(data), "application/x+zstd", "sha256:x")
    assert caught.value.code in ("build/base-image-unsafe", "build/digest")


def test_a_full_disk_is_named_and_leaves_nothing_half(tmp_path: Path) -> None:
    store = Store(tmp_path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limit[1]))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(EnvironmentFault, match="cannot be written: File too large"):
            store.add(bytes(1 << 17))
    finally:
        signal.signal(signal.SIGXFSZ, before)
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not [one for one in tmp_path.rglob("*") if one.is_file()]


@pytest.mark.parametrize("what", ["content", "config", "layers"])
def test_a_base_that_is_not_what_its_digests_say_is_refused(tmp_path: Path, what: str) -> None:
    base = write_base(tmp_path / "base")
    manifest = _manifest(base)
    if what == "content":
        other = write_base(tmp_path / "other", [*python_files(), ("more", b"x")])
        _blob(base, manifest["layers"][0]["digest"]).write_bytes(_blob(other, _manifest(other)["layers"][0]["digest"]).read_bytes())  # fmt: skip
    elif what == "config":
        _blob(base, manifest["config"]["digest"]).write_bytes(b"{}")
    else:
        base = write_base(tmp_path / "more", alter=lambda manifest: manifest["layers"].append(manifest["layers"][0]))  # fmt: skip
    with pytest.raises(EnvironmentFault) as caught:
        _build(tmp_path, base)
    assert caught.value.code in ("build/digest", "build/base-image-unsafe")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (python_files(), ("3.11", "/usr/local/bin/python3", SITE, "glibc 2.36")),
        (
            [*python_files(prefix="opt/conda"), ("usr/local/bin/python3", ("link", "/opt/conda/bin/python3"))],
            ("3.11", "/usr/local/bin/python3", "opt/conda/lib/python3.11/site-packages", "glibc 2.36"),
        ),
        (
            [*python_files(prefix="usr"), ("usr/lib/python3/dist-packages", None), ("usr/bin/x", b"")],
            ("3.11", "/usr/bin/python3", "usr/local/lib/python3.11/dist-packages", "glibc 2.36"),
        ),
        ([("bin", None), ("bin/sh", b"")], ("", "", "", "")),
    ],
    ids=["python's own image", "conda", "Debian's own", "no Python"],
)  # fmt: skip
def test_where_python_lives_is_read_from_the_files(
    members: list[Any], expected: tuple[str, ...]
) -> None:
    layer = tar_of(members)
    index = tree.read_layer(io.BytesIO(layer), len(layer), "x", _sha(layer))
    found = python.locate(
        tree.merge([index]), {"config": {"Env": ["PATH=/usr/local/bin:/usr/bin"]}}
    )
    assert (found.version, found.program, found.site.lstrip("/"), found.libc) == expected


def test_a_virtual_environment_of_the_base_is_where_packages_go() -> None:
    members = [
        *python_files(), ("opt/venv/bin", None), ("opt/venv/lib/python3.11/site-packages", None),
        ("opt/venv/pyvenv.cfg", b"home = /usr/local/bin\n"), ("opt/venv/bin/python3", ("link", "/usr/local/bin/python3")),
    ]  # fmt: skip
    layer = tar_of(members)
    index = tree.read_layer(io.BytesIO(layer), len(layer), "x", _sha(layer))
    found = python.locate(tree.merge([index]), {"config": {"Env": ["PATH=/opt/venv/bin:/usr/local/bin"]}})  # fmt: skip
    assert found.program == "/opt/venv/bin/python3" and found.prefix == "/opt/venv"
    assert found.site == "/opt/venv/lib/python3.11/site-packages"


def test_layers_hide_what_is_below_them() -> None:
    below = {"nodes": {p: ["d" if p in ("a", "a/b") else "f", 0, 0, 0, ""] for p in ("a", "a/b", "a/b/c", "a/d", "e")}, "contents": {}, "hidden": []}  # fmt: skip

    def merged(hidden: list[str], **nodes: str) -> set[str]:
        above = {"nodes": {p: [k, 0, 0, 0, ""] for p, k in nodes.items()}, "contents": {}, "hidden": hidden}  # fmt: skip
        return set(tree.merge([below, above]).nodes)

    assert merged(["a/b"]) == {"a", "a/d", "e"}
    assert merged(["a/"], a="d") == {"a", "e"}
    assert merged([], a="f") == {"a", "e"}
    assert merged(["/"]) == set()


def test_a_kill_while_a_layer_is_made_leaves_nothing_that_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)

    class Stopped(BaseException):
        pass

    with pytest.raises(Stopped), store.writer() as blob:
        blob.write(b"half of a layer")
        raise Stopped
    assert not list((tmp_path / "images" / "blobs" / "sha256").iterdir())
    assert not list((tmp_path / "images" / "tmp").iterdir())
    assert (tmp_path / "images").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_layer_is_its_files_whatever_compresses_it(tmp_path: Path, compression: str) -> None:
    files = {"a": Entry(), "a/b": Entry(b"x" * (9 << 20)), "a/c": Entry(link="b")}
    made = write(Store(tmp_path), files, compression=compression)
    with Store(tmp_path).open(made.digest) as blob:
        index = tree.read_layer(blob, made.size, made.media_type, made.diff_id)
    assert {p: n[0] for p, n in index["nodes"].items()} == {"a": "d", "a/b": "f", "a/c": "l"}


def test_wheels_are_for_the_target_and_not_for_this_machine(tmp_path: Path) -> None:
    found = python.Python("3.10", "/usr/local/bin/python3", "/usr/local", "/usr/local/lib/python3.10/site-packages")  # fmt: skip
    target = packages.Target(found, "linux/arm64", "", {})
    lock = lock_alone(["markupsafe==3.0.2"], "3.10", "linux/arm64")
    (layer,) = packages.make(packages.parse(lock), target, Store(tmp_path), os.environ, print)
    with tarfile.open(Store(tmp_path).path(layer.digest)) as tar:
        wheel = tar.extractfile("usr/local/lib/python3.10/site-packages/MarkupSafe-3.0.2.dist-info/WHEEL")  # fmt: skip
        assert wheel is not None
        assert "cp310-cp310-manylinux" in (text := wheel.read().decode()) and "aarch64" in text


def _sha(data: bytes) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(data).hexdigest()}"
