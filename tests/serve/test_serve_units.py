"""Parts of serving by themselves: what hypothesis finds in values, bodies, headers and arguments."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import enum
import json
import math
import pickle
import re
from pathlib import Path
from typing import Any, List, Optional  # noqa: UP035 - as users write it

import nuclio_sdk
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from digitalhub_runtime_python import arguments
from digitalhub_runtime_python.calls import binding, multipart, replies
from digitalhub_runtime_python.calls.encoding import encode_event, encode_json
from digitalhub_runtime_python.calls.event import RequestEvent, canonical_name, decode_json
from digitalhub_runtime_python.errors import ArgumentFault, OutputFault
from digitalhub_runtime_python.lifecycle import ReadyFunction
from digitalhub_runtime_python.serve import openapi
from digitalhub_runtime_python.settings import ServeSettings
from digitalhub_runtime_python.spec import RunSpec, SourceSpec

ROOT = Path(__file__).resolve().parents[2]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
any_values = st.recursive(
    json_values
    | st.binary()
    | st.complex_numbers()
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.decimals()
    | st.text(st.characters())
    | st.just(object())
    | st.sampled_from([len, int, Exception("x"), ..., range(3)]),
    lambda inner: st.lists(inner, max_size=3)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers() | st.floats(), inner, max_size=3)
    | st.sets(st.integers(), max_size=3)
    | st.builds(lambda body, status: nuclio_sdk.Response(body=body, status_code=status), inner, st.integers(-1, 700)),
    max_leaves=6,
)  # fmt: skip


def event(body: bytes = b"", content_type: str = "", path: str = "/", **more: Any) -> RequestEvent:
    headers = [(b"content-type", content_type.encode())] if content_type else []
    scope = {"method": "POST", "path": path, "query_string": b"", "headers": headers, **more}
    return RequestEvent(scope, body, content_type)


@given(any_values)
def test_every_value_is_a_response_or_a_fault_that_says_why(value: Any) -> None:
    try:
        reply = replies.to_reply(value, str)
    except OutputFault as fault:
        assert fault.code.startswith("outputs/")
        assert fault.hint
        return
    assert 200 <= reply.status <= 599
    assert isinstance(reply.body, bytes)
    headers = dict(reply.headers)
    assert all(isinstance(part, bytes) for header in reply.headers for part in header)
    if reply.status not in (204, 304):
        assert headers[b"content-length"] == b"%d" % len(reply.body)
    else:
        assert not reply.body
    if headers.get(b"content-type") == b"application/json":
        json.loads(reply.body)


@given(json_values)
def test_json_comes_back_as_it_was(value: Any) -> None:
    def spelled(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        if isinstance(value, list):
            return [spelled(v) for v in value]
        return {k: spelled(v) for k, v in value.items()} if isinstance(value, dict) else value

    try:
        raw = encode_json(value)
    except OutputFault:
        assert any(0xD800 <= ord(c) < 0xE000 for c in repr(value).encode("ascii", "backslashreplace").decode()) or "\\ud" in json.dumps(value)  # fmt: skip
        return
    # Strict: no NaN, no Infinity.
    assert json.loads(raw, parse_constant=lambda name: pytest.fail(name)) == spelled(value)


def test_values_of_other_libraries_have_json_forms() -> None:
    numpy = pytest.importorskip("numpy")
    pandas = pytest.importorskip("pandas")
    pydantic = pytest.importorskip("pydantic")

    class Item(pydantic.BaseModel):
        name: str
        when: datetime.date

    def sent(value: Any) -> tuple[str, Any]:
        reply = replies.to_reply(value, str)
        kind = dict(reply.headers)[b"content-type"].decode()
        return kind, json.loads(reply.body) if "json" in kind else reply.body.decode()

    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", None]})
    assert sent(frame) == ("application/json", [{"a": 1, "b": "x"}, {"a": 2, "b": None}])
    assert sent(frame["a"]) == ("application/json", [1, 2])
    assert sent({"frame": frame})[1] == {"frame": [{"a": 1, "b": "x"}, {"a": 2, "b": None}]}
    assert sent(numpy.arange(3)) == ("application/json", [0, 1, 2])
    assert sent(numpy.float64(2.5)) == ("text/plain", "2.5")
    assert sent(numpy.int32(5)) == ("text/plain", "5")
    values = {"f": numpy.float32(0.5), "i": numpy.int64(5), "b": numpy.bool_(True), "n": numpy.float64("nan")}  # fmt: skip
    assert sent(values)[1] == {"f": 0.5, "i": 5, "b": True, "n": "NaN"}
    assert sent(numpy.array([1.0, float("nan")]))[1] == [1.0, "NaN"]
    assert sent(Item(name="x", when=datetime.date(2026, 1, 2)))[1] == {"name": "x", "when": "2026-01-02"}  # fmt: skip
    assert sent([Item(name="x", when=datetime.date(2026, 1, 2))])[1][0]["name"] == "x"
    assert sent({"t": pandas.Timestamp("2026-01-02")})[1]["t"].startswith("2026-01-02")
    assert "2026-01-02" in sent(pandas.Timestamp("2026-01-02"))[1]


def test_frames_of_polars_and_pyarrow_are_rows() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    reply = replies.to_reply(pyarrow.table({"a": [1, 2]}), str)
    assert json.loads(reply.body) == [{"a": 1}, {"a": 2}]


@given(st.text(), st.text())
def test_no_header_can_add_another(name: str, value: str) -> None:
    try:
        reply = replies.to_reply(nuclio_sdk.Response(headers={name: value}, body="x"), str)
    except OutputFault as fault:
        assert fault.code == "outputs/header"
        return
    for raw_name, raw_value in reply.headers:
        assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", raw_name)
        assert not re.search(rb"[\r\n\0]", raw_value)


@given(any_values)
def test_an_event_is_one_event(value: Any) -> None:
    try:
        raw = encode_event(value)
    except OutputFault:
        return
    if isinstance(value, (bytes, nuclio_sdk.Response)) or (
        isinstance(value, str) and value.endswith("\n\n")
    ):
        return
    assert raw.endswith(b"\n\n")
    assert raw.count(b"\n\n") == 1
    assert b"\r" not in raw


# --- events -----------------------------------------------------------------------------------


@given(st.binary())
def test_any_body_is_an_event(body: bytes) -> None:
    for kind in ("", "application/json", "application/json; charset=latin-1", "multipart/form-data; boundary=x"):  # fmt: skip
        made = event(body, kind)
        assert made.size == len(body)
        assert json.loads(made.to_json())["size"] == len(body)
        if not body or kind == "":
            assert made.body == body


@given(st.text(alphabet="/.ab", max_size=20))
def test_paths_have_no_dots_or_double_slashes(path: str) -> None:
    normal = event(path="/" + path).path
    assert normal.startswith("/")
    assert "//" not in normal
    assert not {".", ".."} & set(normal.split("/"))


def test_an_event_can_be_copied_pickled_and_assigned_to() -> None:
    made = event(b'{"a": 1}', "application/json", extra_connection=open)
    made.body = {"mine": 2}
    made.something = 3
    for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert (other.body, other.something, other.id) == ({"mine": 2}, 3, made.id)
        assert other.trigger.kind == "http"
    assert event().id != event().id
    with pytest.raises(AttributeError, match="nothing"):
        _ = made.nothing


def test_headers_are_nuclio_s_names_in_any_case() -> None:
    headers = event(headers=[(b"x-foo", b"1"), (b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x-foo", b"2")]).headers  # fmt: skip
    assert dict(headers) == {"X-Foo": "2", "Cookie": "a=1; b=2"}
    headers["content-TYPE"] = "text/plain"
    assert headers["Content-Type"] == headers.get("content-type") == "text/plain"
    assert headers.pop("CONTENT-type") == "text/plain"
    assert headers.pop("content-type", None) is None
    with pytest.raises(KeyError):
        _ = headers["X-Absent"]
    assert canonical_name("x-nuclio-target") == "X-Nuclio-Target"


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"", b"nul"])
def test_what_is_no_json_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        decode_json(raw)


# --- forms ------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=20), max_size=3),
    st.dictionaries(st.from_regex(r"[A-Z]{1,8}", fullmatch=True), st.binary(max_size=300), max_size=3),
)  # fmt: skip
def test_what_a_client_uploads_is_what_the_event_has(
    fields: dict[str, str], files: dict[str, bytes]
) -> None:
    sent = {
        name: (f"{name}.bin", content, "application/x-thing") for name, content in files.items()
    }
    request = requests.Request(
        "POST", "http://x/", data=fields, files=sent or {"F": b"x"}
    ).prepare()
    made = event(request.body, request.headers["content-type"])  # type: ignore[arg-type]
    assert made.form == fields
    if files:
        assert {n: p.body for n, p in made.files.items()} == files
        assert {p.content_type for p in made.files.values()} == {"application/x-thing"}


@given(st.binary(max_size=200))
def test_a_broken_form_is_an_answer_with_400(raw: bytes) -> None:
    for body in (raw, b"--x\r\n" + raw, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + raw):  # fmt: skip
        try:
            multipart.parse("multipart/form-data; boundary=x", body)
        except nuclio_sdk.ExceptionWithResponse as exc:
            assert exc.status_code == 400


def test_a_form_of_too_many_parts_is_refused() -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    with pytest.raises(nuclio_sdk.ExceptionWithResponse):
        multipart.parse("multipart/form-data; boundary=x", part * 1001 + b"--x--\r\n")


# --- arguments --------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


def plain(a, b=2): ...
def hinted(a: int, b: str = "x", c: float = 1.0, d: Optional[List[int]] = None): ...  # noqa: UP006, UP045
def with_event(event, a: int = 0): ...
def with_context(context, a: int = 0, *, b: bool = False): ...
def with_any(a: int, **others): ...
def positional(a: int, b: int = 2, /, c: int = 3): ...
def structured(point: Point, colour: Colour = Colour.RED): ...
def reserved(project, a: int = 0): ...
def only_event(event): ...
def nothing(): ...


FUNCTIONS = [
    plain, hinted, with_event, with_context, with_any, positional, structured, reserved, only_event,
    nothing,
]  # fmt: skip


@given(
    function=st.sampled_from(FUNCTIONS),
    fields=st.dictionaries(
        st.sampled_from(["a", "b", "c", "d", "event", "context", "project", "point", "other"]),
        st.sampled_from([1, "x", 1.5, True, None, [1], {"x": 1}, {"x": "no"}]),
        max_size=4,
    ),
    parameters=st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([7, "y"]), max_size=2),
)
def test_the_short_way_binds_what_compose_binds(
    function: Any, fields: dict[str, Any], parameters: dict[str, Any]
) -> None:
    signature = arguments.read_signature(function)
    injected = {"project": lambda: "P", "run": lambda: "R", "context": lambda: "C"}
    run = RunSpec("r", "p", "serve", SourceSpec(), parameters=parameters)
    ready = ReadyFunction(function, signature, [], {}, injected)
    made = event(json.dumps(fields).encode(), "application/json")
    lenient = signature.names("event") or signature.names("context")
    named = set(arguments.RESERVED) & signature.parameters.keys()
    given_fields = {k: v for k, v in fields.items() if k not in named}

    def expected() -> arguments.Arguments:
        arguments.check(
            signature,
            parameters,
            injected={*arguments.RESERVED, *signature.parameters.keys() - parameters.keys()},
        )
        sources = (parameters, given_fields) if signature.parameters else (parameters,)
        both = {**injected, "event": lambda: made, "events": lambda: made}
        return arguments.compose(signature, *sources, injected=both, ignore_unknown=lenient)

    def got() -> arguments.Arguments:
        return binding.make_binder(ready, run)(made)

    try:
        wanted = expected()
    except ArgumentFault:
        if function is nothing and not parameters:
            return  # a function of no arguments ignores what is sent
        with pytest.raises(ArgumentFault):
            got()
        return
    assert got() == wanted


def test_parameters_that_do_not_fit_are_found_at_the_start() -> None:
    signature = arguments.read_signature(hinted)
    ready = ReadyFunction(hinted, signature, [], {}, {})
    for parameters in ({"a": "x"}, {"z": 1}):
        with pytest.raises(ArgumentFault):
            binding.make_binder(ready, RunSpec("r", "p", "serve", SourceSpec(), parameters=parameters))  # fmt: skip


# --- docs -------------------------------------------------------------------------------------


def test_every_setting_is_in_the_docs_with_its_default() -> None:
    text = (ROOT / "docs" / "reference" / "serving.md").read_text("utf-8")
    source = (ROOT / "wrapper/digitalhub_runtime_python/settings.py").read_text("utf-8")
    source = source[source.index("class ServeSettings") :]
    rows = dict(re.findall(r"^\| `(DHPY_\w+)` \| ([^|]*) \|", text, re.M))
    assert set(rows) == set(re.findall(r"`(DHPY_\w+)`", source))
    defaults = ServeSettings()
    for variable, value in (("DHPY_PORT", defaults.port), ("DHPY_WORKERS", defaults.workers), ("DHPY_WAIT", f"{defaults.wait:g} s"), ("DHPY_GRACE", f"{defaults.grace:g} s"), ("DHPY_QUEUE", defaults.queue), ("DHPY_KEEP_ALIVE", f"{defaults.keep_alive:g} s")):  # fmt: skip
        assert rows[variable] == str(value)


def test_every_error_code_of_serving_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")
    for file in (ROOT / "wrapper/digitalhub_runtime_python/serve").glob("*.py"):
        for code in re.findall(r'"((?:outputs|serve|usage)/[a-z-]+)"', file.read_text("utf-8")):
            assert f"| `{code}` |" in text, f"{code} of {file.name}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", "", {})),
        ("One line.", ("One line.", "", {})),
        ("First.\n\nMore.\n\n:param int n: the n\n:param x: the x", ("First.", "More.", {"n": "the n", "x": "the x"})),
        ("First.\n\nArgs:\n    n (int): the n\n    **rest: others\n", ("First.", "", {"n": "the n", "rest": "others"})),
    ],
)  # fmt: skip
def test_docstrings_are_read_in_the_usual_styles(text: str, expected: Any) -> None:
    assert openapi.read_docstring(text) == expected


def test_a_setting_that_cannot_be_is_named() -> None:
    from digitalhub_runtime_python.errors import UsageFault

    for name, value in (("DHPY_PORT", "70000"), ("DHPY_WORKERS", "0"), ("DHPY_WAIT", "-1"), ("DHPY_QUEUE", "many")):  # fmt: skip
        with pytest.raises(UsageFault, match=name):
            ServeSettings.from_env({name: value})


def test_async_is_known_through_partials_and_callables() -> None:
    import functools

    from digitalhub_runtime_python.calls.handling import is_async

    async def coroutine(): ...
    async def generator():
        yield

    class Callable:
        async def __call__(self): ...

    assert all(map(is_async, [coroutine, generator, functools.partial(coroutine), Callable()]))
    assert not any(map(is_async, [plain, functools.partial(plain), len, Point]))
