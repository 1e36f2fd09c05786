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
