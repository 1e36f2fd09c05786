from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import services


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., services.Service]]:
    """Serves a handler of a folder of tests/cases, or of code that is given as text."""
    with ExitStack() as stack:

        def start(code: str, handler: str, *options: str, **more: Any) -> services.Service:
            place = tmp_path / f"service{len(list(tmp_path.glob('service*')))}"
            file = services.CASES / code / "main.py"
            if "\n" in code:
                place.mkdir()
                file = place / "main.py"
                file.write_text(code)
            return stack.enter_context(
                services.serving(file, handler, *options, tmp_path=place, **more)
            )

        yield start
