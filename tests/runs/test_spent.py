"""The time of a piece of work is that of all the processes that worked on it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from duo_unlearn.runs.spent import stopwatch


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def stopped(path: Path, kept: Path, clock: Clock, seconds: float) -> None:
    def work() -> None:
        with stopwatch(path, kept, clock):
            clock.now += seconds
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()


def test_what_was_stopped_counts(tmp_path: Path) -> None:
    path, kept, clock = tmp_path / "train" / "seconds.json", tmp_path / "state", Clock(1000)
    stopped(path, kept, clock, 30)
    clock.now += 500  # nobody is at work
    stopped(path, kept, clock, 7)
    with stopwatch(path, kept, clock) as seconds:
        clock.now += 5
        assert seconds() == 42
    assert not path.exists()
    with stopwatch(path, kept, clock) as seconds:
        assert seconds() == 0


def test_what_died_without_a_word_counts_until_its_last_state(tmp_path: Path) -> None:
    path, kept, clock = tmp_path / "seconds.json", tmp_path / "state", Clock(5000)
    path.write_text(json.dumps({"seconds": 3, "began": 2000}))
    with stopwatch(path, kept, clock) as seconds:
        assert seconds() == 3  # it left no state: all is made again
    for written, counted in ((2040, 43), (1990, 3)):  # a state of an earlier training counts for nothing
        path.write_text(json.dumps({"seconds": 3, "began": 2000}))
        kept.write_text("state")
        os.utime(kept, (written, written))
        with stopwatch(path, kept, clock) as seconds:
            assert seconds() == counted


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": "x"}', '{"began": [1]}'])
def test_a_broken_file_counts_for_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "seconds.json").write_text(content)
    with stopwatch(tmp_path / "seconds.json", tmp_path / "state", Clock(10)) as seconds:
        assert seconds() == 0


def test_what_is_never_taken_up_again_leaves_no_file(tmp_path: Path) -> None:
    clock = Clock(0)
    with stopwatch(None, tmp_path / "state", clock) as seconds:
        clock.now = 2
        assert seconds() == 2
    assert not list(tmp_path.iterdir())
