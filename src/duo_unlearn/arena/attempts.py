"""Making attempts: what attacks find and the images it gives, part by part, kept under a key, and not judged here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..families.truncation import cut_texts, text_length
from ..runs import work
from ..runs.attempts import Group, write_group
from ..session import Session
from .batches import in_batches, members_of
from .group_work import GroupWork
from .plans import Plan


class AttackState(NamedTuple):
    """How an attack on a system stands: how many attempts there are, or why it did not run."""

    group: Group
    attempts: int
    reason: str | None


def make_attempts(session: Session, plans: Sequence[Plan]) -> tuple[list[AttackState], bool]:
    """Make the attempts of all plans; gives their states, and whether this process made any.

    Parts that are there already are kept. Any number of processes may share the parts of a run: each claims what it
    works on, and all stay until all is done.
    """
    states, groups = [], []
    if not session.quiet:
        _tell_cut(session, plans)
    for plan in plans:
        group_work = GroupWork(session, plan)
        reason = group_work.why_not()
        write_group(session.run, group_work.record(reason))
        states.append(AttackState(plan.group, 0 if reason else group_work.size, reason))
        if reason is None:
            groups.append(group_work)
    run, works = str(session.run.folder), in_batches(groups)
    made = work.finish(works, session.run.claim, run=run)
    lost: dict[str, str] = {}
    for (at, part), reason in work.absent_parts().items():
        lost |= dict.fromkeys(members_of(works, part) if at == run else [], reason)
    for group_work in groups:
        # Of a batch that failed, members may be there all the same.
        parts = [part for part in group_work.parts() if part in lost and not group_work.is_done(part)]
        reasons = [f"{part} could not be made: {lost[part]}" for part in parts]
        if reasons:
            write_group(session.run, group_work.record(reasons[0]))
            states = [s._replace(attempts=0, reason=reasons[0]) if s.group == group_work.group else s for s in states]
        elif group_work.fine_tuning is not None:
            group_work.fine_tuning.clear()
    return states, made


def _tell_cut(session: Session, plans: Sequence[Plan]) -> None:
    """Say on stderr of which prompts the model does not read the end: what stands there is not asked."""
    sets = {plan.scenario.name: [prompt.text for prompt in plan.scenario.prompts] for plan in plans}
    for name, texts in sets.items():
        if cut := cut_texts(session.model, texts):
            told = f"{name}: {sum(text in cut for text in texts)} of {len(texts)} prompts are longer than the"
            length = text_length(session.model)
            print(f"{told} {length} tokens that the model reads, and their ends are not asked", file=sys.stderr)
