"""Generators are streams; the path says which."""


def text():
    yield "one\n"
    yield "zwö\n"


def raw():
    yield b"\x00"
    yield b"\xff"


def objects():
    yield {"n": 1}
    yield {"n": 2}


def nothing():
    return
    yield


def raises_first():
    raise ValueError("before anything was sent")
    yield "x"


def single():
    yield "only"


def with_status(Response):
    yield Response(status_code=201, headers={"X-One": "1"}, content_type="text/csv", body="a,b\n")
    yield "1,2\n"


async def agen():
    yield "async "
    yield "in a plain function"


def handler(context, event):
    Response = context.Response
    return {
        "/text": lambda: text(),
        "/raw": lambda: Response(body=raw(), content_type="application/octet-stream"),
        "/objects": lambda: objects(),
        "/nothing": lambda: nothing(),
        "/raises-first": lambda: raises_first(),
        "/single": lambda: single(),
        "/status": lambda: with_status(Response),
        "/response": lambda: Response(body=text(), status_code=202, headers={"X-One": "1"}),
        "/agen": lambda: agen(),
        "/inside": lambda: {"generator": text()},
        "/events": lambda: Response(body=events(), content_type="text/event-stream"),
    }[event.path]()


def events():
    yield "plain"
    yield "two\nlines"
    yield {"n": 1}
    yield {"event": "named", "id": 7, "data": {"x": "y"}}
    yield "data: by hand\n\n"
    yield {"event": "a\nb", "data": "injected"}
