"""Work by a hand-out: every part once, what fails elsewhere, a full disk, and a process that knows of claims alone."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchmarks.schedule import Desk

from duo_unlearn.errors import DuoError
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.hand_out import HandOut
from duo_unlearn.runs.handed import Handed, Remaining, is_full
from duo_unlearn.runs.work import absent_parts, finish, parts_from
from duo_unlearn.storage.files import atomic

Fault = Callable[[str], None]


class Letters:
    """Parts that are files, made by a named worker; fault: called before one is made.

    closed: looks at the work until it is open.
    """

    def __init__(
        self, folder: Path, names: str, worker: str = "", fault: Fault = lambda _part: None, *, closed: int = 0
    ) -> None:
        self.folder, self.names, self.worker, self.fault = folder, list(names), worker, fault
        self.looks = self.entered = 0
        self.closed = closed
        folder.mkdir(parents=True, exist_ok=True)

    def parts(self) -> list[str]:
        return self.names

    def is_done(self, part: str) -> bool:
        self.looks += 1
        return (self.folder / part).exists()

    def is_open(self) -> bool:
        self.closed -= 1
        return self.closed < 0

    def cost(self, part: str) -> float:
        return float(ord(part))

    @contextlib.contextmanager
    def place(self) -> Iterator[Callable[[str], None]]:
        self.entered += 1

        def make(part: str) -> None:
            self.fault(part)
            with (self.folder / part).open("x") as file:  # a second one would fail
                file.write(self.worker)

        yield make


def handed(name: str, hand_out: HandOut) -> Handed:
    return Handed(Desk(name, hand_out), sleep=lambda _seconds: time.sleep(0.002))


def refuse(*parts: str) -> Fault:
    def fault(part: str) -> None:
        if part in parts:
            raise DuoError("it cannot be made", got=part)

    return fault


def test_parts_are_made_once_and_looked_for_once(run: Run) -> None:
    hand_out, works = HandOut(), [Letters(run.folder / "a", "abc", worker) for worker in "12"]
    made = [handed(w.worker, hand_out).finish([w], run.claim, "run") for w in works]
    assert made == [True, False]
    assert [work.looks for work in works] == [3, 0]
    assert [work.entered for work in works] == [1, 0]


def test_workers_share_and_end_together(run: Run) -> None:
    hand_out, names, meet = HandOut(), "abcdefgh", threading.Barrier(2)
    first = {"h", "g"}

    def fault(part: str) -> None:
        if part in first:
            meet.wait(20)  # both are at work at once

    works = [Letters(run.folder / "a", names, worker, fault) for worker in "12"]
    threads = [threading.Thread(target=handed(w.worker, hand_out).finish, args=([w], run.claim, "run")) for w in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {(run.folder / "a" / name).read_text() for name in names} == {"1", "2"}


def test_finish_has_its_parts_from_the_source_inside_the_block(run: Run) -> None:
    hand_out = HandOut()
    with parts_from(handed("1", hand_out)):
        assert finish([Letters(run.folder / "a", "ab")], run.claim, run="run")
        assert absent_parts() == {}
    assert hand_out.progress().done == 2
    assert not finish([Letters(run.folder / "a", "ab")], run.claim, run="run")


def test_the_same_parts_reached_twice_are_looked_for_twice(run: Run) -> None:
    hand_out, work = HandOut(), Letters(run.folder / "a", "ab")
    worker = handed("1", hand_out)
    worker.finish([work], run.claim, "run")
    (run.folder / "a" / "b").unlink()
    assert worker.finish([work], run.claim, "run")
    assert (run.folder / "a" / "b").exists()


def test_what_fails_twice_is_absent_and_the_rest_is_made(run: Run) -> None:
    hand_out = HandOut()
    work = Letters(run.folder / "a", "abc", fault=refuse("b"))
    worker = handed("1", hand_out)
    assert worker.finish([work], run.claim, "run")
    reason = worker.absent()["run", "b"]
    assert reason.startswith("it cannot be made: b (on ")
    assert sorted(path.name for path in work.folder.iterdir()) == ["a", "c"]


def test_the_process_that_started_them_leaves_the_absent_and_makes_what_broke(run: Run) -> None:
    work = Letters(run.folder / "a", "abc")
    (work.folder / "a").touch()
    rest = Remaining({("run", "b"): "it cannot be made", ("other", "c"): "of another run"})
    with parts_from(rest):
        assert finish([work], run.claim, run="run")
        assert absent_parts()["run", "b"] == "it cannot be made"
    assert sorted(path.name for path in work.folder.iterdir()) == ["a", "c"]


def test_after_an_unforeseen_error_the_process_ends_and_another_makes_the_part(run: Run) -> None:
    def fault(_part: str) -> None:
        raise ValueError("a device is lost")

    hand_out = HandOut()
    with pytest.raises(ValueError, match="a device is lost"):
        handed("1", hand_out).finish([Letters(run.folder / "a", "ab", "1", fault)], run.claim, "run")
    assert hand_out.died("1", "it ended")
    handed("2", hand_out).finish([Letters(run.folder / "a", "ab", "2")], run.claim, "run")
    assert hand_out.absent() == {}
    assert (run.folder / "a" / "b").read_text() == "2"


def test_a_worker_whose_disk_is_full_ends_and_another_makes_its_part(run: Run) -> None:
    def fault(part: str) -> None:
        with atomic(run.folder / part):
            raise OSError(errno.ENOSPC, "No space left on device")

    hand_out = HandOut()
    with pytest.raises(DuoError, match="the disk is full") as raised:
        handed("1", hand_out).finish([Letters(run.folder / "a", "ab", "1", fault)], run.claim, "run")
    assert is_full(raised.value)
    hand_out.gone("1", "it ended")
    handed("2", hand_out).finish([Letters(run.folder / "a", "ab", "2")], run.claim, "run")
    assert (run.folder / "a" / "a").read_text() == (run.folder / "a" / "b").read_text() == "2"


def test_after_a_failure_the_place_is_entered_anew(run: Run) -> None:
    work = Letters(run.folder / "a", "abc", fault=refuse("b"))
    handed("1", HandOut()).finish([work], run.claim, "run")
    assert work.entered == 3  # c; b, which fails twice; a


def test_a_process_that_was_started_by_hand_may_have_a_part(run: Run) -> None:
    hand_out, work = HandOut(), Letters(run.folder / "a", "ab", "1")
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(run.claim("b"))
        waits = []

        def sleep(_seconds: float) -> None:
            waits.append(True)
            if len(waits) == 2:  # the other has made it
                (work.folder / "b").write_text("by hand")
                stack.close()

        Handed(Desk("1", hand_out), sleep=sleep).finish([work], run.claim, "run")
    assert (work.folder / "b").read_text() == "by hand"
    assert (work.folder / "a").read_text() == "1"


def test_parts_whose_need_another_makes_are_left_for_later(run: Run) -> None:
    made: list[str] = []
    first = Letters(run.folder / "a", "z", fault=made.append, closed=1)  # the longest, so it is given first
    second = Letters(run.folder / "b", "b", fault=made.append)
    handed("1", HandOut()).finish([first, second], run.claim, "run")
    assert made == ["b", "z"]
