import asyncio
import functools

from digitalhub_runtime_python import handler


def plain(n):
    return n + 1


async def waits(n):
    await asyncio.sleep(0)
    return n + 2


def yields(n):
    yield from range(n)


async def async_yields(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i


def returns_coroutine(n):
    return waits(n)


class Model:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, n: int):
        return n * self.factor

    def method(self, n: int):
        return n * self.factor + 1


model = Model(10)
bound = model.method
halves = functools.partial(lambda n, by: n / by, by=2)


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def forwarding(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@logged
def wrapped(n: int):
    return n * 2


@forwarding
def not_wrapped(n):
    return n * 3


@handler(outputs=["double", "triple"])
@logged
def marked_above(n: int):
    return n * 2, n * 3


@logged
@handler(outputs=["double", "triple"])
def marked_below(n: int):
    return n * 2, n * 3


@handler
def marked_bare(n: int):
    return marked_above(n)


@handler(outputs=["sum"])
async def marked_async(n: int):
    return n + await waits(n)


class Holder:
    @staticmethod
    def static(n):
        return n


number = 5
