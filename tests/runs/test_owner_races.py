"""Locks by owner files: one owner, whoever comes at once and whatever happens between a look and a file."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from duo_unlearn.runs.locks.heart import Held
from duo_unlearn.runs.locks.owner_file import State, create_owner
from duo_unlearn.runs.locks.owner_locks import OwnerLocks
from duo_unlearn.runs.locks.watch import DEAD_AFTER

from .other_machines import Clock, heart_on, leave_dead, locks_on, refused


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns as often as they can, so that a race shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Late(OwnerLocks):
    """One that looks at a lock, and before it makes its file something happens."""

    happens: Callable[[], object]

    def _file(self, name: str, file: str, *, alone: bool) -> Held | None:
        self.happens()
        return super()._file(name, file, alone=alone)


def late(root: Path, happens: Callable[[], object]) -> Late:
    locks = Late(root, heart=heart_on("late", Clock()), sleep=Clock().sleep)
    locks.happens = happens
    return locks


def at_once(count: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


@pytest.mark.usefixtures("often")
def test_one_has_it_alone_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        locks = locks_on(f"node{number}", tmp_path, Clock())
        for _ in range(8):
            with locks.hold("a", wait=True) as mine:
                assert mine
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    at_once(6, work)
    assert most == [1] * 48


@pytest.mark.usefixtures("often")
def test_of_many_that_take_over_at_once_one_has_it(tmp_path: Path) -> None:
    for turn in range(15):
        root, clock = tmp_path / str(turn), Clock()
        taken: list[bool] = []
        dead = leave_dead(locks_on("dead", root, Clock()), "a")
        takers = [locks_on(f"node{i}", root, clock) for i in range(6)]
        while clock.now < DEAD_AFTER:
            assert all(refused(taker) for taker in takers)
            clock.sleep(5)
        answered = threading.Barrier(len(takers))

        def take(
            number: int,
            takers: list[OwnerLocks] = takers,
            taken: list[bool] = taken,
            answered: threading.Barrier = answered,
        ) -> None:
            with takers[number].hold("a") as mine:
                taken.append(mine)
                answered.wait(60)

        at_once(len(takers), take)
        assert sorted(taken) == [False] * 5 + [True]
        dead.close()


@pytest.mark.usefixtures("often")
def test_of_one_alone_and_one_shared_at_once_one_has_it(tmp_path: Path) -> None:
    both = [locks_on("a", tmp_path, Clock()), locks_on("b", tmp_path, Clock())]
    for _ in range(40):
        taken: list[bool] = []
        started, answered = threading.Barrier(2), threading.Barrier(2)

        def take(
            number: int,
            taken: list[bool] = taken,
            started: threading.Barrier = started,
            answered: threading.Barrier = answered,
        ) -> None:
            started.wait(60)
            with both[number].hold("a", shared=number == 1) as mine:
                taken.append(mine)
                answered.wait(60)

        at_once(2, take)
        assert sorted(taken) == [False, True]


def test_one_that_took_it_between_another_ones_look_and_its_file_keeps_it(tmp_path: Path) -> None:
    first, quick = locks_on("first", tmp_path, Clock()), locks_on("quick", tmp_path, Clock())
    assert not refused(first)
    with contextlib.ExitStack() as stack:
        assert refused(late(tmp_path, lambda: stack.enter_context(quick.hold("a"))))
        assert refused(first)
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["00000002"]


def test_a_number_that_is_over_is_no_lock_when_it_is_made_again(tmp_path: Path) -> None:
    quick = locks_on("quick", tmp_path, Clock())
    with contextlib.ExitStack() as stack:

        def take_often() -> None:
            if not (tmp_path / "a").exists():
                assert not refused(quick)
                assert stack.enter_context(quick.hold("a"))

        assert refused(late(tmp_path, take_often))
        assert refused(locks_on("third", tmp_path, Clock()))
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["00000002"]


def test_one_alone_lets_a_shared_asker_decide(tmp_path: Path) -> None:
    asker = heart_on("asker", Clock())
    path = tmp_path / "a" / "shared-1"
    assert create_owner(path, State.ASKED, asker.member(tmp_path).token, asker.process)
    alone = OwnerLocks(tmp_path, heart=heart_on("alone", Clock()), sleep=lambda _: path.unlink())
    with alone.hold("a") as mine:
        assert mine
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["00000001"]
