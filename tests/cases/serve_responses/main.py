"""What a Response may be made of; the path says which."""
import http
import os
import pathlib
import tempfile

FILE = pathlib.Path(tempfile.mkdtemp()) / "file.bin"


def handler(context, event):
    Response = context.Response
    if event.path == "/file":
        FILE.write_bytes(os.urandom(0) + b"0123456789" * 100_000)
        return Response(
            headers={
                "X-nuclio-filestream-path": str(FILE),
                "X-nuclio-filestream-delete-after-send": "true",
            },
            content_type="application/octet-stream",
        )
    if event.path == "/file-left":
        return str(FILE.exists())
    if event.path == "/batch":
        return [Response(body="wrong", event_id="x"), Response(body="right", event_id=event.id)]
    if event.path == "/batch-foreign":
        return [Response(body="a", event_id="x"), Response(body="b", event_id="y")]
    return {
        "/text": lambda: Response(body="text", status_code=201),
        "/none": lambda: Response(),
        "/bytes": lambda: Response(body=b"\x89PNG", content_type="image/png"),
        "/dict": lambda: Response(body={"a": 1}),
        "/dict-typed": lambda: Response(body={"a": 1}, content_type="application/ld+json"),
        "/dict-xml": lambda: Response(body={"a": 1}, content_type="text/xml"),
        "/list": lambda: Response(body=[1, 2]),
        "/int": lambda: Response(body=5),
        "/headers": lambda: Response(
            headers={"X-One": "1", "X-Number": 5, "X-Flag": True, "Set-Cookie": ["a=1", "b=2"]},
            body="x",
        ),
        "/header-type": lambda: Response(headers={"Content-Type": "text/csv"}, body="a,b"),
        "/header-length": lambda: Response(
            headers={"Content-Length": "999", "Transfer-Encoding": "chunked"}, body="abc"
        ),
        "/header-injection": lambda: Response(headers={"X": "a\r\nSet-Cookie: evil=1"}, body="x"),
        "/header-name": lambda: Response(headers={"X Y": "a"}, body="x"),
        "/status-none": lambda: Response(body="x", status_code=None),
        "/status-enum": lambda: Response(body="x", status_code=http.HTTPStatus.TEAPOT if hasattr(http.HTTPStatus, "TEAPOT") else 418),
        "/status-text": lambda: Response(body="x", status_code="202"),
        "/status-wrong": lambda: Response(body="x", status_code=99),
        "/status-204": lambda: Response(body="x", status_code=204),
        "/status-304": lambda: Response(headers={"ETag": '"1"'}, status_code=304),
        "/redirect": lambda: Response(headers={"Location": "/text"}, status_code=302),
        "/one-in-list": lambda: [Response(body="one")],
        "/tuple": lambda: (203, Response(body="x", headers={"X-One": "1"})),
        "/file-absent": lambda: Response(headers={"X-nuclio-filestream-path": "/nowhere/at/all"}),
    }[event.path]()
