from . import shared


def run():
    return shared.NAME
