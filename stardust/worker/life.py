"""The life of a connection: the stages it goes through, and every step from one to another.

LIFE is the whole of it. `by` is the function that takes the step, and nothing else does:
tests/worker/test_life.py holds the table to the code, and each step that the tests ever see to the table.
Within READING a connection moves from queue to queue (book.py): that is a matter of patience, and no step.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from typing import NamedTuple

GREETING, READING, SERVING, SENDING, LINGERING, CLOSED, NEW = range(7)
"""What a connection is about: what comes before HTTP is not over; a head or a body is to come, or the
application cannot have it yet; the application has it; a response is to be sent to a slow reader; the
response that ends it was sent, and what the client still sends is ignored; it is gone; it is being made."""

STAGES = ("greeting", "reading", "serving", "sending", "lingering", "closed", "new")


class Step(NamedTuple):
    """From `stage` to `next`, when `event` happens. `by`: where, as a class and its method."""

    stage: int
    event: str
    next: int
    by: str


LIFE = (
    Step(NEW, "a listener where something comes before HTTP", GREETING, "Connection.__init__"),
    Step(NEW, "any other listener, or a sibling gives it", READING, "Connection.__init__"),
    Step(GREETING, "what comes before HTTP is over", READING, "Entrance.greeted"),
    Step(GREETING, "that fails or takes too long; room is needed", CLOSED, "Book.drop"),
    Step(READING, "its request is whole, and has its turn", SERVING, "Serving.begin"),
    Step(READING, "a refusal that its socket does not take at once", SENDING, "Serving.await_reader"),
    Step(READING, "a refusal was sent", LINGERING, "Endings.linger"),
    Step(READING, "its end or silence; it is given away; room is needed", CLOSED, "Book.drop"),
    Step(SERVING, "the response was sent, and is not the last", READING, "Connection.reset"),
    Step(SERVING, "the socket does not take all of the response", SENDING, "Serving.await_reader"),
    Step(SERVING, "the last response was sent, and more has come", LINGERING, "Endings.linger"),
    Step(SERVING, "the last response was sent, or cannot be", CLOSED, "Book.drop"),
    Step(SENDING, "it has read the response, which is not the last", READING, "Connection.reset"),
    Step(SENDING, "it has read the last response, and sent more", LINGERING, "Endings.linger"),
    Step(SENDING, "it has read the last response, has gone, or is too slow", CLOSED, "Book.drop"),
    Step(LINGERING, "its end, or enough time for it to read", CLOSED, "Book.drop"),
)
