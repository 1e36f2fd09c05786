import dataclasses

OWN = "token"


@dataclasses.dataclass
class Token:
    text: str


def handle(x: int):
    return Token(str(x)).text
