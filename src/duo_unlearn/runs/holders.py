"""Which processes hold a run folder now: looked at from outside, without taking a lock, so that nobody is disturbed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from .folder import Run
from .locks.choice import read_choice
from .locks.heart import PROCESSES, own_heart
from .locks.owner_file import read_member
from .locks.process import PROC, read_process
from .locks.watch import Stand, Watch

LIVES: Final = {Stand.LIVES: True, Stand.UNKNOWN: None, Stand.SILENT: False, Stand.DEAD: False}


class Claim(NamedTuple):
    """A piece of work that a process does now. since: seconds since 1970."""

    name: str
    since: float


class Holder(NamedTuple):
    """A process that holds a run. since: its start, seconds since 1970. alone: no other may join it.

    host: where it runs; None: on this machine. lives: False where it is dead or gave no sign of life for a while; None:
    not known by one look, as it runs on another machine.
    """

    pid: int
    command: str
    since: float
    alone: bool
    claims: list[Claim]
    host: str | None = None
    lives: bool | None = True

    def as_json(self) -> dict[str, Any]:
        """For `duo status --json`."""
        return {**self._asdict(), "claims": [claim._asdict() for claim in self.claims]}

    def __str__(self) -> str:
        return f"process {self.pid}" + (f" on {self.host}" if self.host is not None else "")


class _Lock(NamedTuple):
    """A lock that a process has. place: its file within the run, e.g. ".lock"."""

    place: str
    alone: bool


def holders(run: Run, watch: Watch | None = None) -> list[Holder] | None:
    """The processes that hold a run, in order of their start; None where the system does not tell.

    Of locks by flock, Linux tells in /proc those of this machine, and not those of other users. Owner files tell all.
    watch: what was seen of their signs of life before; None: what this process saw.
    """
    choice = read_choice(run.locks)
    if choice is not None and choice.form == "files":
        return sorted(_members(run, watch or own_heart().watch), key=lambda one: one.since)
    if not (PROC / "self" / "fdinfo").is_dir():
        return None
    root = os.path.realpath(run.folder)
    found: list[Holder] = []
    for folder in PROC.iterdir():
        if folder.name.isdecimal() and (locks := list(_locks(folder, root))):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                found += _holder(folder, locks, run)
    return sorted(found, key=lambda one: one.since)


def watch_others(run: Run, sleep: Callable[[float], None] = time.sleep, watch: Watch | None = None) -> None:
    """Look until it is known of each process of another machine whether it lives: 15 seconds at most."""
    while any(holder.lives is None for holder in holders(run, watch) or []):
        sleep(0.5)


def _members(run: Run, watch: Watch) -> Iterator[Holder]:
    """The processes that hold a run by owner files."""
    for path in (run.locks / PROCESSES).glob("[!.]*"):
        if (told := read_member(path)) is None or not told.locks:
            continue
        process, lives = told.process, LIVES[watch.stand(told.process, path)]
        claims = sorted(Claim(Path(one.name).name, one.since) for one in told.locks if one.name.startswith("claims/"))
        alone = any(one.name == "lock" and one.alone for one in told.locks)
        host = None if process.is_here else process.host
        yield Holder(process.pid, process.command, process.since, alone, claims, host, lives)


def _locks(folder: Path, root: str) -> Iterator[_Lock]:
    """The locks that a process holds on files of the run."""
    with contextlib.suppress(OSError):  # another user's, or gone by now
        for handle in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(handle.readlink())
                if target.startswith(f"{root}/."):
                    told = (folder / "fdinfo" / handle.name).read_text(encoding="utf-8").splitlines()
                    if held := [line for line in told if "FLOCK" in line]:
                        yield _Lock(target[len(root) + 1 :], any("WRITE" in line for line in held))


def _holder(folder: Path, locks: list[_Lock], run: Run) -> Iterator[Holder]:
    process = read_process(int(folder.name))
    if process is None:
        return
    claims = sorted(
        Claim(Path(lock.place).name, (run.folder / lock.place).stat().st_mtime)
        for lock in locks
        if lock.place.startswith(".claims/")
    )
    alone = any(lock.alone for lock in locks if lock.place == ".lock")
    yield Holder(process.pid, process.command, process.since, alone, claims)
