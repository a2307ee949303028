"""Which process it is, so that another one can tell, on the same machine at once, whether it still lives."""

from __future__ import annotations

import functools
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

PROC: Final = Path("/proc")


class Process(NamedTuple):
    """A process. since: its start, seconds since 1970 by its own clock, for people alone.

    machine: the same where process numbers mean the same; None: not known. start: in ticks after the machine's start,
    which tells it from a later process of that number.
    """

    host: str
    machine: str | None
    pid: int
    start: int | None
    command: str
    since: float

    def is_gone(self) -> bool | None:
        """Whether it has ended; None where that cannot be seen from here, as on another machine."""
        if self.machine is None or self.machine != machine() or self.start is None:
            return None
        try:
            os.kill(self.pid, 0)  # never on Windows, where it would be Ctrl-C: no machine is known there
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:  # another user's, which may be hidden in /proc
            pass
        stat = _stat(self.pid)
        # A zombie has ended: its parent has not asked for its exit code yet.
        return stat is not None and (stat.state in "ZX" or stat.start != self.start)

    @property
    def is_here(self) -> bool:
        """Whether it is of this machine, as people name it."""
        return self.machine == machine() if self.machine is not None else self.host == platform.node()

    def __str__(self) -> str:
        """In words, e.g. "process 71 on node3"; the host is left out on this machine."""
        return f"process {self.pid}" + ("" if self.is_here else f" on {self.host}")


class _Stat(NamedTuple):
    state: str
    start: int


@functools.cache
def machine() -> str | None:
    """A name of what process numbers are of: a start of Linux and a name space in it. None on other systems.

    A host's name does not do: containers may share one, and each counts its processes by itself.
    """
    try:
        started = (PROC / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="utf-8").strip()
        return f"{platform.node()} {started} {(PROC / 'self' / 'ns' / 'pid').readlink()}"
    except OSError:
        return None


def _stat(pid: int) -> _Stat | None:
    try:
        # Of the words after the name in brackets the first is the state, and the 20th the start.
        words = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return _Stat(words[0], int(words[19]))
    except (OSError, ValueError, IndexError):
        return None


def read_process(pid: int) -> Process | None:
    """A process of this machine as Linux tells it; None where it has ended, or is not told."""
    stat = _stat(pid)
    if stat is None or sys.platform == "win32":  # which has no /proc
        return None
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        booted = next(
            line for line in (PROC / "stat").read_text(encoding="utf-8").splitlines() if line.startswith("btime")
        )
        since = float(booted.split()[1]) + stat.start // os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return Process(platform.node(), machine(), pid, stat.start, _command(words), since)


def this_process() -> Process:
    """The process that asks."""
    return read_process(os.getpid()) or Process(
        platform.node(), None, os.getpid(), None, _command(sys.orig_argv), time.time()
    )


def _command(words: list[str]) -> str:
    text = " ".join(" ".join([*(Path(word).name for word in words[:2]), *words[2:]]).split())
    return text.encode(errors="replace").decode()


def process_of(content: Any) -> Process | None:
    """A process from its JSON object; None where it is none."""
    if not isinstance(content, Mapping) or set(content) != set(Process._fields):
        return None
    numbers = isinstance(content["pid"], int) and content["pid"] > 0 and isinstance(content["since"], int | float)
    names = isinstance(content["host"], str) and isinstance(content["command"], str)
    told = isinstance(content["machine"], str | None) and isinstance(content["start"], int | None)
    return Process(**content) if numbers and names and told else None
