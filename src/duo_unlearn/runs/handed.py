"""Work by a hand-out, as a worker sees it that asks for parts, and as the process that started the workers."""

from __future__ import annotations

import contextlib
import errno
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from ..errors import DuoError
from ..storage.files import digest
from .hand_out import Answer, Part, Stage
from .work import POLL, Claim, Work, finish, parts_from

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""What a system says of a full disk."""
LONGEST_PAUSE: Final = 8.0
"""Seconds between two questions of a worker that has nothing to do: hundreds of them may wait for one long part."""


def pause(waits: int) -> float:
    """Seconds until the next question, after so many that were in vain."""
    return min(LONGEST_PAUSE, POLL * 2.0 ** min(waits, 10))


class Channel(Protocol):
    """A worker's calls to the hand-out, wherever that is; see `HandOut`."""

    def ask(self, stage: Stage) -> Answer:
        """What to do next."""
        ...

    def post(self, stage: Stage, missing: list[Part]) -> None:
        """Say what is missing."""
        ...

    def done(self, stage: Stage, part: str) -> None:
        """The part is made."""
        ...

    def put_back(self, stage: Stage, part: str) -> None:
        """Another process has claimed it, or what it needs."""
        ...

    def failed(self, stage: Stage, part: str, reason: str) -> None:
        """It could not be made."""
        ...

    def absent(self) -> Mapping[tuple[str, str], str]:
        """(run, part) → why nobody could make it."""
        ...


class Handed:
    """Makes the parts that a hand-out gives this process, until all of a stage are made by someone.

    A part that fails is told to the hand-out, which gives it to another. After an error that is no DuoError this
    process may not be sound, so it is raised; so is a full disk.
    """

    def __init__(self, channel: Channel, sleep: Callable[[float], None] = time.sleep) -> None:
        self.channel, self.sleep = channel, sleep
        self.visits: Counter[Stage] = Counter()

    def finish(self, works: Sequence[Work], claim: Claim, run: str) -> bool:
        """Make parts as they are given; gives whether there was one."""
        owners = {part: i for i, work in enumerate(works) for part in work.parts()}
        stage = self._stage(run, list(owners))
        made, waits = False, 0
        with _Place() as place:
            while (answer := self.channel.ask(stage)).does != "leave":
                if answer.does == "wait":
                    self.sleep(pause(waits))
                    waits += 1
                    continue
                waits = 0
                if answer.does == "look":
                    self.channel.post(stage, list(_missing(works)))
                else:
                    made |= self._make(works[owners[answer.part]], answer, stage, claim, place)
        return made

    def absent(self) -> Mapping[tuple[str, str], str]:
        """What the hand-out says."""
        return self.channel.absent()

    def _stage(self, run: str, parts: list[str]) -> Stage:
        """The same in every worker: they run the same command. It may reach the same parts twice."""
        stage = Stage(run, digest(parts)[:16])
        self.visits[stage] += 1
        return stage._replace(name=f"{stage.name}.{self.visits[stage]}")

    def _make(self, work: Work, answer: Answer, stage: Stage, claim: Claim, place: _Place) -> bool:
        part = answer.part
        # A process that was started by hand may share the run; it knows of claims alone.
        with claim(part) as mine:
            if not (mine and work.is_open()):
                self.channel.put_back(stage, part)
                self.sleep(POLL)
                return False
            try:
                if not (answer.again and work.is_done(part)):
                    place.of(work)(part)
            except Exception as error:
                self.channel.failed(stage, part, reason_of(error))
                place.leave()
                if not isinstance(error, DuoError) or is_full(error):
                    raise
                return False
        self.channel.done(stage, part)
        return True


class Remaining:
    """What the process that started the workers finds after them: all is made but what is absent, which stays so."""

    def __init__(self, absent: Mapping[tuple[str, str], str]) -> None:
        self._absent = absent

    def finish(self, works: Sequence[Work], claim: Claim, run: str) -> bool:
        """Make by claims what is missing and not absent: a file that was broken in the meantime."""
        left = [_Without(work, {part for at, part in self._absent if at == run}) for work in works]
        with parts_from(None):
            return finish(left, claim)

    def absent(self) -> Mapping[tuple[str, str], str]:
        """What the workers could not make."""
        return self._absent


class _Without:
    """A work without some of its parts."""

    def __init__(self, work: Work, absent: set[str]) -> None:
        self.work, self.absent = work, absent
        self.is_done, self.is_open, self.cost, self.place = work.is_done, work.is_open, work.cost, work.place

    def parts(self) -> Sequence[str]:
        return [part for part in self.work.parts() if part not in self.absent]


class _Place(contextlib.ExitStack):
    """The place that this process is in: it stays there while it is given parts of the same work."""

    def __init__(self) -> None:
        super().__init__()
        self.work: Work | None = None

    def of(self, work: Work) -> Callable[[str], None]:
        """The function that makes parts of a work."""
        if work is not self.work:
            self.leave()
            self.make = self.enter_context(work.place())
            self.work = work
        return self.make

    def leave(self) -> None:
        """Leave the place, as before the first part."""
        self.work = None
        self.close()


def _missing(works: Sequence[Work]) -> Iterator[Part]:
    for i, work in enumerate(works):
        for part in work.parts():
            if not work.is_done(part):
                yield Part(part, str(i), work.cost(part))


def reason_of(error: BaseException) -> str:
    """An error in one line, with the machine that it came from."""
    text = error.reason if isinstance(error, DuoError) else f"{type(error).__name__}: {error}"
    return f"{' '.join(text.split())[:200]} (on {platform.node()})"


def is_full(error: BaseException | None) -> bool:
    """Whether an error comes from a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__
    return False
