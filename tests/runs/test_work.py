"""Work in parts: each is made once, in one place, whoever else is at it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.locks.choice import VARIABLE, Form
from duo_unlearn.runs.work import finish

CLAIM = """
import sys
from pathlib import Path
from duo_unlearn.runs.folder import Run
run = Run(Path(sys.argv[1]))
with run.lock(shared=True), run.claim("b"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True, params=get_args(Form))
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it holds with either form of locks."""
    monkeypatch.setenv(VARIABLE, request.param)


class Letters:
    """Parts that are files; each entry of the place is counted, and each look at a part, by what was seen.

    closed: looks at the work until it is open.
    """

    def __init__(self, folder: Path, names: str, closed: int = 0) -> None:
        self.folder, self.names, self.entered, self.closed = folder, list(names), 0, closed
        self.seen, self.missed, self.order = Counter[str](), Counter[str](), list[str]()
        folder.mkdir(parents=True, exist_ok=True)

    def parts(self) -> list[str]:
        return self.names

    def is_done(self, part: str) -> bool:
        there = (self.folder / part).exists()
        (self.seen if there else self.missed)[part] += 1
        return there

    def is_open(self) -> bool:
        self.closed -= 1
        return self.closed < 0

    def cost(self, _part: str) -> float:
        return 1.0

    @contextlib.contextmanager
    def place(self) -> Iterator[Callable[[str], None]]:
        self.entered += 1

        def make(part: str) -> None:
            self.order.append(part)
            (self.folder / part).write_text(str(self.entered))

        yield make


def test_every_part_is_made_once_and_the_place_is_entered_once(run: Run) -> None:
    first, second = Letters(run.folder / "a", "abc"), Letters(run.folder / "b", "de")
    (first.folder / "b").write_text("there already")
    assert finish([first, second], run.claim)
    assert (first.entered, second.entered) == (1, 1)
    assert (first.folder / "b").read_text() == "there already"
    assert not finish([first, second], run.claim)
    assert (first.entered, second.entered) == (1, 1)


def test_a_part_that_another_has_claimed_is_waited_for(run: Run) -> None:
    work, waited = Letters(run.folder / "a", "abc"), []
    held, free = threading.Event(), threading.Event()

    def other() -> None:
        with run.claim("b") as mine:
            assert mine
            held.set()
            free.wait(10)
            (work.folder / "b").write_text("by the other")

    def sleep(_seconds: float) -> None:
        waited.append(True)
        free.set()

    thread = threading.Thread(target=other)
    thread.start()
    held.wait(10)
    finish([work], run.claim, sleep=sleep)
    thread.join()
    assert waited
    assert (work.folder / "b").read_text() == "by the other"
    assert (work.folder / "a").read_text() == (work.folder / "c").read_text() == "1"


def test_what_a_killed_process_had_claimed_is_made_by_another(run: Run) -> None:
    work, waited = Letters(run.folder / "a", "abc"), []
    command = [sys.executable, "-c", CLAIM, str(run.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"

        def sleep(_seconds: float) -> None:
            waited.append(work.is_done("b"))
            other.kill()
            other.wait()

        with run.lock(shared=True):
            assert finish([work], run.claim, sleep=sleep)
    assert waited == [False]
    assert work.is_done("b")
    with run.lock():
        pass


def test_a_part_that_is_done_is_read_once_and_a_poll_looks_at_what_is_missing_alone(run: Run) -> None:
    work, polls = Letters(run.folder / "a", "abcdef"), list[int]()
    for part in "abc":
        (work.folder / part).touch()

    def sleep(_seconds: float) -> None:
        polls.append(1)
        if len(polls) == 20:
            (work.folder / "e").touch()
            held.close()

    with contextlib.ExitStack() as held:
        assert held.enter_context(run.claim("e"))
        finish([work], run.claim, sleep=sleep)
    assert work.seen == dict.fromkeys("abce", 1)
    # Of its own two it looks once before the claim and once behind it; of the other's at first, and once a poll.
    assert work.missed == {"d": 2, "f": 2, "e": 1 + 20}


def test_processes_spread_over_the_parts(run: Run) -> None:
    work = Letters(run.folder / "a", "abcdefgh")
    with contextlib.ExitStack() as held:
        assert held.enter_context(run.claim("a"))
        finish([work], run.claim, sleep=lambda _seconds: held.close())
    assert work.order[0] == "e"
    assert sorted(work.order) == work.names
    assert work.order[-1] == "a"


def test_a_work_whose_need_another_makes_is_left_for_later(run: Run) -> None:
    first, second = Letters(run.folder / "a", "a", closed=2), Letters(run.folder / "b", "b")
    slept: list[float] = []
    assert finish([first, second], run.claim, sleep=slept.append)
    assert (first.order, second.order) == (["a"], ["b"])
    assert len(slept) == 1  # first other parts, then a wait, then this one
