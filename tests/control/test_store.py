"""The store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serving import settings_in
from sqlalchemy import inspect, select, text
from sqlalchemy.event import listen

from digitalhub_python_control.files.blobs import Blobs
from digitalhub_python_control.files.objects import Condition, ConditionError, Objects
from digitalhub_python_control.store import times
from digitalhub_python_control.store.database import about, secret_values
from digitalhub_python_control.store.entities import Entity, new_entity
from digitalhub_python_control.store.store import DuplicateError, Store
from digitalhub_python_control.store.vault import Vault, open_vault
from digitalhub_runtime_python.errors import PlatformFault, UsageFault


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url, Vault(b"k" * 32))
    yield store
    store.close()


def entity(plural: str, name: str = "a", **sent: object) -> Entity:
    kinds = {"runs": "python+job:run", "functions": "python"}
    body = {"name": name, "kind": kinds.get(plural, "artifact"), **sent}
    return new_entity(plural, "p", body, "me", times.now())


def a_run(store: Store, target: str | None = "RUN", state: str = "READY") -> str:
    run = entity("runs", status={"state": state}, spec={"function": "python://p/f:1"})
    store.create("runs", run, target=target)
    return str(run["id"])


def test_an_entity_comes_back_as_it_went_in(store: Store) -> None:
    made = entity("artifacts", spec={"x": float("inf"), "odd": "\0\ud800", "ü": [None]})
    store.create("artifacts", made)
    assert store.get("artifacts", "p", made["id"]) == made
    assert store.get("artifacts", "other", made["id"]) is None
    assert store.get("models", "p", made["id"]) is None
    assert store.get("artifacts", "p", "\0") is None


def test_the_same_id_twice_is_refused(store: Store) -> None:
    made = entity("artifacts")
    store.create("artifacts", made)
    with pytest.raises(DuplicateError):
        store.create("artifacts", made)
    store.create("artifacts", {**made, "project": "q"})


def test_entities_of_one_instant_are_listed_newest_first(store: Store) -> None:
    now = "2026-01-01T00:00:00Z"
    made = [entity("artifacts", metadata={"created": now}) for _ in range(30)]
    for one in made:
        store.create("artifacts", one)
    listed, total = store.page("artifacts", "p", {})
    assert listed == made[::-1] and total == 30
    assert store.page("artifacts", "p", {}, all_versions=False) == ([made[-1]], 1)
    page, total = store.page("artifacts", "p", {}, page=2, size=12)
    assert page == made[5::-1] and total == 30


def test_filters_take_their_values_literally(store: Store) -> None:
    store.create("functions", entity("functions", "a_b"))
    store.create("functions", entity("functions", "axb"))
    found, _ = store.page("functions", "p", {"q": "a_b"}, all_versions=False)
    assert [one["name"] for one in found] == ["a_b"]
    assert store.page("functions", "p", {"q": "A_B"})[1] == 1, "q does not mind the case"
    assert store.page("functions", "p", {"name": "A_B"})[1] == 0
    assert store.page("functions", "p", {"q": "%"})[1] == 0
    assert store.page("functions", "p", {"name": "a\0b"})[1] == 0


def test_changes_of_the_same_entity_at_once_are_all_kept(store: Store) -> None:
    made = entity("artifacts", spec={"n": 0})
    store.create("artifacts", made)

    def add(one: Entity) -> Entity:
        return {**one, "spec": {"n": one["spec"]["n"] + 1}}

    def work(_: int) -> None:
        for _ in range(10):
            store.change("artifacts", "p", made["id"], add)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    found = store.get("artifacts", "p", made["id"])
    assert found is not None and found["spec"] == {"n": 80}


def test_a_change_that_fails_changes_nothing(store: Store) -> None:
    made = entity("artifacts")
    store.create("artifacts", made)

    def refuse(_: Entity) -> Entity:
        raise UsageFault("usage/test", "No.")

    with pytest.raises(UsageFault):
        store.change("artifacts", "p", made["id"], refuse)
    assert store.get("artifacts", "p", made["id"]) == made
    assert store.change("artifacts", "p", "none", refuse) is None


def test_a_run_moves_only_as_the_table_of_states_allows(store: Store) -> None:
    identity = a_run(store)
    assert store.move_run("p", identity, "PENDING", handle={"pid": 1}, engine="process", attempt=2)
    assert store.move_run("p", identity, "RUNNING", status={"service": {"url": "x"}, "gone": None})
    assert not store.move_run("p", identity, "READY")
    assert store.move_run("p", identity, "COMPLETED", message="done")
    assert not store.move_run("p", identity, "RUNNING")
    assert not store.move_run("p", "none", "RUNNING")
    record = store.get_run_record("p", identity)
    assert record is not None
    assert (record.state, record.engine, record.handle, record.attempt) == (
        "COMPLETED",
        "process",
        {"pid": 1},
        2,
    )
    status = record.entity["status"]
    assert [one["status"] for one in status["transitions"]] == ["COMPLETED", "RUNNING", "PENDING"]
    assert status["transitions"][0]["message"] == status["message"] == "done"
    assert status["service"] == {"url": "x"} and "gone" not in status


def test_staying_in_a_state_is_no_transition_and_none_removes_a_key(store: Store) -> None:
    identity = a_run(store)
    store.move_run("p", identity, "RUNNING", status={"error": {"type": "E"}}, handle=[1])
    store.move_run("p", identity, "RUNNING", status={"error": None}, handle=None, attempt=1)
    record = store.get_run_record("p", identity)
    assert record is not None and record.handle is None and record.attempt == 1
    assert len(record.entity["status"]["transitions"]) == 1
    assert "error" not in record.entity["status"]


def test_of_two_who_end_a_run_at_once_one_succeeds(store: Store) -> None:
    for _ in range(10):
        identity = a_run(store, state="RUNNING")
        start = threading.Barrier(4)

        def end(state: str, identity: str = identity, start: threading.Barrier = start) -> bool:
            start.wait()
            return store.move_run("p", identity, state) is not None

        with ThreadPoolExecutor(4) as pool:
            ended = list(pool.map(end, ["COMPLETED", "ERROR", "STOPPED", "STOP"]))
        record = store.get_run_record("p", identity)
        assert record is not None and record.state in ("COMPLETED", "ERROR", "STOPPED")
        assert sum(ended) - ended[3] == 1


def test_unsettled_are_those_whose_target_is_not_reached_oldest_first(store: Store) -> None:
    ids = [a_run(store) for _ in range(3)]
    local = a_run(store, target=None)
    store.set_target("p", ids[0], "STOP")
    store.move_run("p", ids[1], "ERROR")
    assert [one.id for one in store.unsettled_runs()] == [ids[0], ids[2]]
    store.move_run("p", ids[0], "STOPPED")
    assert [one.id for one in store.unsettled_runs()] == [ids[2]]
    store.set_target("p", ids[1], "DELETE")
    assert [one.id for one in store.unsettled_runs()] == [ids[1], ids[2]]
    assert store.get("runs", "p", ids[1]) is None and store.get("runs", "p", local) is not None
    assert store.count_runs() == {"READY": 2, "STOPPED": 1}
    store.delete_run("p", ids[1])
    assert store.get_run_record("p", ids[1]) is None


def test_who_waits_for_changes_is_told_of_runs_only(store: Store) -> None:
    calls: list[str] = []
    store.on_change = lambda project, identity: calls.append(identity)
    store.create("artifacts", entity("artifacts"))
    assert not calls
    identity = a_run(store)
    store.set_target("p", identity, "STOP")
    assert calls == [identity, identity]


def test_secrets_are_stored_encrypted_each_in_its_place(store: Store) -> None:
    store.set_secret_values("p", {"a": "välue", "b": "two", "empty": ""})
    assert store.secret_values("p", ["a", "b", "c", "empty", "\0"]) == {
        "a": "välue",
        "b": "two",
        "empty": "",
    }
    assert store.secret_values("q", ["a"]) == {}
    with store.reading() as connection:
        sealed = dict(connection.execute(select(secret_values.c.name, secret_values.c.value)).all())
    assert all("välue".encode() not in bytes(value) for value in sealed.values())
    with store.writing() as connection:  # someone swaps two rows
        swapped = secret_values.update().where(secret_values.c.name == "a")
        connection.execute(swapped.values(value=bytes(sealed["b"])))
    with pytest.raises(PlatformFault, match="cannot be decrypted") as caught:
        store.secret_values("p", ["a"])
    assert caught.value.code == "control/secret-key" and "two" not in str(caught.value)
    store.delete_secret_values("p", ["b"])
    assert store.secret_values("p", ["b", "empty"]) == {"empty": ""}


def test_details_belong_to_their_entity_and_go_with_it(store: Store) -> None:
    store.create("artifacts", entity("artifacts", id="one"))
    store.set_detail("artifacts", "p", "one", "metric", "a", [1.5, float("inf")])
    store.set_detail("artifacts", "p", "one", "metric", "a", 2)
    store.set_detail("artifacts", "p", "one", "files", "info", [{}])
    assert store.details("artifacts", "p", "one", "metric") == {"a": 2}
    store.delete("artifacts", "p", ["one"])
    assert store.details("artifacts", "p", "one", "metric") == {}


def test_keys_are_listed_in_the_order_of_their_bytes(store: Store, tmp_path: Path) -> None:
    objects = Objects(store, Blobs(tmp_path / "files"))
    keys = ["B", "a", "a/b", "a/é", "Z/1", "_", "é", "漢", "🎉", "a-b", "a b"]
    for key in keys:
        put(objects, key, key.encode())
    in_order = sorted(keys, key=str.encode)
    for size in (1, 2, 3, 100):
        found, token = [], ""
        while True:
            page = objects.listing("b", "", "", size, token, "")
            found += [one.key for one in page.objects]
            if page.next_token is None:
                break
            token = page.next_token
        assert found == in_order
    page = objects.listing("b", "", "/", 100, "", "")
    assert page.prefixes == ["Z/", "a/"] and len(page.objects) == len(keys) - 3
    assert [one.key for one in objects.listing("b", "a", "", 100, "", "a b").objects] == [
        "a-b",
        "a/b",
        "a/é",
    ]


def put(objects: Objects, key: str, content: bytes, condition: Condition | None = None) -> None:
    writer = objects.blobs.writer()
    writer.write(content)
    objects.put("b", key, writer, "text/plain", {}, condition or Condition())


def test_a_write_whose_condition_fails_leaves_the_old_bytes_and_no_new_ones(
    store: Store, tmp_path: Path
) -> None:
    objects = Objects(store, Blobs(tmp_path / "files"))
    put(objects, "a", b"old", Condition(none_match="*"))
    with pytest.raises(ConditionError):
        put(objects, "a", b"new", Condition(none_match="*"))
    with pytest.raises(ConditionError):
        put(objects, "a", b"new", Condition(match="0" * 32))
    stored = objects.get("b", "a")
    assert stored is not None
    with objects.blobs.open(stored.blob) as file:
        assert file.read() == b"old"
    put(objects, "a", b"new", Condition(match=stored.etag))
    assert len([path for path in (tmp_path / "files").rglob("*") if path.is_file()]) == 1


def test_what_a_crash_left_is_swept_away_and_nothing_else(store: Store, tmp_path: Path) -> None:
    objects = Objects(store, Blobs(tmp_path / "files"))
    put(objects, "a", b"kept")
    lost = objects.blobs.writer()
    lost.write(b"lost")
    orphan = objects.blobs.keep(lost)  # the server dies before it enters the name
    half = objects.blobs.writer()  # or while it receives
    assert objects.sweep(0) == 0
    assert objects.sweep(times.now() / 1e6 + 60) == 1
    with pytest.raises(FileNotFoundError):
        objects.blobs.open(orphan)
    half.discard()
    files = [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
    assert len(files) == 1 and files[0].read_bytes() == b"kept"


def test_a_database_of_another_kind_or_address_is_refused_by_name(tmp_path: Path) -> None:
    for url, says in (
        ("nonsense", "not well formed"),
        ("postgresql+psycopg://ada:s3cret@127.0.0.1:port/x", "not well formed"),
        ("nope://x", "nope"),
        (f"sqlite:///{tmp_path}/none/dhpy.db", "cannot be opened"),
        ("postgresql+psycopg://u@127.0.0.1:1/x", "does not answer"),
    ):
        if "psycopg" in url:
            pytest.importorskip("psycopg")
        with pytest.raises((UsageFault, PlatformFault), match=says) as caught:
            Store(url)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("how", ["garbage", "page"])
def test_a_damaged_database_is_reported_in_one_line(tmp_path: Path, how: str) -> None:
    path = tmp_path / "dhpy.db"
    store = Store(f"sqlite:///{path}")
    for _ in range(200):
        store.create("artifacts", entity("artifacts", spec={"x": "y" * 2000}))
    store.close()
    sqlite3.connect(path).close()
    content = bytearray(path.read_bytes())
    if how == "garbage":
        content[:100] = b"\xa5" * 100
    else:
        content[len(content) // 2 :] = b"\xa5" * (len(content) - len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(PlatformFault) as caught:
        Store(f"sqlite:///{path}")
    assert caught.value.code == "control/database-corrupt" and "\n" not in str(caught.value)


def test_a_database_of_another_version_is_not_touched(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'dhpy.db'}"
    store = Store(url)
    with store.writing() as connection:
        connection.execute(about.update().values(value="999"))
    store.close()
    with pytest.raises(PlatformFault, match="schema 999") as caught:
        Store(url)
    assert caught.value.code == "control/database-version"


def test_the_key_of_secrets_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    sealed = open_vault(path).seal("p/a", "x")
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_vault(path).open("p/a", sealed) == "x"
    path.chmod(0o644)
    with pytest.raises(PlatformFault, match="chmod 600"):
        open_vault(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(PlatformFault, match="holds no key"):
        open_vault(path)


def test_a_database_of_the_schema_before_is_brought_up_and_keeps_everything(
    database_url: str,
) -> None:
    first = Store(database_url, Vault(b"k" * 32))
    identity = a_run(first)
    with first.writing() as connection:
        connection.execute(text("ALTER TABLE entities DROP COLUMN owner"))
        connection.execute(text("DROP TABLE planes"))
        connection.execute(text("UPDATE about SET value = '1' WHERE name = 'schema'"))
    first.close()
    again = Store(database_url, Vault(b"k" * 32))
    assert [(one.id, one.owner) for one in again.unsettled_runs()] == [(identity, None)]
    assert again.move_run("p", identity, "PENDING") is not None
    again.close()


def test_a_database_without_the_index_by_time_gets_it(database_url: str) -> None:
    first = Store(database_url)
    with first.writing() as connection:
        connection.execute(text("DROP INDEX entities_by_time"))
        connection.execute(text("UPDATE about SET value = '2' WHERE name = 'schema'"))
    first.close()
    again = Store(database_url)
    names = {one["name"] for one in inspect(again.engine).get_indexes("entities")}
    again.close()
    assert "entities_by_time" in names


def test_what_a_page_shows_is_chosen_and_counted_without_reading_rows(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/dhpy.db", Vault(b"k" * 32))
    a_run(store)
    asked: list[tuple[str, Any]] = []
    listen(
        store.engine,
        "before_cursor_execute",
        lambda c, cursor, query, values, *more: asked.append((query, values)),
    )
    store.page("runs", "p", {"state": "COMPLETED"}, size=20)
    store.last_change("runs", "p")
    with store.reading() as connection:
        plans = [
            "; ".join(
                row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values)
            )
            for query, values in list(asked)
            if query.startswith("SELECT")
        ]
    store.close()
    assert len(plans) >= 2
    assert all("COVERING INDEX entities_by_time" in plan for plan in plans), plans


def test_a_store_that_is_opened_again_has_everything(database_url: str, tmp_path: Path) -> None:
    first = Store(database_url, Vault(b"k" * 32))
    identity = a_run(first)
    first.set_secret_values("p", {"a": "x"})
    first.close()
    again = Store(database_url, Vault(b"k" * 32))
    assert [one.id for one in again.unsettled_runs()] == [identity]
    assert again.secret_values("p", ["a"]) == {"a": "x"}
    again.close()
    assert settings_in(tmp_path).database_url.startswith("sqlite")
