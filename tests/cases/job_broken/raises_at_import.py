LIMIT = {}["absent"]


def run():
    return LIMIT
