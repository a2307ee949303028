"""How long something takes by how fast it went of late."""

from __future__ import annotations

import pytest

from duo_unlearn.progress import Rate, progress


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_there_is_no_time_until_something_was_done(clock: Clock) -> None:
    rate = Rate(now=clock)
    assert rate.seconds(5) is None
    rate.see(40)  # by an earlier run
    clock.time += 30
    rate.see(40)
    assert rate.seconds(5) is None
    rate.see(43)
    assert rate.seconds(5) == 50  # three in thirty seconds


def test_a_rate_is_that_of_the_window(clock: Clock) -> None:
    rate = Rate(window=60, now=clock)
    rate.see(0)
    for done in range(10, 101, 10):  # ten a second
        clock.time += 1
        rate.see(done)
    for done in range(101, 201):  # then one a second
        clock.time += 1
        rate.see(done)
    assert rate.seconds(10) == pytest.approx(10, rel=0.02)


def test_a_pause_makes_the_time_longer_and_one_slow_unit_is_a_rate_too(clock: Clock) -> None:
    rate = Rate(window=60, now=clock)
    rate.see(0)
    clock.time += 600
    rate.see(1)
    assert rate.seconds(2) == 1200
    clock.time += 600
    rate.see(1)
    assert rate.seconds(2) == 2400


def test_a_line_without_a_time_of_its_own_has_the_notes(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("workers", 100, timed=False) as report:
        report(100, "3:20 left")
    assert capsys.readouterr().err.startswith("workers: 100/100 in 0:0")
