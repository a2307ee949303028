"""Work that is divided into parts: keyed, claimed, and each made once, by any number of processes together."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

POLL: Final = 0.5
"""Seconds between two looks at the parts that other processes are making."""
Claim = Callable[[str], AbstractContextManager[bool]]
"""Holds a named piece of work inside the block; gives False where another process has it (`Run.claim`)."""


class Work(Protocol):
    """Some parts that are made in one place, e.g. on one system with its edits on."""

    def parts(self) -> Sequence[str]:
        """The names of all parts, in order. A name is the claim's too."""
        ...

    def is_done(self, part: str) -> bool:
        """Whether a part is on disk, whole, under its key."""
        ...

    def is_open(self) -> bool:
        """Whether parts can be made now; False while another process makes what all of them need."""
        ...

    def place(self) -> AbstractContextManager[Callable[[str], None]]:
        """A context that gives the function which makes a part. It is entered once for all parts of one turn."""
        ...


def finish(works: Sequence[Work], claim: Claim, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Make every part that is missing, or wait until others have made it; gives whether this process made any.

    A part that was found done, or was made here, is not looked at again.
    """
    made, turns = False, [_Turns(work) for work in works]
    while True:
        taken = [one.take(claim) for one in turns]
        made |= any(taken)
        turns = [one for one in turns if one.missing]
        if not turns:
            return made
        if not any(taken):
            sleep(POLL)  # the rest is being made by others


class _Turns:
    """A process's turns at one work. missing: the parts that it has not seen done."""

    def __init__(self, work: Work) -> None:
        self.work, self.missing = work, list(work.parts())

    def take(self, claim: Claim) -> bool:
        """Make the parts that nobody has claimed; gives whether there was one."""
        make: Callable[[str], None] | None = None
        if not self.work.is_open():
            return False
        left, self.missing = deque(self.missing), []
        with contextlib.ExitStack() as stack:
            while left:
                part = left.popleft()
                if self.work.is_done(part):
                    continue
                with claim(part) as mine:
                    if not mine:
                        self.missing.append(part)
                        # Who has it goes on behind it: further on, fewer parts are looked at in vain.
                        left.rotate(-(len(left) // 2))
                    # Between the look and the claim another process may have finished it.
                    elif not self.work.is_done(part):
                        if make is None:
                            make = stack.enter_context(self.work.place())
                        make(part)
        return make is not None
