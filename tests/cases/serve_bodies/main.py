"""Bodies of every kind, for arguments by name."""
from typing import BinaryIO, List, Optional


def describe(
    text: str = "none",
    count: int = 1,
    tags: Optional[List[str]] = None,
    numbers: List[int] = (),
    strict: bool = False,
    image: bytes = b"",
    sheets: List[bytes] = (),
    stream: Optional[BinaryIO] = None,
    other=None,
):
    return {
        "text": text,
        "count": count,
        "tags": tags,
        "numbers": list(numbers),
        "strict": strict,
        "image": len(image),
        "sheets": [len(s) for s in sheets],
        "stream": stream.read().decode() if stream else None,
        "other": other if other is None or isinstance(other, (str, list)) else other.filename,
    }
