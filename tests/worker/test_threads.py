"""The pool of application threads: every task is done once, by a free thread, and told to the loop."""

from __future__ import annotations

import select
import threading

from stardust.worker.threads import Pool

PATIENCE = 20.0  # s; far beyond what anything takes


def collected(pool: Pool[int], count: int) -> list[int]:
    """The next `count` tasks that are done; waits on the descriptor as the loop does."""
    poll = select.poll()
    poll.register(pool, select.POLLIN)
    done: list[int] = []
    while len(done) < count:
        assert poll.poll(PATIENCE * 1000), f"{len(done)} of {count} tasks were done"
        done += pool.done()
    return done


def test_as_many_at_once_as_there_are_threads() -> None:
    together = threading.Barrier(3)

    def meet(task: int) -> None:
        together.wait(PATIENCE)

    pool: Pool[int] = Pool(3, meet)
    for task in range(3):
        assert pool.free == 3 - task
        pool.submit(task)
    assert pool.free == 0
    assert sorted(collected(pool, 3)) == [0, 1, 2]
    assert pool.free == 3


def test_every_task_is_done_once() -> None:
    seen: list[int] = []
    pool: Pool[int] = Pool(4, seen.append)
    done: list[int] = []
    for task in range(2000):
        while not pool.free:
            done += collected(pool, 1)
        pool.submit(task)
    done += collected(pool, 2000 - len(done))
    assert sorted(done) == sorted(seen) == list(range(2000))
    assert pool.free == 4


def test_done_never_waits() -> None:
    pool: Pool[int] = Pool(1, lambda task: None)
    assert pool.done() == []


def test_a_full_pipe_of_wake_ups_stops_nobody() -> None:
    """The loop sleeps through more wake-ups than the pipe holds (64 KiB), and still hears of every task."""
    count = 70_000
    all_done = threading.Event()
    pool: Pool[int] = Pool(1, lambda task: all_done.set() if task == count else None)
    for task in range(1, count + 1):
        pool.submit(task)
    assert all_done.wait(PATIENCE)
    assert collected(pool, count) == list(range(1, count + 1))
