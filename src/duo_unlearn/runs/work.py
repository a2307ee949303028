"""Work that is divided into parts: keyed, claimed, and each made once, by any number of processes together."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
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

    def cost(self, part: str) -> float:
        """About how long a part takes, beside those of other works; in any unit."""
        ...

    def place(self) -> AbstractContextManager[Callable[[str], None]]:
        """A context that gives the function which makes a part. It is entered once for all parts of one turn."""
        ...


class Source(Protocol):
    """Where this process has parts from, in place of looking for what nobody has claimed."""

    def finish(self, works: Sequence[Work], claim: Claim, run: str) -> bool:
        """As the function `finish`."""
        ...

    def absent(self) -> Mapping[tuple[str, str], str]:
        """(run, part) → why it could not be made."""
        ...


_SOURCE: Final[ContextVar[Source | None]] = ContextVar("source", default=None)


@contextlib.contextmanager
def parts_from(source: Source | None) -> Iterator[None]:
    """Inside the block `finish` has its parts from a source; None: by claims."""
    before = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(before)


def take_parts_from(source: Source) -> None:
    """From now on `finish` has its parts from a source."""
    _SOURCE.set(source)


def absent_parts() -> Mapping[tuple[str, str], str]:
    """(run, part) → why it could not be made. By claims nothing is absent: what fails there ends the process."""
    source = _SOURCE.get()
    return {} if source is None else source.absent()


def finish(works: Sequence[Work], claim: Claim, sleep: Callable[[float], None] = time.sleep, *, run: str = "") -> bool:
    """Make every part that is missing, or wait until others have made it; gives whether this process made any.

    A part that was found done, or was made here, is not looked at again. run: the run folder, where several runs have
    parts of the same names.
    """
    if (source := _SOURCE.get()) is not None:
        return source.finish(works, claim, run)
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
