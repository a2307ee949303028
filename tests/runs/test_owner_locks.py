"""Locks by owner files: one owner whatever happens at once, and take-over from the dead that harms nobody slow."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from duo_unlearn.runs.locks.heart import Heart, Held
from duo_unlearn.runs.locks.owner_file import State, create_owner
from duo_unlearn.runs.locks.owner_locks import OwnerLocks
from duo_unlearn.runs.locks.process import this_process
from duo_unlearn.runs.locks.watch import DEAD_AFTER, Watch

from .other_machines import Clock, heart_on, locks_on

HOLD_ELSEWHERE = """
import sys
from pathlib import Path
from duo_unlearn.runs.locks.heart import Heart, Held
from duo_unlearn.runs.locks.owner_file import State, create_owner
from duo_unlearn.runs.locks.owner_locks import OwnerLocks
from duo_unlearn.runs.locks.process import this_process
heart = Heart(every=0.05, process=this_process()._replace(machine="elsewhere"))
with OwnerLocks(Path(sys.argv[1]), heart=heart).hold("claims/a") as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns as often as they can, so that a race shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def leave_dead(locks: OwnerLocks, name: str, *, shared: bool = False) -> contextlib.ExitStack:
    """Hold a lock that nobody lets go of, unless the stack is closed."""
    stack = contextlib.ExitStack()
    assert stack.enter_context(locks.hold(name, shared=shared))
    return stack


def refused(locks: OwnerLocks, name: str = "a", *, shared: bool = False) -> bool:
    with locks.hold(name, shared=shared) as mine:
        return not mine


def at_once(count: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def shift_times(root: Path, seconds: float) -> None:
    """Times of files as a machine with another clock writes them."""
    for path in root.rglob("*"):
        os.utime(path, (seconds, seconds))


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


class Late(OwnerLocks):
    """One that looks at a lock, and before it makes its file something happens."""

    happens: Callable[[], object]

    def _made(self, name: str, file: str, *, alone: bool) -> Held | None:
        self.happens()
        return super()._made(name, file, alone=alone)


def late(root: Path, happens: Callable[[], object]) -> Late:
    locks = Late(root, heart=heart_on("late", Clock()), sleep=Clock().sleep)
    locks.happens = happens
    return locks


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


def test_shared_holders_keep_out_one_alone_and_not_one_another(tmp_path: Path) -> None:
    clock = Clock()
    first, second, third = (locks_on(host, tmp_path, clock) for host in "abc")
    with first.hold("a", shared=True) as one, second.hold("a", shared=True) as two:
        assert one
        assert two
        assert refused(third)
    with third.hold("a") as alone:
        assert alone
        assert refused(first, shared=True)
        assert refused(second)
        assert first.owner("a") == "process 71 on c"
    assert not refused(first, shared=True)


def test_who_gives_signs_of_life_keeps_it_whatever_the_clocks_say(tmp_path: Path) -> None:
    clock, holder = Clock(), heart_on("slow", Clock())
    taker = locks_on("taker", tmp_path, clock)
    with OwnerLocks(tmp_path, heart=holder).hold("a"):
        for day in range(400):
            shift_times(tmp_path, day * 86400.0 * (-1) ** day)
            clock.sleep(20)
            if day % 2:
                holder.beat()
            assert refused(taker)


def test_a_slow_holder_is_told_and_takes_nothing_from_the_one_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, heart = Clock(), heart_on("slow", Clock())
    slow = leave_dead(OwnerLocks(tmp_path, heart=heart), "claims/a")
    taker, third = locks_on("taker", tmp_path, clock), locks_on("third", tmp_path, clock)
    with taker.hold("claims/a", sure=True) as mine:
        assert mine
        assert clock.now >= DEAD_AFTER
        assert "is held by process 71 on slow: looking whether it lives" in capsys.readouterr().err
        for _ in range(2):
            heart.beat()
        assert capsys.readouterr().err.count("lock claims/a: another process took it over") == 1
        slow.close()
        taker.heart.beat()
        assert refused(third, "claims/a")
    assert capsys.readouterr().err == ""
    assert not refused(third, "claims/a")


def test_a_slow_shared_holder_is_told_when_it_lets_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    slow = leave_dead(locks_on("slow", tmp_path, Clock()), "lock", shared=True)
    taker = locks_on("taker", tmp_path, clock)
    with taker.hold("lock", sure=True) as mine:
        assert mine
        capsys.readouterr()
        slow.close()
        assert "lock lock: another process took it over" in capsys.readouterr().err
        assert refused(locks_on("third", tmp_path, clock), "lock", shared=True)


def test_one_alone_that_was_taken_for_dead_by_a_shared_one_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heart = heart_on("slow", Clock())
    slow = leave_dead(OwnerLocks(tmp_path, heart=heart), "lock")
    with locks_on("taker", tmp_path, Clock()).hold("lock", shared=True, sure=True) as mine:
        assert mine
        capsys.readouterr()
        heart.beat()
        assert "another process took it over" in capsys.readouterr().err
        slow.close()
        assert refused(locks_on("third", tmp_path, Clock()), "lock")


def test_a_refusal_that_is_sure_waits_for_a_sign_of_life(tmp_path: Path) -> None:
    clock, holder = Clock(), heart_on("holder", Clock())
    with OwnerLocks(tmp_path, heart=holder).hold("lock"):
        clock.beating.append(holder)
        with locks_on("asker", tmp_path, clock).hold("lock", sure=True) as mine:
            assert not mine
    assert 0 < clock.now < DEAD_AFTER


def test_a_long_time_between_two_looks_is_no_silence(tmp_path: Path) -> None:
    clock = Clock()
    dead, taker = leave_dead(locks_on("dead", tmp_path, Clock()), "a"), locks_on("taker", tmp_path, clock)
    looks = 0
    while refused(taker):
        clock.sleep(3600)  # this process, or the file system for all, stood still
        looks += 1
    assert looks == 4
    dead.close()


def test_a_process_that_died_while_it_made_its_file_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "00000003").touch()
    clock = Clock()
    with locks_on("taker", tmp_path, clock).hold("a") as mine:
        assert mine
    assert clock.now >= DEAD_AFTER
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["00000005"]


def test_files_of_the_dead_go_and_a_lock_keeps_one(tmp_path: Path) -> None:
    clock = Clock()
    dead = leave_dead(locks_on("dead", tmp_path, Clock()), "b")
    locks = locks_on("node", tmp_path, clock)
    for _ in range(3):
        assert not refused(locks)
    assert len(list((tmp_path / "a").iterdir())) == 1
    with locks.hold("a"):
        assert len(list((tmp_path / "processes").iterdir())) == 2
        while clock.now <= DEAD_AFTER:
            locks.heart.beat()
            clock.sleep(5)
        assert len(list((tmp_path / "processes").iterdir())) == 1
    assert not list((tmp_path / "processes").iterdir())
    dead.close()


def test_an_interrupted_asker_leaves_the_lock_free(tmp_path: Path) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    shared = leave_dead(locks_on("shared", tmp_path, Clock()), "a", shared=True)
    alone = OwnerLocks(tmp_path, heart=heart_on("alone", Clock()), sleep=interrupted)
    with pytest.raises(KeyboardInterrupt), alone.hold("a", wait=True):
        pass
    shared.close()
    assert not refused(locks_on("third", tmp_path, Clock()))
    assert not list((tmp_path / "processes").iterdir())


def test_a_holder_that_is_killed_is_taken_over_by_its_silence(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_ELSEWHERE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with OwnerLocks(tmp_path).hold("claims/a", sure=True) as mine:
            assert not mine  # it gives signs of life
        holder.kill()
    short = Heart(watch=Watch(dead_after=0.4), process=this_process())
    with OwnerLocks(tmp_path, heart=short).hold("claims/a", wait=True) as mine:
        assert mine
