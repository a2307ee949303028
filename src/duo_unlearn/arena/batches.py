"""Plain prompts of several scenarios in one batch: few at a time they would not fill the cores."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..attacks.interface import Findings, Target, plain_findings
from ..errors import DuoError
from ..progress import progress
from ..records import Prompt
from ..runs.attempts import batch_claim
from ..runs.search_state import NO_STATE
from .group_work import GroupWork


class Member(NamedTuple):
    """A part of a group's work. name: of its file there."""

    work: GroupWork
    name: str

    @property
    def prompts(self) -> list[Prompt]:
        """What it asks."""
        return list(self.work.scenario.prompts[self.work.slices[self.name]])

    @property
    def seeds(self) -> list[int]:
        """Of the noise."""
        return list(self.work.scenario.seeds[self.work.slices[self.name]])


class PlainWork:
    """The plain prompts of one system, of all its scenarios.

    Its parts are batches: parts of groups in order, as many as are sampled at once. A batch of an edited system is
    always sampled whole, also where some of it is there already: what lies in a batch with an image may be in its last
    bits, and a run that was stopped gives what one that went through gives.
    """

    def __init__(self, groups: Sequence[GroupWork]) -> None:
        self.groups, self.session = groups, groups[0].session
        # A part that two plans ask for is there once, as the later one divides the prompts.
        members = {part: Member(work, name) for work in groups for part, name in work.files().items()}
        self.batches = _divide(members, self.session.settings.evaluate.batch)

    def parts(self) -> list[str]:
        """The batches."""
        return list(self.batches)

    def is_done(self, part: str) -> bool:
        """Whether all of a batch is there."""
        return all(member.work.is_done(name) for name, member in self.batches[part].items())

    def is_open(self) -> bool:
        """Always: nothing is trained for plain prompts."""
        return True

    def cost(self, part: str) -> float:
        """Passes of the denoiser, about."""
        return sum(member.work.cost(name) for name, member in self.batches[part].items())

    @contextlib.contextmanager
    def place(self) -> Iterator[Callable[[str], None]]:
        """The model as the system."""
        names = list(dict.fromkeys(work.group.scenario for work in self.groups))
        label = f"{self.groups[0].group.system}: {names[0] if len(names) == 1 else f'{len(names)} prompt sets'}"
        lacking = [part for part in self.batches if not self.is_done(part)]
        images = sum(len(member.prompts) for part in lacking for member in self.batches[part].values())
        shown = progress(f"{label}, images", images, quiet=self.session.quiet)
        with self.groups[0].target() as target, shown as report:
            done = 0

            def make(part: str) -> None:
                nonlocal done
                done += self._make(target, part)
                report(done)

            yield make

    def _make(self, target: Target, part: str) -> int:
        """Make a batch; gives how many images it has. A member that cannot be written keeps no other from it."""
        begin, batch = time.monotonic(), self.batches[part]
        prompts = [prompt for member in batch.values() for prompt in member.prompts]
        seeds = [seed for member in batch.values() for seed in member.seeds]
        found = plain_findings(target, prompts, seeds, None, lambda _: None, NO_STATE)
        images = self.groups[0].sample(target, prompts, seeds, found)
        each, start, failed = (time.monotonic() - begin) / len(prompts), 0, None
        for name, member in batch.items():
            chosen = slice(start, start + len(member.prompts))
            start = chosen.stop
            # Another command may ask for some of these prompts, and knows no batches of this one's.
            with contextlib.nullcontext() if name == part else self.session.run.claim(name, wait=True):
                if member.work.is_done(name):
                    continue
                try:
                    mine, seconds = Findings(found.findings[chosen]), each * len(member.prompts)
                    member.work.keep(target, member.name, mine, images[chosen], seconds)
                except DuoError as error:
                    failed = failed or error
        if failed is not None:
            raise failed
        return len(prompts)


def in_batches(groups: Sequence[GroupWork]) -> list[GroupWork | PlainWork]:
    """The groups as works, in order; those of plain prompts are one work a system."""
    plain: dict[str, list[GroupWork]] = {}
    works: list[GroupWork | str] = []
    for group in groups:
        system = group.group.system
        if group.plan.preset is not None:
            works.append(group)
            continue
        if system not in plain:
            works.append(system)
        plain.setdefault(system, []).append(group)
    return [PlainWork(plain[one]) if isinstance(one, str) else one for one in works]


def members_of(works: Sequence[GroupWork | PlainWork], part: str) -> list[str]:
    """The parts of groups that a part of a work is."""
    batches = [work.batches[part] for work in works if isinstance(work, PlainWork) and part in work.batches]
    return list(batches[0]) if batches else [part]


def _divide(members: dict[str, Member], most: int) -> dict[str, dict[str, Member]]:
    """Batches of at most so many images; each has the name of its first part, and how many more it has."""
    batches: list[dict[str, Member]] = []
    room = 0
    for name, member in members.items():
        if len(member.prompts) > room:
            batches.append({})
            room = most
        batches[-1][name] = member
        room -= len(member.prompts)
    return {batch_claim(list(batch)): batch for batch in batches}
