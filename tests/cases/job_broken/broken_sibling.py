import syntax


def run():
    return syntax
