from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable

import pytest

from nuclio.driver import Processor
from nuclio.processor import Real, find

Serve = Callable[..., Any]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Serve]:
    """Start a worker under the driver: `worker(code, handler=…)`."""
    with ExitStack() as stack:

        def start(code: str = "", handler: str = "main:handler", **more: Any) -> Processor:
            if code:
                (tmp_path / "main.py").write_text(textwrap.dedent(code))
            return stack.enter_context(Processor(tmp_path, handler, **more))

        yield start


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Serve]:
    """Start the real processor: `real(code, handler=…)`."""
    if find() is None:
        pytest.skip("no Nuclio processor on PATH, nor at $NUCLIO_PROCESSOR")
    with ExitStack() as stack:

        def start(code: str = "", handler: str = "main:handler", **more: Any) -> Real:
            if code:
                (tmp_path / "main.py").write_text(textwrap.dedent(code))
            return stack.enter_context(Real(tmp_path, handler, **more))

        yield start


@pytest.fixture(params=["driver", "processor"])
def serve(request: pytest.FixtureRequest) -> Serve:
    """The same test under the driver, always, and over HTTP under the real processor, where there is one."""
    name = "worker" if request.param == "driver" else "real"
    found: Serve = request.getfixturevalue(name)
    return found
