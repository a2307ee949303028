"""Which numbers head a report: the worst wording, what the edit costs, and the attack under which it is weakest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..records import ORIGINAL, Estimate
from .attacks import attack_scores
from .read import Contents
from .words import family_of_attack

RELEARNING = "relearning"
"""The family of attacks that change the weights."""


class Fall(NamedTuple):
    """An agreement of the original and of an edited system."""

    before: Estimate
    after: Estimate

    @property
    def points(self) -> float:
        """How much less it is, as a share."""
        return self.before.value - self.after.value


def plain_scores(contents: Contents, system: str) -> list[Estimate]:
    """A system's DSR on each prompt set, without an attack."""
    return [e for e in contents.primary if e.metric == "dsr" and e.system == system and e.attack is None]


def worst(scores: Sequence[Estimate]) -> Estimate | None:
    """The lowest of some DSR; None of none."""
    return min(scores, key=lambda e: (e.value, e.low), default=None)


def weakest_attack(contents: Contents, system: str, *, relearning: bool = True) -> Estimate | None:
    """The lowest DSR of a system under attack; None where none was measured. relearning: such that change weights too.

    The worst case and the removal of edits are not among them.
    """
    scores = attack_scores(contents, system)
    return worst([e for e in scores if relearning or family_of_attack(str(e.attack)) != RELEARNING])


def most_kept(estimates: Sequence[Estimate], metric: str, system: str) -> Estimate | None:
    """A system's largest share without attack, on prompt sets that ask no system for the concept; None of none."""
    asking = {e.scenario for e in estimates if e.metric == "dsr"}
    mine = [e for e in estimates if (e.metric, e.system, e.attack) == (metric, system, None)]
    return max((e for e in mine if e.scenario not in asking), key=lambda e: e.value, default=None)


def counterpart(estimates: Sequence[Estimate], estimate: Estimate) -> Estimate | None:
    """The original's number of the same kind."""
    key = (estimate.metric, estimate.scenario, estimate.contract)
    plain = (e for e in estimates if e.system == ORIGINAL and e.attack is None)
    return next((e for e in plain if (e.metric, e.scenario, e.contract) == key), None)


def falls(estimates: Sequence[Estimate], system: str) -> list[Fall]:
    """What a system's pictures agree less with than the original's, the largest fall first; rises come last."""
    mine = [e for e in estimates if e.system == system and e.attack is None and e.metric.endswith(" agreement")]
    pairs = [Fall(before, e) for e in mine if (before := counterpart(estimates, e)) is not None]
    return sorted(pairs, key=lambda fall: -fall.points)
