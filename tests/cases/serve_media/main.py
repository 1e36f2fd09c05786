"""Files and buffers that are answers; the path says which."""
import io
import pathlib
import tempfile

FOLDER = pathlib.Path(tempfile.mkdtemp())
PNG = b"\x89PNG\r\n\x1a\n and more"
(FOLDER / "table.csv").write_text("a,b\n1,2\n")


def handler(context, event):
    return {
        "/path": lambda: FOLDER / "table.csv",
        "/file": lambda: (FOLDER / "table.csv").open("rb"),
        "/buffer": lambda: io.BytesIO(PNG),
        "/text": lambda: io.StringIO("sp\u00e4ter"),
        "/status-path": lambda: (404, FOLDER / "table.csv"),
        "/typed": lambda: context.Response(body=io.BytesIO(b"x"), headers={"Content-Type": "audio/ogg"}),
        "/status": lambda: (201, io.BytesIO(PNG)),
        "/response": lambda: context.Response(body=io.BytesIO(b"x"), headers={"X-One": "1"}, content_type="audio/wav"),
        "/closed": closed,
        "/folder": lambda: FOLDER / "nothing-there",
    }[event.path]()


def closed():
    buffer = io.BytesIO(b"x")
    buffer.close()
    return buffer
