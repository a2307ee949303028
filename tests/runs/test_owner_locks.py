"""Locks by owner files: shared and alone, and take-over from the dead that harms nobody slow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from duo_unlearn.runs.locks.heart import Heart
from duo_unlearn.runs.locks.owner_locks import OwnerLocks
from duo_unlearn.runs.locks.process import this_process
from duo_unlearn.runs.locks.watch import DEAD_AFTER, Watch

from .other_machines import Clock, heart_on, leave_dead, locks_on, refused

HOLD_ELSEWHERE = """
import sys
from pathlib import Path
from duo_unlearn.runs.locks.heart import Heart
from duo_unlearn.runs.locks.owner_locks import OwnerLocks
from duo_unlearn.runs.locks.process import this_process
heart = Heart(every=0.05, process=this_process()._replace(machine="elsewhere"))
with OwnerLocks(Path(sys.argv[1]), heart=heart).hold("claims/a") as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def shift_times(root: Path, seconds: float) -> None:
    """Times of files as a machine with another clock writes them."""
    for path in root.rglob("*"):
        os.utime(path, (seconds, seconds))


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
