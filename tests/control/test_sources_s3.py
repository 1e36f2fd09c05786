"""The runtime's s3:// sources against the control plane's own S3."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store
from servers.surroundings import files_below
from serving import Plane

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import fetch
from digitalhub_runtime_python.spec import SourceSpec


def test_a_file_a_zip_and_a_folder_come_from_the_control_plane(plane: Plane, tmp_path: Path):
    endpoint = f"{plane.settings.url}/s3"
    options = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "us-east-1",
    }
    store = S3Store(
        "files",
        config={name.lower(): value for name, value in options.items()},
        client_options={"allow_http": True},
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("main.py", "zipped")
    files = {"p/f/main.py": b"a", "p/f/pkg/ü b.py": b"b", "p/g/archive.zip": buffer.getvalue()}
    for key, content in files.items():
        obstore.put(store, key, content)
    settings = Settings(store_options=options, cache=tmp_path / "cache")

    def get(source: str, name: str) -> dict[str, str]:
        fetch(SourceSpec(source=source), tmp_path / name, settings)
        return files_below(tmp_path / name)

    for attempt in "12":  # the second time from the cache, by ETag
        assert get("s3://files/p/f/main.py", f"file{attempt}") == {"main.py": "a"}
        assert get("zip+s3://files/p/g/archive.zip", f"zip{attempt}") == {"main.py": "zipped"}
        assert get("s3://files/p/f/", f"all{attempt}") == {"main.py": "a", "pkg/ü b.py": "b"}
    for missing in ("s3://files/p/nope.py", "s3://files/p/nope/"):
        with pytest.raises(SourceFault) as caught:
            get(missing, "missing")
        assert caught.value.code == "source/not-found"
