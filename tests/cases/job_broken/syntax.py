def run():
    return 1


def broken(:
    pass
