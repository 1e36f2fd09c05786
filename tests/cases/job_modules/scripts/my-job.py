import pickle
from dataclasses import dataclass


@dataclass
class Point:
    x: int


def run(p: Point):
    return pickle.loads(pickle.dumps(p)).x
