import beside
from lib.code import VALUE


def run():
    return [beside.NAME, VALUE]
