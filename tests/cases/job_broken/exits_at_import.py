import sys

sys.exit(0)


def run():
    return 1
