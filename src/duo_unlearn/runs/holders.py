"""Which processes hold a run folder now: looked at from outside, without taking a lock, so that nobody is disturbed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from .folder import Run

PROC: Final = Path("/proc")


class Claim(NamedTuple):
    """A piece of work that a process does now. since: seconds since 1970."""

    name: str
    since: float


class Holder(NamedTuple):
    """A process that holds a run. since: its start, seconds since 1970. alone: no other may join it."""

    pid: int
    command: str
    since: float
    alone: bool
    claims: list[Claim]

    def as_json(self) -> dict[str, Any]:
        """For `duo status --json`."""
        return {**self._asdict(), "claims": [claim._asdict() for claim in self.claims]}


class _Lock(NamedTuple):
    """A lock that a process has. place: its file within the run, e.g. ".lock"."""

    place: str
    alone: bool


def holders(run: Run) -> list[Holder] | None:
    """The processes of this machine that hold a run, in order of their start; None where the system does not tell.

    Linux tells it in /proc. Of processes of other users, and of other machines, nothing is known.
    """
    if not (PROC / "self" / "fdinfo").is_dir():
        return None
    root, found = os.path.realpath(run.folder), []
    for folder in PROC.iterdir():
        if folder.name.isdecimal() and (locks := list(_locks(folder, root))):
            with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):  # it has ended meanwhile
                found.append(_holder(folder, locks, run))
    return sorted(found, key=lambda one: one.since)


def _locks(folder: Path, root: str) -> Iterator[_Lock]:
    """The locks that a process holds on files of the run."""
    with contextlib.suppress(OSError):  # another user's, or gone by now
        for handle in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(handle.readlink())
                if target.startswith(f"{root}/."):
                    told = (folder / "fdinfo" / handle.name).read_text().splitlines()
                    if held := [line for line in told if "FLOCK" in line]:
                        yield _Lock(target[len(root) + 1 :], any("WRITE" in line for line in held))


def _holder(folder: Path, locks: list[_Lock], run: Run) -> Holder:
    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    command = " ".join(" ".join([*(Path(word).name for word in words[:2]), *words[2:]]).split())
    # The words after the name in brackets; the 20th of them is the start in ticks after the machine's.
    ticks = float((folder / "stat").read_text().rpartition(")")[2].split()[19])
    booted = next(line for line in (PROC / "stat").read_text().splitlines() if line.startswith("btime"))
    since = float(booted.split()[1]) + ticks // os.sysconf("SC_CLK_TCK")
    claims = sorted(
        Claim(Path(lock.place).name, (run.folder / lock.place).stat().st_mtime)
        for lock in locks
        if lock.place.startswith(".claims/")
    )
    alone = any(lock.alone for lock in locks if lock.place == ".lock")
    return Holder(int(folder.name), command, since, alone, claims)
