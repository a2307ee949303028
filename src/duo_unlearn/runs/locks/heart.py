"""The heartbeat of this process: one thread, for all locks that it holds by owner files."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import Final

from ...storage.moves import remove, replace
from .owner_file import Lock, Member, OwnerFile, State, member_bytes, names_in, read_member, set_state
from .process import Process, this_process
from .watch import BEAT, Stand, Watch

PROCESSES: Final = "processes"
"""The folder of the files in which processes give signs of life."""


class Held:
    """A lock that this process holds, or asks for. Its warning, that another took it over, is told once."""

    def __init__(self, name: str, path: Path, token: str, *, alone: bool) -> None:
        self.name, self.path, self.token, self.alone = name, path, token, alone
        self.since = time.time()
        self.warned = False

    def is_lost(self) -> bool:
        """Whether another process took it over: the file is gone, or of a lock held alone there is a later number."""
        try:
            names = names_in(self.path.parent)
        except OSError:  # not known now
            return False
        later = self.alone and any(name.isdecimal() and int(name) > int(self.path.name) for name in names)
        return later or self.path.name not in names

    def warn(self) -> None:
        """Tell that another process took it over."""
        if not self.warned:
            text = "another process took it over, as this one gave no sign of life: work may be done twice"
            print(f"lock {self.name}: {text}", file=sys.stderr, flush=True)
        self.warned = True

    def let_go(self) -> None:
        """Free the lock, unless another process has it by now. That one's file is never touched."""
        if self.is_lost():
            self.warn()
        elif self.alone:
            # The file stays, so that its number is never used again (owner_locks.py).
            set_state(self.path, self.token, State.FREE)
        else:
            remove(self.path)


class Membership:
    """This process among those of a folder: a file that says what it holds, and changes with each heartbeat.

    It is there while the process holds or asks for something.
    """

    def __init__(self, root: Path, process: Process) -> None:
        self.process, self.token = process, secrets.token_hex(8)
        self.path = root / PROCESSES / self.token
        self._held: list[Held] = []
        self._asks = self._beats = 0
        self._guard = threading.Lock()

    def ask(self) -> None:
        """Begin to ask for a lock: the file is there before it. It ends with `leave`."""
        with self._guard:
            self._asks += 1
            if self._asks == 1:
                self._write()

    def tell(self, held: Held) -> None:
        """Say that a lock is held."""
        with self._guard:
            self._held.append(held)
            with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
                self._write()

    def leave(self, held: Held | None = None) -> None:
        """End an asking; held: and let go of what came of it."""
        with self._guard:
            self._asks -= 1
            if held is not None:
                self._held.remove(held)
            try:
                if held is not None:
                    held.let_go()
            finally:
                with contextlib.suppress(OSError):
                    if self._asks:
                        self._write()
                    else:
                        remove(self.path)

    def beat(self) -> None:
        """Give a sign of life, and look whether another process took something over."""
        with self._guard:
            if not self._asks:
                return
            self._write()
            for held in self._held:
                if held.is_lost():
                    held.warn()

    def _write(self) -> None:
        """Replace the file, so that nobody reads a half of it. It need not reach the disk: a crash ends the process."""
        self._beats += 1
        member = Member(self.process, [Lock(one.name, one.since, one.alone) for one in self._held])
        part = self.path.with_name(f".{self.token}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(member_bytes(self._beats, member))
        replace(part, self.path)


class Heart:
    """The thread that gives signs of life for this process, in every folder where it holds something.

    every: seconds between two; None: no thread, and who made it calls `beat`. watch: what it saw of others.
    """

    def __init__(
        self, every: float | None = BEAT, *, watch: Watch | None = None, process: Process | None = None
    ) -> None:
        self.every, self.watch, self.process = every, watch or Watch(), process or this_process()
        self._members: dict[str, Membership] = {}
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    def member(self, root: Path) -> Membership:
        """This process among those of a folder."""
        with self._guard:
            if self._thread is None and self.every is not None:
                self._thread = threading.Thread(target=self._run, args=(self.every,), name="heartbeat", daemon=True)
                self._thread.start()
            key = os.path.realpath(root)
            if key not in self._members:
                self._members[key] = Membership(root, self.process)
            return self._members[key]

    def beat(self) -> None:
        """Give a sign of life in each folder, and remove the files of processes that are dead."""
        with self._guard:
            members = dict(self._members)
        for root, member in members.items():
            with contextlib.suppress(OSError):  # the next beat may get through
                member.beat()
                self._bury(Path(root))

    def _bury(self, root: Path) -> None:
        for path in (root / PROCESSES).glob("[!.]*"):
            told = read_member(path)
            if told is not None and self.watch.stand(told.process, path) is Stand.DEAD:
                path.unlink(missing_ok=True)

    def _run(self, every: float) -> None:
        while True:
            time.sleep(every)
            self.beat()


_hearts: dict[int, Heart] = {}


def own_heart() -> Heart:
    """The one of this process; a forked one has its own."""
    if os.getpid() not in _hearts:
        _hearts[os.getpid()] = Heart()
    return _hearts[os.getpid()]


def heartbeat_of(root: Path, owner: OwnerFile) -> Path:
    """The file that changes while an owner lives; its own where it was not written whole."""
    return owner.path if owner.token is None else root / PROCESSES / owner.token
