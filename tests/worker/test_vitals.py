"""Which descriptors are no longer what they were."""

from __future__ import annotations

import os
import select
import socket

import pytest

from stardust.worker.vitals import Vitals


def test_nothing_is_lost_that_is_there() -> None:
    vitals = Vitals()
    with socket.socket() as one, select.epoll() as two:
        vitals.keep({one.fileno(): "one", two.fileno(): "two"})
        assert vitals.lost() == {}


@pytest.mark.parametrize("how", ["closed", "a file", "another socket"])
def test_what_is_lost_is_told_once(how: str) -> None:
    vitals = Vitals()
    one, two = socket.socket(), socket.socket()
    number = one.fileno()
    vitals.keep({number: "one", two.fileno(): "two"})
    if how == "closed":
        os.close(number)
    elif how == "a file":
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, number)
        os.close(null)
    else:
        os.dup2(two.fileno(), number)
    assert vitals.lost() == {number: "one"}
    assert vitals.lost() == {}
    two.close()
    if how == "closed":
        one.detach()
    one.close()


def test_what_is_forgotten_may_go() -> None:
    vitals = Vitals()
    with socket.socket() as one:
        vitals.keep({one.fileno(): "one"})
        vitals.forget(one.fileno())
    assert vitals.lost() == {}
