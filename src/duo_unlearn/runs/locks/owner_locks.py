"""Locks by owner files, for file systems where flock excludes nobody, and for systems without it.

A lock is a folder, and its owners are files in it:

    00000007            who holds it alone: of the numbers the highest one counts, and those below are over
    shared-9f3c…        who holds it together with others, a file each

**Exactly one holds it alone.** Who wants it makes the file of the next number by O_CREAT and O_EXCL, which one of many
can do. Nobody renames or removes a file of the highest number, not even its owner, who writes "free" into it. So a
number is never used again, and a slow process can destroy nothing of those that came after: what it does to its own
number is over. A number below the highest may be made anew by one that looked long ago; it sees the higher one when it
looks after making it, and withdraws.

**Take-over.** Where the highest number is of a dead process, anyone makes the next one as "free", and all compete for
the one after that. Two who judge at once make the same number, and it is made once.

**Alone against shared.** Both make their file first and then look, so that of two at once at least one sees the other:
in one folder, as making a file has NFS's clients read it again. A shared asker that sees a number withdraws. One that
asks alone and sees shared files waits for askers to decide, and withdraws where one is held. So the shared one that
looked before the number was there has it, else the one alone, and never both or none.

A process that stands still for a minute on another machine may be taken over while it lives, and is told. That costs
time and not results: parts are written whole and replaced at once. At worst run.json lacks an entry, or a line of
metrics.jsonl stands twice.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ...storage.moves import remove
from .heart import Heart, Held, heartbeat_of, own_heart
from .owner_file import OwnerFile, State, create_owner, names_in, read_owner, set_state
from .watch import Stand

PAUSE: Final = 0.02
MOST_PAUSE: Final = 0.5
"""Seconds between two looks at a lock, at first and at most."""


class _Rival(NamedTuple):
    """Another owner, that is not known to be dead."""

    owner: OwnerFile
    stand: Stand

    def is_sure(self) -> bool:
        """Whether the other has the lock, and lives."""
        return self.owner.state is State.HELD and self.stand is Stand.LIVES


class _Seen(NamedTuple):
    """A look at a lock. number: the highest, 0: there is none. alone: who has or asks for that one."""

    number: int
    alone: _Rival | None
    shared: list[_Rival]


class OwnerLocks:
    """Locks of a folder by owner files. heart: of this process; sleep: how it waits."""

    def __init__(self, root: Path, *, heart: Heart | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self.root, self.heart, self.sleep = root, heart or own_heart(), sleep

    @contextlib.contextmanager
    def hold(self, name: str, *, shared: bool = False, wait: bool = False, sure: bool = False) -> Iterator[bool]:
        """Hold a lock inside the block (`Locks.hold`)."""
        held = self._take(name, shared=shared, wait=wait, sure=sure)
        if held is None:
            yield False
            return
        try:
            yield True
        finally:
            self.heart.member(self.root).leave(held)

    def owner(self, name: str) -> str:
        """Who has a lock, in words."""
        rival = _first(self._look(self.root / name), shared=False)
        known = rival.owner.process if rival is not None else None
        return "another process" if known is None else str(known)

    def _take(self, name: str, *, shared: bool, wait: bool, sure: bool) -> Held | None:
        pause, told = PAUSE, False
        while True:
            found = self._try(name, shared=shared, sure=sure)
            if isinstance(found, Held):
                return found
            if found is not None and found.owner.state is State.HELD and not wait:
                if found.is_sure() or not sure:
                    return None
                if not told:
                    self._tell(found)
                told = True
            self.sleep(pause)
            pause = min(2 * pause, MOST_PAUSE)

    def _try(self, name: str, *, shared: bool, sure: bool) -> Held | _Rival | None:
        """Take a lock once. Else who has or asks for it; None: another was quicker."""
        seen = self._look(self.root / name)
        rival = _first(seen, shared=shared)
        if rival is not None and (seen.alone is not None or rival.owner.state is State.HELD):
            return rival
        member = self.heart.member(self.root)
        member.ask()
        try:
            found = self._share(name) if shared else self._own(name, seen.number + 1, sure=sure)
        except BaseException:
            member.leave()
            raise
        if not isinstance(found, Held):
            member.leave()
            return found
        member.tell(found)
        return found

    def _share(self, name: str) -> Held | _Rival | None:
        held = self._file(name, f"shared-{secrets.token_hex(8)}", alone=False)
        if held is None:
            return None
        with _withdraw(held):
            rival = self._look(held.path.parent).alone
            # Where this process stood still, another may have judged that it is dead, and removed the file.
            if rival is None and set_state(held.path, held.token, State.HELD):
                return held
        remove(held.path)
        return rival

    def _own(self, name: str, number: int, *, sure: bool) -> Held | _Rival | None:
        held = self._file(name, f"{number:08}", alone=True)
        if held is None:
            return None
        with _withdraw(held):
            while True:
                seen = self._look(held.path.parent)
                if seen.number > number:
                    remove(held.path)
                    return None
                rival = _first(seen._replace(alone=None), shared=False)
                if rival is None:
                    break
                if rival.owner.state is State.HELD and (rival.is_sure() or not sure):
                    set_state(held.path, held.token, State.FREE)
                    return rival
                self.sleep(PAUSE)
            if not set_state(held.path, held.token, State.HELD):
                return None
        _remove_below(held.path.parent, number)
        return held

    def _tell(self, rival: _Rival) -> None:
        who = rival.owner.process or "another process"
        text = f"looking whether it lives, {self.heart.watch.dead_after:.0f} seconds at most"
        print(f"{self.root.parent} is held by {who}: {text}", file=sys.stderr, flush=True)

    def _file(self, name: str, file: str, *, alone: bool) -> Held | None:
        member = self.heart.member(self.root)
        held = Held(name, self.root / name / file, member.token, alone=alone)
        return held if create_owner(held.path, State.ASKED, held.token, member.process) else None

    def _look(self, place: Path) -> _Seen:
        """Who has or asks for a lock. The dead are put aside: a number by the next one, a shared file is removed."""
        while True:
            names = names_in(place)
            number = max((int(name) for name in names if name.isdecimal()), default=0)
            top = read_owner(place / f"{number:08}") if number else None
            if number and top is None:
                self.sleep(PAUSE)  # it was followed by a higher one meanwhile
                continue
            alone = self._rival(top) if top is not None and top.state is not State.FREE else None
            if alone is not None and alone.stand is Stand.DEAD:
                member = self.heart.member(self.root)
                create_owner(place / f"{number + 1:08}", State.FREE, member.token, member.process)
                continue
            owners = [read_owner(place / name) for name in names if name.startswith("shared-")]
            shared = [self._rival(owner) for owner in owners if owner is not None]
            for rival in shared:
                if rival.stand is Stand.DEAD:
                    remove(rival.owner.path)
            return _Seen(number, alone, [rival for rival in shared if rival.stand is not Stand.DEAD])

    def _rival(self, owner: OwnerFile) -> _Rival:
        return _Rival(owner, self.heart.watch.stand(owner.process, heartbeat_of(self.root, owner)))


def _first(seen: _Seen, *, shared: bool) -> _Rival | None:
    """Whom to yield to: one that has the lock and lives before others, and askers last. Shared ones do not exclude."""
    rivals = [rival for rival in (seen.alone, *([] if shared else seen.shared)) if rival is not None]
    return min(rivals, key=lambda one: (not one.is_sure(), one.owner.state is not State.HELD), default=None)


@contextlib.contextmanager
def _withdraw(held: Held) -> Iterator[None]:
    """Let go of what was asked for when the asking is interrupted."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            held.let_go()
        raise


def _remove_below(place: Path, number: int) -> None:
    """Remove the numbers that are over, from the lowest."""
    for name in sorted(names_in(place)):
        if name.isdecimal() and int(name) < number:
            with contextlib.suppress(OSError):  # another removed it, or Windows, where somebody reads it
                (place / name).unlink()
