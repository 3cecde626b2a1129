"""Work in threads: results in order, a bound on how many run at once, failures only when all have ended."""

from __future__ import annotations

from functools import partial
from threading import Barrier, Event, Lock, current_thread, main_thread

import pytest

from flyte_pack.meanwhile import all_of, meanwhile


def test_the_caller_goes_on_and_gets_the_result_or_what_was_raised():
    go = Event()
    done = meanwhile(lambda: (go.wait(30), "done")[1])
    assert not done.done()
    go.set()
    assert done.result(30) == "done"
    failed = meanwhile(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failed.result(30)


def test_all_run_at_once_and_their_results_are_in_order():
    together = Barrier(4)

    def work(number):
        together.wait(30)  # or nobody goes on
        return number

    assert all_of((partial(work, number) for number in range(4)), 4) == [0, 1, 2, 3]


def test_no_more_run_at_once_than_are_allowed():
    lock, running, most = Lock(), [], []

    def work(number):
        with lock:
            running.append(number)
            most.append(len(running))
        Event().wait(0.01)
        with lock:
            running.remove(number)

    all_of((partial(work, number) for number in range(20)), 3)
    assert max(most) <= 3


def test_one_at_once_runs_in_this_thread_and_stops_at_the_first_failure():
    seen = []

    def work(number):
        seen.append(current_thread())
        if number:
            raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        all_of((partial(work, number) for number in range(3)), 1)
    assert seen == [main_thread()] * 2


def test_the_first_failure_in_their_order_is_raised_when_all_have_ended():
    last, ended = Event(), []

    def work(number):
        if number == 1:
            last.wait(30)
            raise ValueError("in the middle")
        if number == 2:
            last.set()
            raise ValueError("at the end")
        ended.append(number)

    with pytest.raises(ValueError, match="in the middle"):
        all_of((partial(work, number) for number in range(3)), 3)
    assert ended == [0]
