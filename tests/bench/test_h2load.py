from __future__ import annotations

from h2load import answers


def test_answers_come_from_the_log() -> None:
    log = "".join(f"1795657030009{n:03}\t200\t{n * 1000}\n" for n in range(1, 101))
    got = answers(log, 2)
    assert (got.requests, got.failed, got.seconds) == (100, 0, 2)
    assert 50 <= got.p50_ms <= 51
    assert 99 <= got.p99_ms <= 100


def test_what_is_no_success_has_failed() -> None:
    got = answers("1\t200\t10\n2\t-1\t10\n3\t503\t10\n4\t302\t10\n", 1)
    assert (got.requests, got.failed) == (4, 2)


def test_nothing_at_all_is_no_error() -> None:
    assert answers("", 1) == (0, 0, 1, 0.0, 0.0)
    assert answers("1\t200\t2000\n", 1) == (1, 0, 1, 2.0, 2.0)
