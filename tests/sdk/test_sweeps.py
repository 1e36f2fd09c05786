"""Many runs of a function: started a few at a time, one table at the end, failed ones alone again."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from digitalhub_runtime_python.errors import Fault
from sdk.conftest import Script, user_code

pytest.importorskip("digitalhub")

from digitalhub_runtime_python.sdk.sweeps import grid

CODE = """
from pathlib import Path
def f(project, run, n: int, kind: str = "a"):
    mark = Path(MARK)
    if n == 3 and not mark.exists():
        raise ValueError("not yet")
    run.log_metric("loss", [1.0, 1.0 / n])
    return n * 10
"""


def test_a_grid_is_every_combination() -> None:
    made = grid({"a": [1, 2], "b": ("x", "y")})
    assert made == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize("values", [{"a": 5}, {"a": "text"}, {"a": {"b": 1}}])
def test_a_grid_of_what_is_no_list_is_refused(values) -> None:
    with pytest.raises(Fault) as raised:
        grid(values)
    assert raised.value.code == "usage/sweep"


@pytest.mark.skipif(
    version("digitalhub").startswith("0.14"),
    reason="SDK 0.14 reads no metrics of a run that has ended",
)
def test_a_sweep_is_a_table_whose_failed_runs_are_tried_alone_and_that_is_taken_up_by_its_name(
    script: Script,
) -> None:
    seen = script(
        user_code(
            f"""
            from pathlib import Path
            from digitalhub_runtime_python.errors import Fault
            mark = Path("mark").absolute()
            function = new({CODE!r}.replace("MARK", repr(str(mark))))
            swept = function.sweep({{"n": [1, 2, 3, 4], "kind": ["a"]}}, name="first", parallel=3)
            frame = swept.frame()
            show(short=repr(swept), columns=list(frame.columns), outputs=list(frame["output_0"].fillna(-1)),
                 losses=list(frame["loss"].fillna(-1)), states=list(frame["state"]), error=list(frame["error"])[2],
                 best=[swept.best("output_0").spec.parameters["n"], swept.best("loss", largest=False).spec.parameters["n"]],
                 html=swept._repr_html_()[:20], failed=[r.id for r in swept.failed], ids=[r.id for r in swept])
            mark.write_text("")
            swept.retry()
            show(again=[r.id for r in swept], then=swept.summary())
            del sent[:]
            same = function.sweep({{"n": [1, 2, 3, 4, 5], "kind": ["a"]}}, name="first")
            show(taken=[r.id for r in same], posts=[s for s in sent if s.startswith("POST") and s.endswith("/runs")])
            def refused(call):
                try:
                    call()
                except Fault as exc:
                    return exc.code
            del sent[:]
            show(refusals=[
                refused(lambda: function.map([])),
                refused(lambda: function.map([{{"n": object()}}])),
                refused(lambda: function.map([{{"n": 1}}], parallel=0)),
                refused(lambda: function.map([{{"n": 1}}], local_execution=True)),
                refused(lambda: function.map([{{"n": 1}}], resorces={{}})),
                refused(lambda: same.best("strange")),
            ], created=[s for s in sent if s.startswith("POST")])
            """
        )
    )
    assert seen.columns == ["n", "kind", "output_0", "loss", "state", "error", "run"]
    assert seen.outputs == [10, 20, -1, 40]
    assert seen.losses == [1.0, 0.5, -1, 0.25]
    assert seen.states == ["COMPLETED", "COMPLETED", "ERROR", "COMPLETED"]
    assert seen.error == "ValueError: not yet"
    assert seen.best == [4, 4]
    assert seen.short.endswith("3 COMPLETED, 1 ERROR>")
    assert seen.failed == [seen.ids[2]]
    assert seen.then == "4 COMPLETED"
    assert [a == b for a, b in zip(seen.ids, seen.again)] == [True, True, False, True]
    assert seen.taken[:4] == seen.again and len(seen.posts) == 1
    assert seen.refusals == ["usage/sweep", "usage/parameter", *["usage/sweep"] * 2, "usage/parameter", "usage/sweep"]  # fmt: skip
    assert seen.created == []
