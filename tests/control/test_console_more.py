"""The console's pages beside its tables: search in a log, lineage, environments."""

from __future__ import annotations

import html
import io
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import Plane
from test_console import EVIL, page, post, put

from digitalhub_python_control.console import frames, logsearch, logtext
from digitalhub_python_control.running.logs import run_folder


def write_log(plane: Plane, run: dict[str, Any], old: str, new: str) -> None:
    folder = run_folder(plane.settings.home, "proj", run["id"])
    folder.mkdir(parents=True)
    (folder / "log.1").write_text(old)
    (folder / "log").write_text(new)


def test_a_search_in_a_log_shows_its_lines_and_what_is_around_them(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()))
    write_log(plane, run, f"first Needle{EVIL}\n", "\x1b[31mneedle\x1b[0m  two needles\nlast\n")
    found = page(plane, f"p/proj/runs/{run['id']}/find?q=NEEDLE")
    assert "3 matches" in found and "2 lines shown" in found
    assert found.index("two <mark>needle</mark>s") < found.index("first <mark>Needle</mark>")
    assert EVIL not in found and "\x1b" not in found
    places = re.findall(r'href="(\?q=[^"]*)"', found)
    near = page(plane, f"p/proj/runs/{run['id']}/find{html.unescape(places[1]).partition('#')[0]}")
    assert re.search(r'class="here" id="here">first <mark>Needle', near) and "last" in near
    assert "0 matches" in page(plane, f"p/proj/runs/{run['id']}/find?q=nothing%00")
    for odd in ("?q=%ff", "?q=%ed%a0%80&at=99999999999", "?at=3", "", f"?q={'x' * 5000}"):
        page(plane, f"p/proj/runs/{run['id']}/find{odd}")


def test_a_search_in_a_run_without_a_log_finds_nothing(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()))
    assert "0 matches" in page(plane, f"p/proj/runs/{run['id']}/find?q=x&at=0")


@given(
    lines=st.lists(st.text("abA \r", max_size=6), max_size=12),
    cut=st.integers(0, 60),
    wanted=st.text("ab", min_size=1, max_size=2),
    piece=st.integers(16, 64),
)
def test_a_search_in_pieces_finds_what_a_search_of_the_whole_does(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], cut: int, wanted: str, piece: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    text = "".join(f"{line}\n" for line in lines)
    (folder / "log.1").write_bytes(text[:cut].encode())
    (folder / "log").write_bytes(text[cut:].encode())
    with logsearch.Log(folder / "log") as log:
        found = logsearch.search(log, wanted, piece=piece)
        for match in found.lines:
            around, here = logsearch.around(log, match.at)
            assert around[here].rstrip("\r") == match.text
    assert found.total == sum(line.lower().count(wanted) for line in lines)
    assert [m.text for m in found.lines] == [x.rstrip("\r") for x in lines if wanted in x.lower()][::-1]  # fmt: skip


def test_a_search_looks_no_further_back_than_it_may(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("needle\n" * 100)
    with logsearch.Log(tmp_path / "log") as log:
        found = logsearch.search(log, "needle", searched=70)
    assert (found.total, found.left_out) == (10, 630)


def test_a_log_s_line_is_marked_as_text() -> None:
    marked = logtext.marked("a\x1b[31m<b>\x1b[0m  <B>", "<b>")
    assert marked == "a<mark>&lt;b&gt;</mark>  <mark>&lt;B&gt;</mark>"


def test_lineage_leads_from_the_run_that_made_an_input_to_those_that_took_an_output(
    plane: Plane,
) -> None:
    task = plane.task(plane.function("steps"))
    first = plane.run(task)
    made = [{"type": "produced_by", "dest": first["key"]}]
    raw = plane.create(
        "dataitems", kind="table", name="raw", spec={"path": "s3://digitalhub/raw"},
        metadata={"relationships": made},
    )  # fmt: skip
    clean = plane.create(
        "dataitems", kind="table", name="clean", spec={"path": "s3://digitalhub/c"}
    )
    middle = plane.run(task, inputs={"data": raw["key"], EVIL: "store://other/dataitem/table/x:1"})
    status = {"outputs": {"result": clean["key"], "gone": "store://proj/dataitem/table/no:no"}}
    plane.ask("PUT", f"/-/proj/runs/{middle['id']}", json={**middle, "status": status})
    last = plane.run(task, inputs={"it": clean["key"]})
    plane.run(task, parameters={"it": clean["key"]})  # names it, and does not take it
    shown = page(plane, f"p/proj/runs/{middle['id']}/lineage")
    listed = dict(re.findall(r"<dt>([^<]+)</dt><dd>(.*?)</dd>", shown, re.DOTALL))
    assert re.findall(r"runs/(\w+)", listed["Made by"]) == [first["id"]]
    assert re.findall(r"runs/(\w+)", listed["Used by"]) == [last["id"]]
    assert "table · raw" in listed["Inputs"] and "not stored here" in listed["Inputs"]
    assert "table · clean" in listed["Outputs"] and "not stored here" in listed["Outputs"]
    picture = shown[shown.index("<svg") : shown.index("</svg>")]
    assert picture.count("<path") == 6 and EVIL not in shown


def test_lineage_of_a_run_with_nothing_around_it_is_the_run(each_plane: Plane) -> None:
    run = each_plane.run(each_plane.task(each_plane.function()))
    shown = page(each_plane, f"p/proj/runs/{run['id']}/lineage")
    assert shown.count("<rect") == 1 and shown.count("None that is known.") == 4


def environment(plane: Plane, key: str, days: float) -> Path:
    """An environment as the builder leaves it, last used so many days ago; its interpreter."""
    folder = plane.settings.cache / "environments" / f"python3.11-{key}"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("x" * 5000)
    marker = folder / ".complete"
    marker.write_text(json.dumps({"python": "/x", "requirements": ["numpy==1.0", EVIL]}))
    os.utime(marker, (time.time() - days * 86400,) * 2)
    return folder / "bin" / "python"


def test_environments_are_listed_with_their_users_and_those_unused_are_removed(
    plane: Plane,
) -> None:
    recent, old, busy = (environment(plane, k, d) for k, d in (("aa", 1), ("bb", 90), ("cc", 90)))
    for python, name, states in ((recent, "ended", ["COMPLETED"]), (busy, "lives", [])):
        run = plane.run(plane.task(plane.function(name)))
        for state in ["RUNNING", *states]:
            plane.store.move_run("proj", run["id"], state, handle={"python": str(python)})
    shown = page(plane, "p/proj/environments")
    rows = re.findall(r"<code>(\w\w)</code></td>(.*?)</tr>", shown, re.DOTALL)
    assert rows[0][0] == "aa" and re.search(r"\d\.\d KiB", rows[0][1])
    assert ">ended</a>" in dict(rows)["aa"] and "no run that is kept" in dict(rows)["bb"]
    assert "1 can go now" in shown and EVIL not in shown
    assert plane.http.post("/console/p/proj/environments", data={"do": "prune"}).status_code == 403
    assert old.exists()
    assert post(plane, "environments", do="prune").status_code == 303
    assert [one.exists() for one in (recent, old, busy)] == [True, False, True]
    assert post(plane, "environments", do="other").status_code == 400
    assert "None can go now" in page(plane, "p/proj/environments")


def test_images_are_listed_with_their_builds_why_they_differ_and_who_uses_them(
    plane: Plane,
) -> None:
    function = plane.function("builds")
    for number, wanted in enumerate((["a==1"], ["a==1"], ["a==2"])):
        run = plane.run(plane.task(function, "build"), requirements=wanted)
        status = {"build": {"image": f"builds:{number}", "lock": str(number // 2)}}
        plane.ask("PUT", f"/-/proj/runs/{run['id']}", json={**run, "status": status})
        for state in ("RUNNING", "COMPLETED"):
            plane.store.move_run("proj", run["id"], state)
    plane.function("uses", image="builds:2")
    plane.function("foreign", image=EVIL)
    shown = page(plane, "p/proj/environments")
    images = shown[shown.index('id="h-img"') :]
    rows = re.findall(r"<code>(.*?)</code>.*?<td class=\"note\">(.*?)</td>(.*?)</tr>", images, re.DOTALL)  # fmt: skip
    assert [(image, why) for image, why, _ in rows[:3]] == [
        ("builds:2", "changed: requirements"),
        ("builds:1", "nothing changed"),
        ("builds:0", "first build"),
    ]
    assert ">uses</a>" in rows[0][2] and "no function now" in rows[1][2]
    assert html.unescape(rows[3][0]) == EVIL and EVIL not in shown


def parquet(**columns: Any) -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.table(columns), target)
    return target.getvalue()


def test_a_frame_s_profile_tells_what_is_in_its_columns(plane: Plane) -> None:
    content = parquet(
        n=[1, 2, 3, None] * 6000, wide=[1.7e308, -1.7e308, float("nan"), float("inf")] * 6000,
        text=[EVIL, "b", "b", None] * 6000, none=pa.nulls(24000), inner=[[1]] * 24000,
        many=pa.array(["x", "y"] * 12000).dictionary_encode(), days=pa.array([0, 1] * 12000, pa.date32()),
    )  # fmt: skip
    put(plane, "frame/data.parquet", content)
    spec = {"path": "s3://digitalhub/frame/data.parquet"}
    item = plane.create("dataitems", kind="table", name="frame", spec=spec)
    shown = page(plane, f"p/proj/dataitems/{item['id']}/profile")
    assert "24,000 rows, 7 columns" in shown and "first 20,000 rows" in shown and EVIL not in shown
    assert "1 columns are left out" in shown
    rows = dict(re.findall(r"<strong>(\w+)</strong>(.*?)</tr>", shown, re.DOTALL))
    assert "15,000" in rows["n"] and "5,000 missing" in rows["n"] and "mean 2<" in rows["n"]
    assert "-1.7e+308 to 1.7e+308" in rows["wide"] and "10,000 missing" in rows["wide"]
    assert rows["text"].index("10,000") < rows["text"].index("&lt;script") and "1970-01-02" in rows["days"]  # fmt: skip
    put(plane, "frame/data.parquet", b"PAR1" + content[100:])
    page(plane, f"p/proj/dataitems/{item['id']}/profile", 404)


@given(content=st.binary(max_size=200), at=st.integers(4, 400))
def test_a_broken_frame_has_no_profile_or_one(content: bytes, at: int) -> None:
    whole = parquet(a=[1, 2], b=["x", None])
    frames.of_parquet(io.BytesIO(whole[:at] + content + whole[at + len(content) :]))
    assert frames.of_parquet(io.BytesIO(content)) is None


def test_a_frame_without_rows_or_with_one_has_a_profile() -> None:
    for values in ([], [1]):
        found = frames.of_parquet(io.BytesIO(parquet(a=pa.array(values, pa.int64()))))
        assert found is not None and found.rows == len(values) == found.columns[0].distinct
