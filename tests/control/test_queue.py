"""The work queue and the places for runs."""

from __future__ import annotations

import random
import threading
import time

import pytest
from reconciling import wait_for

from digitalhub_python_control.running.places import Places
from digitalhub_python_control.running.queue import Queue


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def taken(queue: Queue) -> list:
    """What is ready now, each worked on and done at once."""
    queue.add_after("the end", 0)  # behind every timer whose time has come
    keys = []
    while (key := queue.get()) != "the end":
        keys.append(key)
        queue.done(key)
    queue.done(key)
    return keys


def test_a_key_that_waits_is_there_once(clock):
    queue = Queue(clock=clock)
    for key in "abab":
        queue.add(key)
    assert taken(queue) == ["a", "b"]
    assert taken(queue) == []


def test_a_key_that_is_told_of_while_it_is_worked_on_comes_again_and_not_before(clock):
    queue = Queue(clock=clock)
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    assert taken(queue) == []
    queue.done("a")
    assert taken(queue) == ["a"]


def test_a_timer_brings_a_key_at_its_time_the_earliest_counts_and_a_tell_comes_before_all(clock):
    queue = Queue(clock=clock)
    queue.add_after("a", 10)
    queue.add_after("a", 5)
    queue.add_after("b", 7)
    clock.now += 5
    assert taken(queue) == ["a"]
    queue.add("b")
    assert taken(queue) == ["b"]
    clock.now += 100
    assert taken(queue) == []


def test_the_pauses_of_a_failing_key_double_up_to_the_longest_and_begin_anew_after_a_success(clock):
    queue = Queue(longest=1.0, clock=clock)
    assert [queue.again("a") for _ in range(5)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert queue.again("b") == 0.25
    queue.forget("a")
    assert queue.again("a") == 0.25


def test_a_claimed_key_is_given_to_no_worker_until_it_is_done(clock):
    queue = Queue(clock=clock)
    queue.add("a")
    assert queue.claim("a") and not queue.claim("a")
    assert taken(queue) == []
    queue.done("a")
    assert taken(queue) == ["a"]  # it had been told of before it was claimed


def test_no_key_has_two_workers_and_no_tell_is_missed_under_eight_threads():
    queue: Queue[int] = Queue()
    told = [0] * 20
    seen = [0] * 20
    busy = [threading.Lock() for _ in told]
    clashes = []

    def work():
        while (key := queue.get()) is not None:
            if not busy[key].acquire(blocking=False):
                clashes.append(key)
            seen[key] = told[key]
            time.sleep(0.0005)
            busy[key].release()
            queue.done(key)

    def tell(seed):
        chance = random.Random(seed)
        for _ in range(300):
            key = chance.randrange(20)
            with lock:
                told[key] += 1
            chance.choice([queue.add, lambda key: queue.add_after(key, 0.001)])(key)

    lock = threading.Lock()
    threads = [threading.Thread(target=work) for _ in range(4)]
    tellers = [threading.Thread(target=tell, args=(seed,)) for seed in range(4)]
    for thread in [*threads, *tellers]:
        thread.start()
    for thread in tellers:
        thread.join()
    wait_for(lambda: seen == told, what="the last tell of every key")
    queue.close()
    for thread in threads:
        thread.join()
    assert not clashes


def test_places_go_by_order_of_creation_and_who_waits_is_told():
    told: list[str] = []
    places = Places(2, told.append)
    assert places.take("first", 1) and places.take("second", 2)
    assert not places.take("fourth", 4) and not places.take("third", 3)
    places.release("first")
    assert told == ["third"] and places.take("third", 3)
    assert not places.take("fourth", 4) and places.is_waiting("fourth")


def test_one_that_goes_on_from_before_is_counted_also_above_the_limit():
    told: list[str] = []
    places = Places(1, told.append)
    places.hold("a")
    places.hold("b")
    assert not places.take("c", 3)
    places.release("a")
    assert told == []
    places.release("b")
    assert told == ["c"]


def test_one_that_does_not_wait_any_more_is_passed_over():
    told: list[str] = []
    places = Places(1, told.append)
    assert places.take("a", 1)
    assert not places.take("b", 2) and not places.take("c", 3)
    places.release("b")
    places.release("a")
    assert told == ["c"]


def test_a_place_is_lent_to_one_of_those_that_its_holder_has_started_then_to_the_next():
    told: list[str] = []
    places = Places(1, told.append)
    assert places.take("parent", 1) and not places.take("stranger", 2)
    assert places.take("child", 3, "parent") and not places.take("sibling", 4, "parent")
    assert places.take("grandchild", 5, "child")
    assert places.count() == {"held": 1, "lent": 2, "waiting": 2}
    places.release("grandchild")
    places.release("child")
    assert told == ["sibling"] and places.take("sibling", 4, "parent")
    places.release("sibling")
    places.release("parent")
    assert told == ["sibling", "stranger"]
    assert places.count() == {"held": 1, "lent": 0, "waiting": 0}


def test_who_has_borrowed_a_place_keeps_it_when_its_holder_ends_first():
    told: list[str] = []
    places = Places(1, told.append)
    assert places.take("parent", 1) and places.take("child", 2, "parent")
    assert not places.take("stranger", 3)
    places.release("parent")
    assert told == [] and places.has("child")
    places.release("child")
    assert told == ["stranger"]


def test_of_those_who_go_on_from_before_a_child_uses_its_parents_place():
    places: Places[str] = Places(2, lambda key: None)
    places.hold("child", "parent")
    places.hold("parent")
    assert places.take("stranger", 3)
    places.hold("sibling", "parent")
    assert places.count() == {"held": 3, "lent": 1, "waiting": 0}


@pytest.mark.parametrize("waits", ["for its own", "for all below"])
def test_every_tree_of_runs_that_wait_ends_whatever_the_order(waits):
    for seed in range(200):
        chance, told = random.Random(seed), []
        places = Places(chance.randint(1, 3), told.append)
        parents = {n: chance.choice([None, *range(n)]) if n else None for n in range(20)}
        begun, ended = set(), set()

        def above(one, parents=parents):
            return [] if parents[one] is None else [parents[one], *above(parents[one])]

        def may_end(one, parents=parents, ended=ended):
            if waits == "for its own":
                return all(n in ended for n in parents if parents[n] == one)
            # Those that were started by none wait for everything below them, the others for nothing.
            return parents[one] is not None or all(n in ended for n in parents if one in above(n))

        for _ in range(4000):
            alive = [n for n in parents if n not in ended]
            if not alive:
                break
            one = chance.choice(alive)
            if one in begun and may_end(one):
                ended.add(one)
                places.release(one)
            elif one not in begun and begun.issuperset(above(one)):
                lender = next((n for n in above(one) if n not in ended), None)
                if places.take(one, one, lender):
                    begun.add(one)
        assert len(ended) == len(parents), f"seed {seed}"
        assert places.count() == {"held": 0, "lent": 0, "waiting": 0}


def test_who_waits_to_borrow_is_told_when_the_lender_is_gone():
    told: list[str] = []
    places = Places(1, told.append)
    assert places.take("root", 1) and places.take("parent", 2, "root")
    assert places.take("child", 3, "parent") and not places.take("late", 4, "parent")
    places.release("parent")
    assert told == ["late"]
    assert places.take("late", 4, "root")
