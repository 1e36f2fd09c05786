def train(epochs: int, rate: float = 0.1, *, seed: int, project_name="p"):
    return [epochs, rate, seed, project_name]


def takes_any(a, **others):
    return [a, others]


def only_positions(a, b=2, /, c=3):
    return [a, b, c]


def nothing():
    return "called"


def starred(*args, flag=False):
    return [list(args), flag]
