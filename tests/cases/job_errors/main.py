import asyncio
import sys

from helper import check


class Custom(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

    def __str__(self):
        return f"custom {self.code}"


class Broken(Exception):
    def __str__(self):
        raise RuntimeError("not today")


class Slotted(Exception):
    __slots__ = ()


def raises():
    raise ValueError("the model diverged")


def in_helper(n):
    return check(n)


def in_library():
    import json

    return json.loads("{")


def custom():
    raise Custom(7)


def broken():
    raise Broken("x")


def slotted():
    raise Slotted


def no_text():
    raise KeyError


def long_text():
    raise ValueError("x" * 10_000)


def chained():
    try:
        {}["absent"]
    except KeyError as exc:
        raise ValueError("no such thing") from exc


def implicit():
    try:
        {}["absent"]
    except KeyError:
        raise ValueError("while looking")


def suppressed():
    try:
        {}["absent"]
    except KeyError:
        raise ValueError("alone") from None


def group():
    raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])  # noqa: F821


def recursion():
    return recursion()


async def in_async():
    await asyncio.sleep(0)
    raise ValueError("awaited")


def in_generator():
    yield 1
    raise ValueError("generated")


def asserts():
    assert 1 == 2, "one is not two"


def interrupts():
    raise KeyboardInterrupt


def exits_well():
    print("done early")
    sys.exit(0)


def exits_without_code():
    sys.exit()


def exits_badly():
    sys.exit(3)


def exits_with_text():
    sys.exit("no data today")


def evaluates():
    return eval("1 +")


def no_memory():
    raise MemoryError


def multi_line():
    raise ValueError("first line\nsecond line")


class Weird(BaseException):
    pass


def base():
    raise Weird("from the base")
