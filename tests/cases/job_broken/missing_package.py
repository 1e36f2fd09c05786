import no_such_package_anywhere


def run():
    return no_such_package_anywhere
