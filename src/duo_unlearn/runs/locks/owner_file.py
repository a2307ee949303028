"""An owner file: a lock of a process, as a file that is made by O_CREAT and O_EXCL.

    held
    {"token": …, "process": {"host": …, "pid": …, …}}

The first word says how the lock stands, and is changed in place. The rest stays.
"""

from __future__ import annotations

import contextlib
import json
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from .process import Process, process_of


class State(Enum):
    """How a lock stands. The words have one length, so that one can replace another."""

    ASKED = "asks"
    """Its owner looks whether it may have it."""
    HELD = "held"
    FREE = "free"


class OwnerFile(NamedTuple):
    """What an owner file says. token: of its owner alone; None, as the process: it cannot be read, or not yet."""

    path: Path
    state: State
    token: str | None
    process: Process | None


def create_owner(path: Path, state: State, token: str, process: Process) -> bool:
    """Make an owner file; False where it is there. OSError: it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"token": token, "process": process._asdict()})
    try:
        with path.open("xb", buffering=0) as handle:
            handle.write(f"{state.value}\n{content}\n".encode())
    except FileExistsError:
        return False
    except OSError:  # a full disk
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return True


def names_in(place: Path) -> list[str]:
    """The names of the files of a lock; none where it was never asked for."""
    try:
        return [path.name for path in place.iterdir()]
    except FileNotFoundError:
        return []


def read_owner(path: Path) -> OwnerFile | None:
    """What an owner file says; None where it is gone."""
    try:
        return _parsed(path, path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError:  # as Windows says of a file that is being removed
        return OwnerFile(path, State.ASKED, None, None)


def set_state(path: Path, token: str, state: State) -> bool:
    """Say in an owner file how its lock stands; False where the file is gone, or another's."""
    try:
        with path.open("r+b", buffering=0) as handle:
            if _parsed(path, handle.read()).token != token:
                return False
            # Written to the file that was read, also where its name is given away meanwhile.
            handle.seek(0)
            handle.write(state.value.encode())
    except FileNotFoundError:
        return False
    return True


def _parsed(path: Path, content: bytes) -> OwnerFile:
    word, _, rest = content.decode(errors="replace").partition("\n")
    try:
        state, told = State(word), json.loads(rest)
        token, process = told["token"], process_of(told["process"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return OwnerFile(path, State.ASKED, None, None)
    if not isinstance(token, str) or not token.isalnum() or process is None:
        return OwnerFile(path, State.ASKED, None, None)
    return OwnerFile(path, state, token, process)


class Lock(NamedTuple):
    """A lock that a process says it holds. since: seconds since 1970 by its clock. alone: no other may join it."""

    name: str
    since: float
    alone: bool


class Member(NamedTuple):
    """What a process says of itself in its file among the processes of a folder."""

    process: Process
    locks: list[Lock]


def member_bytes(beats: int, member: Member) -> bytes:
    """The content of a process's file. beats: how often it was written, so that each heartbeat changes it."""
    locks = [lock._asdict() for lock in member.locks]
    return json.dumps({"beats": beats, "process": member.process._asdict(), "locks": locks}, indent=1).encode() + b"\n"


def read_member(path: Path) -> Member | None:
    """What a process says of itself; None where the file is gone or is none."""
    try:
        told: Any = json.loads(path.read_bytes())
        process, locks = process_of(told["process"]), told["locks"]
        typed = all(isinstance(lock["name"], str) and isinstance(lock["since"], int | float) for lock in locks)
        return Member(process, [Lock(**lock) for lock in locks]) if process is not None and typed else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
