"""Processes of other machines, and time as a test tells it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from duo_unlearn.runs.locks.heart import Heart
from duo_unlearn.runs.locks.owner_locks import OwnerLocks
from duo_unlearn.runs.locks.process import Process
from duo_unlearn.runs.locks.watch import Watch


class Clock:
    """Seconds that pass when somebody sleeps. beating: those that give a sign of life meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.beating: list[Heart] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for heart in self.beating:
            heart.beat()


def heart_on(host: str, clock: Clock) -> Heart:
    """The heart of a process on another machine; who made it says when it beats."""
    process = Process(host, f"{host} started", 71, 5, "duo attack runs/sword", since=0.0)
    return Heart(every=None, watch=Watch(clock), process=process)


def locks_on(host: str, root: Path, clock: Clock) -> OwnerLocks:
    """The locks of a folder as a process on another machine has them."""
    return OwnerLocks(root, heart=heart_on(host, clock), sleep=clock.sleep)


def leave_dead(locks: OwnerLocks, name: str, *, shared: bool = False) -> contextlib.ExitStack:
    """Hold a lock that nobody lets go of, unless the stack is closed."""
    stack = contextlib.ExitStack()
    assert stack.enter_context(locks.hold(name, shared=shared))
    return stack


def refused(locks: OwnerLocks, name: str = "a", *, shared: bool = False) -> bool:
    with locks.hold(name, shared=shared) as mine:
        return not mine
