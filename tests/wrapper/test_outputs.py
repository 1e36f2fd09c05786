"""Returned values: what the cases do not show, and that every result is JSON."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import gzip
import io
import json
import os
import sys
import tempfile
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from walking import failure, results, run_entity, walk

from digitalhub_runtime_python import formats, outputs, tables
from digitalhub_runtime_python.errors import OutputFault, PlatformFault
from digitalhub_runtime_python.formats import json_form
from digitalhub_runtime_python.outputs import Output, collect
from digitalhub_runtime_python.spec import RunSpec

RUN = RunSpec.from_entity(run_entity("def f(): pass"))


class Whole(int):
    def __int__(self) -> int:
        raise RuntimeError


class Text(str):
    def __str__(self) -> str:
        return "something else"


class Odd(enum.Enum):
    SET = frozenset([1])
    OBJECT = object()
    TUPLE = (1, 2)


@dataclasses.dataclass
class Box:
    content: Any


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.decimals()
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.binary(max_size=4)
    | st.sampled_from([*Odd, Text("x"), object(), dict, {1, 2}, (1,)])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.integers() | st.none(), inner, max_size=3)
        | st.builds(Box, inner)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


def gather(value: Any, declared: list[Any], folder: Path) -> tuple[outputs.Collected, list[Output]]:
    """What collect makes of a value, with a hub that stores everything."""
    stored: list[Output] = []

    def store(run: RunSpec, output: Output) -> str:
        stored.append(output)
        return f"key:{output.name}"

    return collect(value, declared, RUN, store, folder), stored


@given(VALUES)
def test_a_json_form_is_what_json_makes_of_its_text(value: Any) -> None:
    form = json_form(value)
    if form is not None:
        assert json.dumps(json.loads(form.text)) == json.dumps(form.value)
        assert form.is_container == isinstance(form.value, (dict, list))


@given(
    st.dictionaries(
        st.text(max_size=4), st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
    )
)
def test_plain_json_comes_back_as_it_is(value: dict[str, Any]) -> None:
    form = json_form(value)
    assert form is not None
    assert form.value == value


@pytest.mark.parametrize(
    "value, expected",
    [
        (Text("x"), "x"),
        ({"a": Text("x")}, {"a": "x"}),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        ({1: "one", 2.5: "two"}, {"1": "one", "2.5": "two"}),
        (Odd.TUPLE, [1, 2]),
        (datetime.timedelta(days=1, seconds=1), "P1DT1S"),
        (datetime.time(12, 30), "12:30:00"),
        (decimal.Decimal("NaN"), "NaN"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({"b": b"hi"}, {"b": "aGk="}),
        ([{1}], [[1]]),
        ((1, (2.5, None)), [1, [2.5, None]]),
        (2**200, 2**200),
        ("\ud800", "\ud800"),
        (Box((1, None)), {"content": [1, None]}),
    ],
    ids=str,
)
def test_a_value_has_this_json_form(value: Any, expected: Any) -> None:
    form = json_form(value)
    assert form is not None
    assert form.value == expected
    assert type(form.value) is type(expected)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"x",
        dict,
        Box,
        Box(object()),
        {(1, 2): 3},
        [object()],
        1j,
        range(3),
        Odd.OBJECT,
        {"a": Odd.OBJECT},
        collections.deque([1]),
        iter([]),
    ],
    ids=str,
)
def test_a_value_has_no_json_form(value: Any) -> None:
    assert json_form(value) is None


def test_a_value_that_contains_itself_has_no_json_form() -> None:
    value: list[Any] = []
    value.append(value)
    assert json_form(value) is None


def test_numpy_and_pandas_values_have_a_json_form() -> None:
    import numpy as np
    import pandas as pd

    for value, expected in (
        (np.float32(1.5), 1.5),
        (np.array(3), 3),
        (np.datetime64("2026-01-31"), "2026-01-31"),
        (np.datetime64("2026-01-31T00:00:00.000000001"), "2026-01-31T00:00:00.000000001"),
        ({"a": np.arange(2)}, {"a": [0, 1]}),
        ([np.int64(1), np.bool_(False)], [1, False]),
        (pd.Timestamp("2026-01-31"), "2026-01-31T00:00:00"),
        (pd.Timedelta("1s"), "P0DT0H0M1S"),
        (pd.NaT, None),
        ({"a": pd.NA, "b": pd.NaT}, {"a": None, "b": None}),
    ):
        form = json_form(value)
        assert form is not None, value
        assert form.value == expected
    assert json_form(np.arange(3)) is None, "an array is stored as .npy"
    assert json_form(np.complex64(1)) is None


def test_a_pydantic_model_that_has_no_json_form_is_stored_otherwise(tmp_path: Path) -> None:
    import pydantic

    class Model(pydantic.BaseModel):
        model_config = {"arbitrary_types_allowed": True}
        thing: object

    assert json_form(Model(thing=1)).value == {"thing": 1}  # type: ignore[union-attr]
    assert json_form(Model) is None, "a class is not a value"


@pytest.mark.parametrize(
    "value, declared, names",
    [
        (None, [], []),
        (None, ["a"], ["a"]),
        (1, [], ["output_0"]),
        (1, ["a"], ["a"]),
        ((1, 2), [], ["output_0", "output_1"]),
        ((1,), ["a"], ["a"]),
        ((), [], []),
        ([1, 2], [], ["output_0"]),
        ([1, 2], ["a"], ["a"]),
        ([1, 2], ["a", "b"], ["a", "b"]),
        ([1], ["a", "b"], ["a"]),
        ((1, 2, 3), ["a"], ["a", "output_1", "output_2"]),
        ((1, 2), ["output_1"], ["output_1", "output_2"]),
        ((1, 2, 3), ["output_2"], ["output_2", "output_1", "output_3"]),
        ((1, 2), ["a", "b", "c"], ["a", "b"]),
    ],
    ids=str,
)
def test_returned_values_get_these_names(
    value: Any, declared: list[Any], names: list[str], tmp_path: Path
) -> None:
    collected, _ = gather(value, declared, tmp_path)
    assert list(collected.results) == names
    assert not collected.problems


@given(st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=4), st.integers(0, 5))
def test_no_returned_value_is_lost_and_none_gets_a_name_twice(names: list[str], count: int) -> None:
    collected, _ = gather(tuple(range(count)), names, Path("/nonexistent"))
    expected = min(count, len(names)) + max(0, count - len(names))
    assert len(collected.results) == expected
    assert sorted(collected.results.values()) == list(range(expected))


def test_the_limit_of_a_result_is_the_size_of_its_json(tmp_path: Path) -> None:
    fits = "x" * (outputs.RESULT_LIMIT - len('[""]'))
    collected, stored = gather(([fits], [fits + "x"], fits + "xyz", "x"), [], tmp_path)
    assert list(collected.results) == ["output_0", "output_3"]
    assert [o.path.name for o in stored] == ["output_1.json", "output_2.txt"]
    assert json.loads(stored[0].path.read_text()) == [fits + "x"]
    assert stored[1].path.read_text() == fits + "xyz"


def test_all_results_together_have_a_limit_that_small_ones_never_meet(tmp_path: Path) -> None:
    half = "x" * (outputs.RESULTS_LIMIT // 2 - len('""'))
    values = (half, half, "y" * outputs.SMALL, "z")
    collected, stored = gather(values, ["a", "b", "c", "d"], tmp_path)
    assert list(collected.results) == ["a", "b", "d"]
    assert [o.path.name for o in stored] == ["c.txt"]


@given(st.dictionaries(st.integers(0, 2) | st.sampled_from(["0", "1", "2"]), st.integers()))
def test_keys_that_are_one_in_json_are_never_merged(value: dict[Any, int]) -> None:
    form = json_form([{"in": value}])
    distinct = len({str(key) for key in value}) == len(value)
    assert (form is not None) == distinct
    if form is not None:
        assert len(form.value[0]["in"]) == len(value)


def test_an_entity_is_saved_and_related_to_the_run_also_where_a_kind_is_declared(
    tmp_path: Path,
) -> None:
    class EntityNotExistsError(Exception):
        pass

    calls: list[Any] = []

    class Entity:
        key = "store://proj/artifact/artifact/a:1"

        class metadata:
            relationships = None

        def add_relationship(self, relation: str, dest: str) -> None:
            calls.append((relation, dest))

        def save(self, update: bool = False) -> None:
            calls.append(("save", update))
            if update:
                raise EntityNotExistsError

    Entity.__module__ = "digitalhub.entities.artifact"
    declared = ["plain", {"name": "forced", "kind": "artifact"}]
    collected, stored = gather((Entity(), Entity()), declared, tmp_path)
    assert collected.outputs == {"plain": Entity.key, "forced": Entity.key}
    assert not stored
    assert calls[:3] == [("produced_by", RUN.key), ("save", True), ("save", False)]


def test_what_a_hub_refuses_names_the_output_and_keeps_the_others(tmp_path: Path) -> None:
    def store(run: RunSpec, output: Output) -> str:
        if output.name == "second":
            raise PlatformFault("platform/refused", "POST answered 403.", "Check the credentials.")
        return "key"

    names: list[Any] = ["first", "second", "third"]
    collected = collect((b"1", b"2", b"3"), names, RUN, store, tmp_path)
    assert collected.outputs == {"first": "key", "third": "key"}
    with pytest.raises(OutputFault) as caught:
        collected.raise_for_problems()
    assert caught.value.exit_status == 13
    assert "Output 'second' (bytes) could not be stored: POST answered 403." in str(caught.value)
    assert "Check the credentials." in str(caught.value)


def test_an_exception_whose_text_cannot_be_read_is_one_output_that_is_not_stored(
    tmp_path: Path,
) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def store(run: RunSpec, output: Output) -> str:
        raise Broken

    collected = collect(b"1", [], RUN, store, tmp_path)
    assert "Broken: <its text cannot be read: RuntimeError>" in collected.problems[0].message


@pytest.mark.parametrize("name", ["a/b", "../../etc/passwd", "...", "ä ö", "a" * 300, "con:", "\n"])
def test_a_name_never_leads_out_of_the_runs_folder(name: str, tmp_path: Path) -> None:
    collected, stored = gather(b"x", [name], tmp_path)
    assert list(collected.outputs) == [name]
    assert tmp_path in stored[0].path.parents
    assert stored[0].path.read_bytes() == b"x"
    assert ".." not in stored[0].path.parts


def test_a_text_is_a_path_only_where_a_kind_is_declared_and_something_is_there(
    tmp_path: Path,
) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"m")
    declared = [{"name": "m", "kind": "model"}, "plain", {"name": "t", "kind": "artifact"}]
    collected, stored = gather(
        (str(file), str(file), "x" * 10_000 + "\0"), declared, tmp_path / "o"
    )
    assert stored[0].path == file
    assert collected.results == {"plain": str(file)}
    assert stored[1].path.name == "t.txt", "no path: the text itself"


def test_the_table_of_a_parquet_file_is_described(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "i": pd.array([1, None], dtype="Int64"),
            "f": [float("nan"), float("inf")],
            "b": [True, False],
            "c": pd.Categorical(["x", "y"]),
            "d": pd.to_datetime(["2026-01-31", None]),
            "l": [[1], [2, 3]],
            "o": [{"a": 1}, {"a": 2}],
            "raw": [b"1", b"2"],
        }
    )
    kind, path = formats.write(frame, tmp_path / "t")
    spec, status = tables.describe_table(path)
    types = {f["name"]: f["type"] for f in spec["schema"]["fields"]}
    assert kind == "table"
    assert types == {
        "i": "integer", "f": "number", "b": "boolean", "c": "string", "d": "datetime", "l": "array",
        "o": "object", "raw": "any",
    }  # fmt: skip
    json.dumps(status, allow_nan=False)
    values = {c["name"]: c["value"] for c in status["preview"]["cols"]}
    assert values["i"] == [1, None]
    assert values["f"] == [None, None], "a number that is none is null in JSON"


def test_a_preview_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"text": ["x" * 20_000] * 10})
    _, path = formats.write(frame, tmp_path / "t")
    assert tables.describe_table(path)[1] == {"preview": {"cols": [], "rows": 10}}


def test_a_frame_that_the_disk_has_no_room_for_is_not_stored_otherwise(tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "0" / "output_0.parquet").mkdir(parents=True)  # an OSError when it is opened
    with pytest.raises(OSError):
        formats.write(pd.DataFrame({"a": [1]}), tmp_path / "0" / "output_0")


def test_a_frame_keeps_its_attrs_where_some_of_them_are_not_stored(tmp_path: Path) -> None:
    import pandas as pd

    attrs = {"unit": "m", "by": object()}
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = dict(attrs)
    _, path = formats.write(frame, tmp_path / "t")
    assert frame.attrs == attrs, "the frame is the user's"
    assert pd.read_parquet(path).attrs in ({"unit": "m"}, {}), "pandas stores attrs since 2.1"


def test_a_table_whose_values_are_no_python_objects_has_a_schema_and_no_preview(
    tmp_path: Path,
) -> None:
    import pyarrow as pa

    far = pa.table({"t": pa.array([2**53], pa.timestamp("ms"))})
    _, path = formats.write(far, tmp_path / "t")
    spec, status = tables.describe_table(path)
    assert spec == {"schema": {"fields": [{"name": "t", "type": "datetime"}]}}
    assert status == {"preview": {"cols": [], "rows": 1}}


def test_an_index_that_holds_data_comes_back(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="key"))
    _, path = formats.write(frame, tmp_path / "t")
    assert pd.read_parquet(path).equals(frame)


def test_classes_of_several_of_the_users_modules_are_in_one_pickle(tmp_path: Path) -> None:
    code = """
    from collections import UserList

    class Inner:
        n = 1

    class Outer(UserList):
        pass

    def f():
        return Outer([Inner()])
    """
    outcome = walk(tmp_path, code)
    path = Path(outcome.status["outputs"]["output_0"])
    import pickle

    value = pickle.loads(path.read_bytes())
    assert value[0].n == 1


def test_a_pickle_leaves_cloudpickles_list_of_modules_as_it_was(tmp_path: Path) -> None:
    import cloudpickle

    walk(tmp_path, "class A: pass\ndef f(): return A()")
    assert cloudpickle.list_registry_pickle_by_value() == set()


def test_a_tuple_in_a_list_and_a_generator_of_tuples_are_one_value(tmp_path: Path) -> None:
    assert results(walk(tmp_path, "def f(): return [(1, 2)]")) == {"output_0": [[1, 2]]}
    code = "def f():\n    yield 1, 2\n    yield 3, 4"
    assert results(walk(tmp_path, code)) == {"output_0": [[1, 2], [3, 4]]}


def test_an_unknown_kind_names_those_that_exist(tmp_path: Path) -> None:
    code = """
    from digitalhub_runtime_python import handler

    @handler(outputs=[{"name": "a", "kind": "teapot"}])
    def f():
        return 1
    """
    error = failure(walk(tmp_path, code))
    assert error["code"] == "outputs/kind"
    for kind in outputs.ENTITY_TYPES:
        assert kind in error["message"]


def test_file_objects_and_temporary_folders_are_closed_when_all_are_stored(tmp_path: Path) -> None:
    made = tempfile.TemporaryDirectory(dir=tmp_path)
    inside = Path(made.name, "inside.txt")
    inside.write_text("inside")
    named = tempfile.NamedTemporaryFile("w", dir=tmp_path)  # noqa: SIM115
    named.write("named")
    memory, plain = io.BytesIO(b"x"), inside.open()
    spooled = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    read: dict[str, str] = {}

    def store(run: RunSpec, output: Output) -> str:
        file = output.path / "inside.txt" if output.path.is_dir() else output.path
        read[output.name] = file.read_text()
        return "key"

    names = ["folder", "named", "memory", "again", "spooled", "plain", "inside"]
    value = (made, named, memory, memory, spooled, plain, inside)
    collect(value, names, RUN, store, tmp_path / "outputs").raise_for_problems()
    assert read == {
        "folder": "inside", "named": "named", "memory": "x", "again": "x", "spooled": "",
        "plain": "inside", "inside": "inside",
    }  # fmt: skip
    assert [f.closed for f in (named, memory, spooled, plain)] == [True] * 4
    assert not Path(made.name).exists()


def test_what_could_not_be_stored_and_the_process_s_own_streams_stay_open(tmp_path: Path) -> None:
    def refuse(run: RunSpec, output: Output) -> str:
        raise PlatformFault("platform/unreachable", "away", "wait")

    memory = io.BytesIO(b"x")
    assert len(collect(memory, ["a"], RUN, refuse, tmp_path / "outputs").problems) == 1
    assert memory.getvalue() == b"x"
    formats.release(sys.stdout)
    assert not sys.stdout.closed


def _held(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def test_files_images_and_frames_in_a_list_or_dict_are_a_folder_of_them(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image").new("RGB", (2, 2))
    frame = pytest.importorskip("pandas").DataFrame({"a": [1]})
    (tmp_path / "a.txt").write_text("abc")
    opened = (tmp_path / "a.txt").open("rb")
    opened.read(2)
    spooled = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - it is what the function returns
    spooled.write(b"spooled")
    folder = tempfile.TemporaryDirectory()
    Path(folder.name, "in").write_text("i")
    made = (item for item in [io.BytesIO(b"x"), image])
    value = (
        [opened, spooled, image, frame, "caption", {"k": 1}],
        {"one/two": frame, "more": [io.BytesIO(b"xy")]},
        made,
        [folder],
    )
    collected, stored = gather(
        value, ["list", "dict", "made", "folders"], tmp_path / "r" / "outputs"
    )
    assert not collected.problems and not collected.results
    listed, keyed, generated, _ = [_held(output.path) for output in stored]
    assert sorted(listed) == ["1", "2.png", "3.parquet", "4.txt", "5.json", "a.txt"]
    assert (listed["a.txt"], listed["1"]) == (3, 7)
    assert sorted(keyed) == ["more/0", "one_two.parquet"]
    assert sorted(generated) == ["0", "1.png"]
    assert not Path(folder.name).exists(), "a temporary folder goes once it is stored"
    assert opened.closed and spooled.closed, "what was stored is closed, in a list as well"


def test_a_closed_buffer_is_refused_by_its_place_and_the_others_are_stored(tmp_path: Path) -> None:
    closed = io.BytesIO(b"gone")
    closed.close()
    collected, stored = gather(
        ([io.BytesIO(b"x"), closed], closed, 5), ["a", "b", "c"], tmp_path / "r" / "outputs"
    )
    first, second = [problem.message for problem in collected.problems]
    assert "'a'" in first and "item 1 (_io.BytesIO)" in first and "closed" in first
    assert "'b'" in second and "closed" in second
    assert collected.results == {"c": 5} and not stored


def test_a_pipe_and_archives_that_are_still_open_are_stored_whole(tmp_path: Path) -> None:
    end, start = os.pipe()
    os.write(start, b"piped")
    os.close(start)
    packed = gzip.open(tmp_path / "p.gz", "wb")  # noqa: SIM115 - it is returned open
    packed.write(b"packed")
    archive = zipfile.ZipFile(tmp_path / "z.zip", "w")
    archive.writestr("a", "b")
    value = (os.fdopen(end, "rb"), packed, archive)
    collected, stored = gather(value, ["a", "b", "c"], tmp_path / "r" / "outputs")
    assert not collected.problems
    assert stored[0].path.read_bytes() == b"piped"
    assert gzip.decompress(stored[1].path.read_bytes()) == b"packed"
    with zipfile.ZipFile(stored[2].path) as found:
        assert found.read("a") == b"b"
