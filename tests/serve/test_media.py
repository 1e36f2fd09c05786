"""Returned documents: images, figures, files and frames in the form that a client asks for; one JSON for jobs and services."""

from __future__ import annotations

import datetime
import decimal
import enum
import io
import json
import tempfile
import types
import uuid
from pathlib import Path
from typing import Any

import nuclio_sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitalhub_runtime_python.arguments import read_signature
from digitalhub_runtime_python.calls import media, replies
from digitalhub_runtime_python.calls.encoding import encode_json
from digitalhub_runtime_python.errors import OutputFault
from digitalhub_runtime_python.formats import json_form
from digitalhub_runtime_python.serve import openapi
from digitalhub_runtime_python.spec import RunSpec, SourceSpec

PNG = b"\x89PNG\r\n\x1a\n"


def _sent(value: Any, accept: str = "", *, whole: bool = True) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of what a function returned."""
    reply = replies.to_reply(media.replaced(value, accept, whole=whole), str)
    return reply.status, {k.decode(): v.decode() for k, v in reply.headers}, reply.body


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "a/x"), ("*/*", "a/x"), ("*", "a/x"), ("b/y", "b/y"), ("b/*", "b/y"), ("b/y;q=0.5, a/x;q=0.4", "b/y"),
        ("a/x;q=0, */*", "b/y"), ("a/*;q=0.1, a/x;q=0.9, b/y;q=0.5", "a/x"), ("c/z", None), ("a/x;q=0", None),
        ("B/Y", "b/y"), ("b/y ; Q=1", "b/y"), (",", "a/x"), ("a/x;q=nonsense, b/y", "b/y"), ("text/html, */*;q=0.1", "a/x"),
    ],
)  # fmt: skip
def test_a_media_type_is_chosen_as_http_asks(accept: str, chosen: str | None) -> None:
    assert media.preferred(accept, ["a/x", "b/y"]) == chosen


@given(st.text(max_size=60))
def test_whatever_is_accepted_something_offered_or_nothing_is_chosen(accept: str) -> None:
    assert media.preferred(accept, ["a/x", "b/y"]) in ("a/x", "b/y", None)


def test_an_image_is_a_png_or_what_is_asked_for() -> None:
    image = pytest.importorskip("PIL.Image")
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "F"):
        status, headers, body = _sent(image.new(mode, (3, 2)))
        assert (status, headers["content-type"], headers["vary"]) == (200, "image/png", "Accept")
        assert image.open(io.BytesIO(body)).size == (3, 2)
    assert _sent(image.new("RGBA", (3, 2)), "image/jpeg")[2].startswith(b"\xff\xd8\xff")
    assert (
        _sent(image.new("RGB", (3, 2)), "image/*;q=0.2, image/webp")[1]["content-type"]
        == "image/webp"
    )
    status, headers, body = _sent(image.new("RGB", (3, 2)), "application/xml")
    assert (status, b"image/png, image/jpeg, image/webp" in body) == (406, True)
    status, headers, body = _sent((201, image.new("RGB", (3, 2))))
    assert (status, headers["content-type"]) == (201, "image/png")
    given = nuclio_sdk.Response({"X-Mine": "1"}, image.new("RGB", (3, 2)), "image/jpeg", 203)
    status, headers, body = _sent(given, "image/png")
    assert (status, headers["content-type"], headers["x-mine"], body[:3]) == (
        203,
        "image/jpeg",
        "1",
        b"\xff\xd8\xff",
    )


def test_a_figure_is_a_png_an_svg_or_a_pdf() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    figure = figures.Figure()
    figure.subplots().plot([1, 2])
    assert _sent(figure)[2].startswith(PNG)
    assert b"<svg" in _sent(figure, "image/svg+xml")[2]
    assert _sent(figure, "application/pdf")[2].startswith(b"%PDF-")


def test_a_plotly_figure_is_a_page_or_json() -> None:
    graphs = pytest.importorskip("plotly.graph_objects")
    figure = graphs.Figure(data=[graphs.Bar(y=[1, 2])])
    assert _sent(figure)[1]["content-type"] == "text/html"
    assert json.loads(_sent(figure, "application/json")[2])["data"][0]["type"] == "bar"


def _frames() -> list[Any]:
    pandas, polars, pyarrow = map(pytest.importorskip, ("pandas", "polars", "pyarrow"))
    rows = {"a": [1, 2], "b": ["x", None]}
    return [
        pandas.DataFrame(rows), polars.DataFrame(rows), polars.DataFrame(rows).lazy(), pyarrow.table(rows),
        pyarrow.RecordBatch.from_pydict(rows), pyarrow.RecordBatchReader.from_batches(pyarrow.table(rows).schema, pyarrow.table(rows).to_batches()),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(6))
def test_a_frame_is_json_csv_parquet_or_arrow_as_the_client_asks(number: int) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    status, headers, body = _sent(_frames()[number])
    assert (status, headers["content-type"], headers["vary"]) == (200, "application/json", "Accept")
    assert json.loads(body) == rows
    assert _sent(_frames()[number], "text/csv")[2].decode().replace('"', "").splitlines()[:2] == [
        "a,b",
        "1,x",
    ]
    body = _sent(_frames()[number], "application/vnd.apache.parquet")[2]
    assert parquet.read_table(io.BytesIO(body)).to_pylist() == rows
    body = _sent(_frames()[number], "application/vnd.apache.arrow.stream, */*;q=0.1")[2]
    assert pyarrow.ipc.open_stream(io.BytesIO(body)).read_all().to_pylist() == rows
    assert _sent(_frames()[number], "application/xml")[0] == 406
    given = nuclio_sdk.Response(body=_frames()[number], content_type="text/csv; charset=utf-8")
    assert _sent(given)[1]["content-type"] == "text/csv; charset=utf-8"
    assert _sent(given, "application/json")[2].startswith(b"a,b") or _sent(given)[2].startswith(
        b'"a","b"'
    )


def test_an_index_that_holds_data_is_in_the_csv_and_a_count_of_rows_is_not() -> None:
    pandas = pytest.importorskip("pandas")
    assert _sent(pandas.DataFrame({"a": [1]}, index=["k"]), "text/csv")[2] == b",a\nk,1\n"
    assert _sent(pandas.Series([1, 2], name="s"), "text/csv")[2] == b"s\n1\n2\n"


def test_a_frame_that_a_form_cannot_hold_is_an_error_that_says_so() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(OutputFault, match=r"cannot be sent as application/vnd\.apache\.parquet"):
        _sent(pandas.DataFrame({"a": [object()]}), "application/vnd.apache.parquet")


def test_an_array_is_json_or_npy() -> None:
    numpy = pytest.importorskip("numpy")
    assert json.loads(_sent(numpy.eye(2))[2]) == [[1, 0], [0, 1]]
    assert numpy.load(io.BytesIO(_sent(numpy.eye(2), "application/x-npy")[2])).tolist() == [
        [1, 0],
        [0, 1],
    ]


def test_a_buffer_is_what_it_holds_from_its_beginning_by_its_first_bytes() -> None:
    for data, kind in [
        (PNG + b"x", "image/png"),
        (b"%PDF-1.7", "application/pdf"),
        (b"anything", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ]:
        buffer = io.BytesIO()
        buffer.write(data)
        assert _sent(buffer)[1]["content-type"] == kind
        assert buffer.closed
    assert _sent(io.StringIO("später"))[1:] == (
        {"content-type": "text/plain; charset=utf-8", "content-length": "7"},
        "später".encode(),
    )
    with pytest.raises(OutputFault, match="closed"):
        _sent(buffer)
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(b"spooled")
        assert _sent(spooled)[2] == b"spooled"


@pytest.mark.parametrize(("name", "kind"), [
    ("a.csv", "text/csv; charset=utf-8"), ("a.png", "image/png"), ("a.parquet", media.PARQUET), ("a", "application/octet-stream"),
    ("a.tar.gz", "application/gzip"), ("a.json", "application/json"),
])  # fmt: skip
def test_a_file_is_sent_by_its_name(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"content")
    assert _sent(path)[1:] == ({"content-type": kind, "content-length": "7"}, b"content")
    with path.open("rb") as file:
        file.read(3)
        assert _sent(file)[2] == b"content"
    streamed = media.replaced(path, "", whole=False)
    assert (streamed.headers, streamed.content_type) == (
        {"X-nuclio-filestream-path": str(path)},
        kind,
    )


def test_a_file_with_a_name_that_goes_with_its_object_is_read_before_it_does(
    tmp_path: Path,
) -> None:
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        file.write(b"a,b\n")
        value = media.replaced(file, "", whole=False)
    assert value.body == b"a,b\n"


def test_a_path_that_is_no_file_and_all_that_is_no_document_stay_as_they_are(
    tmp_path: Path,
) -> None:
    for value in (
        tmp_path,
        Path("nowhere"),
        {"a": 1},
        [1],
        "x",
        (200, "x"),
        ("a", b"x"),
        nuclio_sdk.Response(body="x"),
        object(),
    ):
        assert media.replaced(value, "image/png") is value


class Colour(enum.Enum):
    RED = "red"


ITEMS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text(st.characters(exclude_categories=["Cs"])),
    st.dates(), st.datetimes(), st.times(), st.timedeltas(), st.uuids(), st.decimals(allow_nan=False, allow_infinity=False), st.just(Colour.RED), st.binary(max_size=5),
    st.sampled_from(["NaT", "NA", "Timestamp", "Timedelta", "int64", "float32", "datetime64", "array", "noTime", "timedelta64", "times"]).map(lambda name: _library_value(name)),
)  # fmt: skip
VALUES = st.recursive(ITEMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3), max_leaves=8)  # fmt: skip


def _library_value(name: str) -> Any:
    import numpy
    import pandas

    return {
        "NaT": pandas.NaT, "NA": pandas.NA, "Timestamp": pandas.Timestamp("2026-01-31T10:00", tz="UTC"), "Timedelta": pandas.Timedelta("1 day"),
        "int64": numpy.int64(5), "float32": numpy.float32(0.5), "datetime64": numpy.datetime64("2026-01-31T10:00:00.123456789"), "array": numpy.arange(3),
        "noTime": numpy.datetime64("NaT", "s"), "timedelta64": numpy.timedelta64(5, "s"), "times": numpy.array(["NaT", "2026-01-31"], "M8[ns]"),
    }[name]  # fmt: skip


@given(
    st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=4) | st.lists(VALUES, max_size=4)
)
def test_a_service_answers_with_the_json_that_a_job_stores(value: Any) -> None:
    pytest.importorskip("pandas")
    stored = json_form(value)
    assert stored is not None, value
    assert json.loads(encode_json(value)) == stored.value


@pytest.mark.parametrize(
    "value",
    [
        datetime.date(2026, 1, 31),
        decimal.Decimal("1.50"),
        uuid.UUID(int=1),
        {1, 2},
        range(3),
        {"k": {1: 2}.keys()},
    ],
)
def test_plain_python_has_one_form_too(value: Any) -> None:
    assert json.loads(encode_json([value])) == json.loads(json.dumps(json_form([value]).value))


def test_what_libraries_hold_is_its_items_and_what_is_missing_is_null() -> None:
    numpy, pandas, pyarrow = map(pytest.importorskip, ("numpy", "pandas", "pyarrow"))
    for value, wanted in [
        (pandas.Index([1, 2]), [1, 2]),
        (pandas.Categorical(["a", None]), ["a", "NaN"]),
        (pandas.DatetimeIndex(["2026-01-31", None]), ["2026-01-31T00:00:00", None]),
        (pyarrow.array([1, None]), [1, None]),
        ({"a": pyarrow.scalar(1)}, {"a": 1}),
        (numpy.ma.masked, None),
        (numpy.datetime64("NaT", "s"), None),
        ([numpy.timedelta64("NaT", "s"), numpy.timedelta64(5, "s")], [None, "PT5S"]),
        ({"a": types.MappingProxyType({"b": 1})}, {"a": {"b": 1}}),
    ]:
        status, headers, body = _sent(value)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert json.loads(body) == wanted


def test_a_frame_that_pandas_has_no_json_for_has_ours_or_is_refused() -> None:
    pandas = pytest.importorskip("pandas")
    periods = pandas.DataFrame({"p": [pandas.Period("2026-01"), pandas.NaT], "n": [1, 2]})
    assert json.loads(_sent(periods)[2]) == [{"p": "2026-01", "n": 1}, {"p": None, "n": 2}]
    assert json.loads(_sent({"k": periods["p"]})[2]) == {"k": ["2026-01", None]}
    with pytest.raises(OutputFault, match="two of its columns have one name"):
        _sent(pandas.DataFrame([[1, 2]], columns=["a", "a"]))


def test_axes_are_their_figure_and_a_responses_own_type_is_in_its_headers_too() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    assert _sent(figures.Figure().subplots())[2].startswith(PNG)
    frame = pytest.importorskip("pandas").DataFrame({"a": [1]})
    given = nuclio_sdk.Response({"Content-Type": "text/csv"}, frame)
    assert _sent(given, "application/json")[1:] == (
        {"vary": "Accept", "content-type": "text/csv", "content-length": "4"},
        b"a\n1\n",
    )


def test_an_open_file_is_closed_and_its_status_is_the_functions(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a")
    file = (tmp_path / "a.csv").open()
    value = media.replaced((201, file), "", whole=False)
    assert (value.status_code, value.headers) == (201, {"X-nuclio-filestream-path": str(file.name)})
    assert file.closed
    unchanged = (5, tmp_path / "a.csv")
    assert media.replaced(unchanged, "") is unchanged, "5 is no status"


def test_openapi_lists_the_types_of_a_documents_class() -> None:
    frame = pytest.importorskip("pandas").DataFrame

    def table() -> None: ...

    table.__annotations__["return"] = frame
    run = RunSpec("id", "project", "serve", SourceSpec(handler="table"))
    described = openapi.describe(table, read_signature(table), run)
    content = described["paths"]["/"]["post"]["responses"]["200"]["content"]
    assert list(content) == ["application/json", "text/csv", media.PARQUET, media.ARROW]
