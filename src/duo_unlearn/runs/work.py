"""Work that is divided into parts: keyed, claimed, and each made once, by any number of processes together."""

from __future__ import annotations

import contextlib
import time
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

    def place(self) -> AbstractContextManager[Callable[[str], None]]:
        """A context that gives the function which makes a part. It is entered once for all parts of one turn."""
        ...


def finish(works: Sequence[Work], claim: Claim, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Make every part that is missing, or wait until others have made it; gives whether this process made any."""
    made = False
    while todo := [work for work in works if any(not work.is_done(part) for part in work.parts())]:
        turns = [_turn(work, claim) for work in todo]
        made |= any(turns)
        if not any(turns):
            sleep(POLL)  # the rest is being made by others
    return made


def _turn(work: Work, claim: Claim) -> bool:
    """Make the parts of one work that nobody has claimed; gives whether there was one."""
    make: Callable[[str], None] | None = None
    with contextlib.ExitStack() as stack:
        for part in work.parts():
            if work.is_done(part):
                continue
            with claim(part) as mine:
                # Between the look and the claim another process may have finished it.
                if not mine or work.is_done(part):
                    continue
                if make is None:
                    make = stack.enter_context(work.place())
                make(part)
    return make is not None
