"""Every kind of hint: what it takes, what it refuses, the same on every Python and for postponed annotations.

The hints are written as users write them, in a module of their own for each row, once with and once
without `from __future__ import annotations`.
"""

from __future__ import annotations

import functools
import re
import sys
import types
from typing import Any

import pytest

from digitalhub_runtime_python.arguments import compose, read_signature
from digitalhub_runtime_python.errors import ArgumentFault

HEAD = """
import collections, collections.abc, dataclasses, datetime, decimal, enum, fractions, ipaddress
import numbers, os, pathlib, re, typing, uuid
from dataclasses import InitVar, dataclass, field
from datetime import date, time, timedelta
from pathlib import Path
from typing import *
from typing import Annotated, TypedDict
from collections.abc import Callable, Iterable
import annotated_types, attrs, msgspec, numpy, numpy.typing, pandas, polars, pyarrow, pydantic
import pydantic.dataclasses, pydantic.v1
from annotated_types import Gt, Len, MinLen, Predicate
from msgspec import Meta
from pydantic import BaseModel, Field, HttpUrl, PositiveInt, SecretStr
from typing_extensions import NotRequired, Required, Self

T = TypeVar("T")
N = TypeVar("N", bound=int)
Text = TypeVar("Text", str, bytes)
Name = NewType("Name", str)
class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"
class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2
class Size(str, enum.Enum):
    S = "s"
class Access(enum.Flag):
    READ = 1
    WRITE = 2
class Corner(enum.Enum):
    ORIGIN = (0, 0)
@dataclass
class A:
    x: int
@dataclass
class B:
    x: int
    y: int = 0
@dataclass
class Either:
    where: Union[str, Path]
@dataclass
class Seeded:
    n: int
    seed: InitVar[int] = 1
    def __post_init__(self, seed):
        self.n += seed
@dataclass
class Checked:
    n: int
    def __post_init__(self):
        if self.n < 0:
            raise ValueError("n is negative")
@dataclass
class Lost:
    known: int
    unknown: "Missing" = 1
@dataclass
class Tree:
    name: str
    children: "List[Tree]" = field(default_factory=list)
@dataclass
class Box(Generic[T]):
    item: T
@dataclass
class Ints(Box[int]):
    more: int = 0
@dataclass
class NoneByDefault:
    n: int = None
@dataclass(frozen=True)
class Frozen:
    n: int
    made: int = field(init=False, default=5)
    shared: ClassVar[int] = 7
class Written:
    pass
@dataclass
class OwnInit:
    n: int
    def __init__(self, n: int, twice: bool = False):
        self.n = n * 2 if twice else n
class Pair(NamedTuple):
    left: int
    right: str = "r"
class Options(TypedDict):
    depth: int
class Partial(Options, total=False):
    name: str
class Marked(TypedDict):
    a: Required[int]
    b: NotRequired[int]
class Linked(TypedDict):
    next: "Optional[Linked]"
@attrs.define
class Attr:
    _n: int
    names: List[str] = attrs.field(factory=list)
    even: int = attrs.field(default=0, validator=attrs.validators.ge(0))
class Struct(msgspec.Struct, rename="camel"):
    some_where: Union[str, Path]
    when: Optional[datetime.datetime] = None
class Model(BaseModel):
    n: int = Field(gt=0)
class Cat(BaseModel):
    kind: Literal["cat"]
class Dog(BaseModel):
    kind: Literal["dog"]
class Strict(BaseModel, strict=True):
    pair: Tuple[int, int]
@dataclass
class Holds:
    model: Model
    url: Optional[HttpUrl] = None
@pydantic.dataclasses.dataclass
class PydanticData:
    n: int
class Old(pydantic.v1.BaseModel):
    n: int
class Celsius(float):
    pass
class Tags(List[str]):
    pass
class Shape(Protocol):
    def area(self) -> float: ...
@runtime_checkable
class Sized2(Protocol):
    def __len__(self) -> int: ...
"""

# hint | JSON values that fit -> what arrives, as an expression | JSON values that do not
ROWS: list[tuple[str, dict[str, str], list[str]]] = [
    ("int", {"5": "5", "2**70": "2**70"}, ["True", "'5'", "5.0", "None"]),
    ("float", {"5": "5.0", "0.5": "0.5"}, ["True", "'5'", "None"]),
    ("complex", {"1.5": "1.5 + 0j", "'1+2j'": "1 + 2j"}, ["True", "'x'", "[1]"]),
    ("bytes", {"'aGk='": "b'hi'"}, ["5", "'?'"]),
    ("bytearray", {"'aGk='": "bytearray(b'hi')"}, ["5"]),
    ("Union[str, Path]", {"'a'": "'a'"}, ["5"]),
    ("Union[Path, str]", {"'a'": "Path('a')"}, ["5"]),
    ("Union[Path, None]", {"'a'": "Path('a')", "None": "None"}, ["5"]),
    ("Path", {"'a/b'": "Path('a/b')"}, ["5", "'a\\0'"]),
    ("os.PathLike", {"'a'": "Path('a')"}, ["5"]),
    ("pathlib.PurePosixPath", {"'a'": "pathlib.PurePosixPath('a')"}, ["5"]),
    ("Either", {"{'where': 'a'}": "Either('a')"}, ["{'where': 5}", "{}", "'x'", "[]"]),
    ("Union[A, B, None]", {"{'x': 1}": "A(1)", "{'x': 1, 'y': 2}": "B(1, 2)", "None": "None"}, ["{}", "[1]", "{'x': 'x'}"]),
    ("List[Union[A, B]]", {"[{'x': 1}, {'x': 1, 'y': 2}]": "[A(1), B(1, 2)]"}, ["[{'y': 1}]", "{'x': 1}"]),
    ("Union[Colour, str]", {"'red'": "Colour.RED", "'blue'": "'blue'"}, ["5"]),
    ("Union[datetime.datetime, str]", {"'2026-01-01'": "datetime.datetime(2026, 1, 1)", "'x'": "'x'"}, ["5"]),
    ("Union[int, float]", {"5": "5", "5.5": "5.5"}, ["'5'", "True"]),
    ("Union[float, int]", {"5": "5", "5.5": "5.5"}, ["'5'"]),
    ("Union[List[int], int]", {"[1]": "[1]", "1": "1"}, ["['a']", "'1'"]),
    ("Optional[Optional[int]]", {"None": "None", "1": "1"}, ["'1'"]),
    ("Optional[numpy.ndarray]", {"[1, 2]": "numpy.array([1, 2])", "None": "None"}, ["'x'", "{}"]),
    ("Union[numpy.ndarray, str]", {"[1]": "numpy.array([1])", "'x'": "'x'"}, ["{}"]),
    ("int | None", {"None": "None", "1": "1"}, ["'1'"]),
    ("list[int | str] | None", {"[1, 'a']": "[1, 'a']", "None": "None"}, ["[1.5]"]),
    ("Iterable[A]", {"[{'x': 1}]": "[A(1)]"}, ["'abc'", "[1]", "{'x': 1}"]),
    ("Sequence[int]", {"[1]": "[1]"}, ["'abc'", "['a']"]),
    ("Collection[Path]", {"['a']": "[Path('a')]"}, ["[5]"]),
    ("Set[Colour]", {"['red', 'red']": "{Colour.RED}"}, ["['blue']"]),
    ("FrozenSet[int]", {"[1, 1]": "frozenset({1})"}, ["[1.5]"]),
    ("AbstractSet[int]", {"[1]": "{1}"}, ["{}"]),
    ("Deque[int]", {"[1]": "collections.deque([1])"}, ["['a']"]),
    ("Tuple[int, ...]", {"[1, 2]": "(1, 2)", "[]": "()"}, ["['a']", "5"]),
    ("Tuple[int, Path]", {"[1, 'a']": "(1, Path('a'))"}, ["[1]", "[1, 'a', 2]", "['a', 'a']"]),
    ("tuple", {"[1, 'a']": "(1, 'a')"}, ["'a'"]),
    ("Dict[int, float]", {"{'1': 2}": "{1: 2.0}"}, ["{'a': 1}", "[]"]),
    ("Dict[Colour, List[Path]]", {"{'red': ['a']}": "{Colour.RED: [Path('a')]}"}, ["{'x': []}", "{'red': [5]}"]),
    ("Dict[date, int]", {"{'2026-01-01': 1}": "{date(2026, 1, 1): 1}"}, ["{'x': 1}"]),
    ("Dict[str, Any]", {"{'a': [1]}": "{'a': [1]}"}, ["[]"]),
    ("Mapping[str, A]", {"{'a': {'x': 1}}": "{'a': A(1)}"}, ["{'a': 1}"]),
    ("DefaultDict[str, List[int]]", {"{'a': [1]}": "collections.defaultdict(list, {'a': [1]})"}, ["{'a': 1}"]),
    ("collections.OrderedDict[str, int]", {"{'a': 1}": "collections.OrderedDict(a=1)"}, ["{'a': 'x'}"]),
    ("Counter[str]", {"{'a': 1}": "collections.Counter(a=1)"}, ["{'a': 'x'}"]),
    ("Literal['a', 1, None]", {"'a'": "'a'", "1": "1", "None": "None"}, ["True", "'b'", "1.0"]),
    ("Literal[Colour.RED]", {"'red'": "Colour.RED"}, ["'green'"]),
    ("Colour", {"'red'": "Colour.RED", "'GREEN'": "Colour.GREEN"}, ["'blue'", "1", "None"]),
    ("Level", {"1": "Level.LOW", "'HIGH'": "Level.HIGH"}, ["True", "3", "'1'", "1.0"]),
    ("Size", {"'s'": "Size.S", "'S'": "Size.S"}, ["'m'"]),
    ("Access", {"3": "Access.READ | Access.WRITE", "'READ'": "Access.READ", "['READ', 'WRITE']": "Access(3)"}, ["8", "'x'", "['x']", "True"]),
    ("Corner", {"[0, 0]": "Corner.ORIGIN"}, ["[1, 0]"]),
    ("datetime.datetime", {
        "'2026-01-02'": "datetime.datetime(2026, 1, 2)",
        "'2026-01-02T10:00'": "datetime.datetime(2026, 1, 2, 10)",
        "'2026-01-02 10:00:30'": "datetime.datetime(2026, 1, 2, 10, 0, 30)",
        "'20260102T100030Z'": "datetime.datetime(2026, 1, 2, 10, 0, 30, tzinfo=datetime.timezone.utc)",
        "'2026-01-02T10:00:30.123456789+01:30'": "datetime.datetime(2026, 1, 2, 10, 0, 30, 123456, tzinfo=datetime.timezone(timedelta(minutes=90)))",
        "'2026-W01-5'": "datetime.datetime(2026, 1, 2)",
        "'2026-002'": "datetime.datetime(2026, 1, 2)",
        "'2026-01-02T24:00'": "datetime.datetime(2026, 1, 3)",
    }, ["'2026-13-01'", "'x'", "5", "'2026-01-01T25:00'", "'2026-366'", "''"]),
    ("date", {"'2026-01-02'": "date(2026, 1, 2)", "'20260102'": "date(2026, 1, 2)"}, ["'x'", "'2026-01-02T10:00'", "5"]),
    ("time", {"'10:00'": "time(10)", "'10:00:30.5Z'": "time(10, 0, 30, 500000, tzinfo=datetime.timezone.utc)", "'T1030'": "time(10, 30)"}, ["'25:00'", "5"]),
    ("timedelta", {"'PT1H30M'": "timedelta(minutes=90)", "'P1W'": "timedelta(7)", "'-P1DT0.5S'": "-timedelta(1, 0.5)"}, ["'P'", "'P1Y'", "'PT'", "5"]),
    ("decimal.Decimal", {"'1.10'": "decimal.Decimal('1.10')", "1": "decimal.Decimal(1)", "0.1": "decimal.Decimal('0.1')"}, ["True", "'x'"]),
    ("fractions.Fraction", {"'1/3'": "fractions.Fraction(1, 3)"}, ["'x'", "'1/0'"]),
    ("uuid.UUID", {"'00000000-0000-0000-0000-000000000007'": "uuid.UUID(int=7)"}, ["'x'", "7"]),
    ("ipaddress.IPv4Address", {"'127.0.0.1'": "ipaddress.ip_address('127.0.0.1')"}, ["'x'", "True"]),
    ("re.Pattern", {"'a+'": "re.compile('a+')"}, ["'('", "5"]),
    ("Pattern[str]", {"'a+'": "re.compile('a+')"}, ["'('"]),
    ("numbers.Real", {"1.5": "1.5"}, ["'1'", "True"]),
    ("Seeded", {"{'n': 1, 'seed': 2}": "Seeded(1, 2)", "{'n': 1}": "Seeded(1)"}, ["{'n': 1, 'seed': 'x'}"]),
    ("Checked", {"{'n': 1}": "Checked(1)"}, ["{'n': -1}"]),
    ("Lost", {"{'known': 1, 'unknown': 'x'}": "Lost(1, 'x')"}, ["{'known': 'x'}"]),
    ("Tree", {"{'name': 'a', 'children': [{'name': 'b'}]}": "Tree('a', [Tree('b')])"}, ["{'name': 'a', 'children': [{}]}"]),
    ("Box[Path]", {"{'item': 'a'}": "Box(Path('a'))"}, ["{'item': 5}"]),
    ("Box", {"{'item': 'a'}": "Box('a')"}, ["{}"]),
    ("Ints", {"{'item': 1}": "Ints(1)"}, ["{'item': 'a'}"]),
    ("Box[Box[int]]", {"{'item': {'item': 1}}": "Box(Box(1))"}, ["{'item': {'item': 'a'}}"]),
    ("NoneByDefault", {"{'n': None}": "NoneByDefault()", "{}": "NoneByDefault()"}, ["{'n': 'x'}"]),
    ("Frozen", {"{'n': 1}": "Frozen(1)"}, ["{'n': None}"]),
    ("OwnInit", {"{'n': 1, 'twice': True}": "OwnInit(2)"}, ["{'n': 1, 'twice': 1}"]),
    ("Pair", {"[1]": "Pair(1)", "[1, 'a']": "Pair(1, 'a')", "{'left': 1}": "Pair(1)"}, ["[1, 2, 3]", "['a']", "{}"]),
    ("Options", {"{'depth': 1}": "{'depth': 1}", "{'depth': 1, 'more': 2}": "{'depth': 1, 'more': 2}"}, ["{}", "{'depth': 'x'}", "[]"]),
    ("Partial", {"{'depth': 1}": "{'depth': 1}"}, ["{'name': 'x'}", "{'depth': 1, 'name': 5}"]),
    ("Marked", {"{'a': 1}": "{'a': 1}"}, ["{'b': 1}", "{'a': 1, 'b': 'x'}"]),
    ("Linked", {"{'next': {'next': None}}": "{'next': {'next': None}}"}, ["{'next': {'next': 5}}"]),
    ("Attr", {"{'n': 1, 'names': ['a']}": "Attr(1, ['a'])"}, ["{'n': 'x'}", "{'n': 1, 'even': -1}"]),
    ("Struct", {"{'someWhere': 'a', 'when': '2026-01-01'}": "Struct('a', datetime.datetime(2026, 1, 1))"}, ["{'some_where': 'a'}", "{'someWhere': 5}"]),
    ("Model", {"{'n': 1}": "Model(n=1)"}, ["{'n': 0}", "{}", "5"]),
    ("List[Model]", {"[{'n': 1}]": "[Model(n=1)]"}, ["[{'n': 0}]"]),
    ("Holds", {"{'model': {'n': 1}, 'url': 'https://example.org'}": "Holds(Model(n=1), HttpUrl('https://example.org'))"}, ["{'model': {'n': 0}}", "{'model': {'n': 1}, 'url': 'x'}"]),
    ("Union[Model, Written]", {"{'n': 1}": "Model(n=1)"}, ["{'n': 0}"]),
    ("Union[Cat, Dog]", {"{'kind': 'dog'}": "Dog(kind='dog')"}, ["{'kind': 'cow'}"]),
    ("Annotated[Union[Cat, Dog], Field(discriminator='kind')]", {"{'kind': 'dog'}": "Dog(kind='dog')"}, ["{'kind': 'cow'}"]),
    ("Strict", {"{'pair': [1, 2]}": "Strict(pair=(1, 2))"}, ["{'pair': ['1', 2]}"]),
    ("PydanticData", {"{'n': 1}": "PydanticData(1)"}, ["{'n': 'x'}"]),
    ("Old", {"{'n': 1}": "Old(n=1)"}, ["{'n': 'x'}", "{}"]),
    ("HttpUrl", {"'https://example.org'": "HttpUrl('https://example.org')"}, ["'x'", "5"]),
    ("SecretStr", {"'x'": "SecretStr('x')"}, ["5"]),
    ("PositiveInt", {"1": "1"}, ["0", "'1'", "True"]),
    ("Optional[PositiveInt]", {"1": "1", "None": "None"}, ["0"]),
    ("Annotated[int, Field(gt=0)]", {"1": "1"}, ["0", "'1'"]),
    ("List[Annotated[int, Field(gt=0)]]", {"[1]": "[1]"}, ["[0]", "['1']"]),
    ("Annotated[List[int], Len(1, 2)]", {"[1]": "[1]"}, ["[]", "[1, 2, 3]"]),
    ("Annotated[str, MinLen(2)]", {"'ab'": "'ab'"}, ["'a'", "5"]),
    ("Annotated[int, Predicate(lambda n: n % 2 == 0)]", {"2": "2"}, ["3", "'2'"]),
    ("Annotated[Annotated[int, Gt(0)], Gt(5)]", {"6": "6"}, ["3", "0"]),
    ("Annotated[Path, Meta(description='a file')]", {"'a'": "Path('a')"}, ["5"]),
    ("Annotated[int, 'just a note']", {"1": "1"}, ["'1'"]),
    ("Annotated[int, Meta(gt=0)]", {"1": "1"}, ["0"]),
    ("Annotated[List[Path], Meta(min_length=1)]", {"['a']": "[Path('a')]"}, ["[]"]),
    ("Annotated[Optional[int], Field(gt=0)]", {"None": "None", "1": "1"}, ["0"]),
    ("Name", {"'x'": "'x'"}, ["5"]),
    ("List[Name]", {"['x']": "['x']"}, ["[5]"]),
    ("T", {"'x'": "'x'"}, []),
    ("N", {"1": "1"}, ["'x'"]),
    ("Text", {"'x'": "'x'"}, ["5"]),
    ("Final[int]", {"1": "1"}, ["'x'"]),
    ("Celsius", {"1.5": "Celsius(1.5)"}, ["'x'", "True"]),
    ("Tags", {"['a']": "Tags(['a'])"}, ["[5]"]),
    ("Shape", {"{'a': 1}": "{'a': 1}"}, []),
    ("Sized2", {"[1]": "[1]"}, ["5"]),
    ("Hashable", {"'x'": "'x'"}, ["[]"]),
    ("Written", {}, ["{}", "'x'", "None"]),
    ("Callable[[int], int]", {}, ["'x'", "{}"]),
    ("Type[int]", {}, ["'int'"]),
    ("type", {}, ["'int'"]),
    ("List[Written]", {"[]": "[]"}, ["['x']"]),
    ("numpy.ndarray", {"[1, 2]": "numpy.array([1, 2])", "[[1.5]]": "numpy.array([[1.5]])"}, ["'x'", "{}", "None", "[[1], [1, 2]]"]),
    ("numpy.typing.NDArray[numpy.float32]", {"[1, 2.5]": "numpy.array([1, 2.5], dtype='float32')"}, ["['a']", "['1']", "[True]"]),
    ("numpy.typing.NDArray[numpy.int8]", {"[1]": "numpy.array([1], dtype='int8')", "[]": "numpy.array([], dtype='int8')"}, ["[300]", "[1.5]"]),
    ("numpy.int8", {"1": "numpy.int8(1)"}, ["300", "1.5", "'1'", "True"]),
    ("numpy.float64", {"1": "numpy.float64(1)"}, ["'x'", "True", "None"]),
    ("numpy.bool_", {"True": "numpy.bool_(True)"}, ["'x'", "1"]),
    ("pandas.DataFrame", {"[{'a': 1}]": "pandas.DataFrame({'a': [1]})"}, ["'x'", "None", "5"]),
    ("pandas.Series", {"[1]": "pandas.Series([1])"}, ["'x'", "None"]),
    ("pandas.Timestamp", {"'2026-01-31'": "pandas.Timestamp(2026, 1, 31)"}, ["'x'", "None", "True"]),
    ("pandas.Timedelta", {"'1h'": "pandas.Timedelta(hours=1)"}, ["'x'"]),
    ("polars.DataFrame", {"[{'a': 1}]": "polars.DataFrame({'a': [1]})"}, ["'x'", "None"]),
    ("pyarrow.Table", {"[{'a': 1}]": "pyarrow.table({'a': [1]})"}, ["'x'", "None"]),
    ("'A'", {"{'x': 1}": "A(1)"}, ["{'x': 'x'}"]),
    ("List['A']", {"[{'x': 1}]": "[A(1)]"}, ["[{'x': 'x'}]"]),
    ("Optional['A']", {"{'x': 1}": "A(1)", "None": "None"}, ["5"]),
    ("'Missing'", {"5": "5", "'x'": "'x'"}, []),
    ("List['Missing']", {"5": "5"}, []),
]  # fmt: skip


@functools.lru_cache(maxsize=2)
def _module(postponed: bool) -> types.ModuleType:
    module = types.ModuleType(f"hints_{'postponed' if postponed else 'evaluated'}")
    sys.modules[module.__name__] = module
    _execute(module, HEAD, postponed)
    return module


def _execute(module: types.ModuleType, text: str, postponed: bool) -> None:
    future = "from __future__ import annotations\n" if postponed else ""
    code = compile(future + text, f"{module.__name__}.py", "exec", dont_inherit=True)
    exec(code, module.__dict__)


def module_of(hint: str, default: str = "", *, postponed: bool) -> types.ModuleType:
    """A module with a function `f` whose argument `value` has the hint."""
    module = _module(postponed)
    _execute(module, f"def f(value: {hint}{default}):\n    return value\n", postponed)
    return module


def call(module: types.ModuleType, value: Any) -> Any:
    args, kwargs = compose(read_signature(module.f), {"value": value}, injected={})
    return module.f(*args, **kwargs)


def equal(found: Any, wanted: Any) -> bool:
    if hasattr(wanted, "equals"):
        return bool(found.equals(wanted))
    if type(wanted).__module__ == "numpy":
        return bool((found == wanted).all()) and found.dtype == wanted.dtype
    return bool(found == wanted)


def _new_spelling(hint: str) -> bool:
    return re.search(r" \| ", hint) is not None


@pytest.mark.parametrize("hint, fitting, others", ROWS, ids=[row[0] for row in ROWS])
def test_a_hint_is_converted_or_refused(
    hint: str, fitting: dict[str, str], others: list[str]
) -> None:
    for postponed in (False, True):
        if not postponed and _new_spelling(hint) and sys.version_info < (3, 10):
            continue  # a SyntaxError of its own kind: Python itself refuses the user's file
        module = module_of(hint, postponed=postponed)
        for text, wanted_text in fitting.items():
            wanted = eval(wanted_text, module.__dict__)
            found = call(module, eval(text, module.__dict__))
            assert equal(found, wanted), (text, found)
            assert type(found) is type(wanted), (text, found)
        for text in others:
            with pytest.raises(ArgumentFault) as caught:
                found = call(module, eval(text))
                pytest.fail(f"{hint} took {text} as {found!r}")
            assert "'value' expects " in caught.value.message


@pytest.mark.parametrize("hint", ["int", "A", "Path", "List[Path]", "PositiveInt", "Missing"])
def test_a_default_of_none_takes_null_and_nothing_else_does(hint: str) -> None:
    module = module_of(hint, " = None", postponed=True)
    assert call(module, None) is None
    if hint != "Missing":
        assert "Optional" not in str(read_signature(module.f).hints), "the same on every Python"
        with pytest.raises(ArgumentFault):
            call(module_of(hint, " = 5", postponed=True), None)


def test_a_constraint_that_cannot_be_checked_is_refused_by_name() -> None:
    module = module_of("Annotated[int, annotated_types.BaseMetadata()]", postponed=True)
    with pytest.raises(ArgumentFault, match=r"its constraint .*BaseMetadata.* cannot be checked"):
        call(module, 5)
    module = module_of("Annotated[Path, Gt(5)]", postponed=True)
    with pytest.raises(ArgumentFault, match="it must be > 5"):
        call(module, "a")


def test_a_refused_secret_is_in_no_message() -> None:
    module = module_of("Annotated[SecretStr, Field(min_length=50)]", postponed=True)
    with pytest.raises(ArgumentFault) as caught:
        call(module, "hunter2")
    assert "hunter2" not in str(caught.value)
    assert "50" in caught.value.message
