"""Rounds of an edit: it is trained, attacked on training prompts, and trained anew with what the attacks found.

Each round begins at the original. Those before the last have names of their own, so that nothing evaluates them unless
it is asked to. Every stage is skipped where it is done under the same settings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..detectors.interface import Detector
from ..edits.provenance import edit_hash
from ..erasers.interface import Rounds, State
from ..erasers.robust.bank import distinct, kept_bank, read_bank, write_bank
from ..erasers.wraps import round_name, whole_name
from ..errors import DuoError
from ..records import Estimate
from ..runs.attempts import GroupRecord, attempts_of, parts_of, read_group
from ..runs.results import WORST
from ..runs.rounds import Round, bank_file, read_rounds, write_rounds
from ..runs.verdicts import read_verdicts
from ..session import Session
from ..settings.sampling import sampling_of
from ..storage.files import digest, sha256_of
from ..system import System
from .bank import Searched, no_caption, search, training_prompts
from .judge import judge
from .results import Asked, judged_under

Say = Callable[[str], None]
"""Called with a line on what was done."""


def silent(_line: str) -> None:
    """Say nothing."""


class Training(NamedTuple):
    """One training of an edit. name: of the edit that it makes. options: on top of the settings'.

    bank: captions that attacks on earlier rounds found; None: the options' own.
    """

    name: str
    options: Mapping[str, Any] = {}
    bank: Path | None = None


def in_rounds(
    session: Session, name: str, floor: str | None, rounds: Rounds | None, train: Callable[[Training], State], say: Say
) -> State:
    """Make an edit by one training, or in rounds; gives whether there was something to do.

    name: of the last round's edit. floor: what lies below each. train: makes the edit of one training, or waits until
    another process has. Attacks are shared by all processes that come here.
    """
    if rounds is None:
        return train(Training(name))
    # What the attacks need is told before hours of training.
    training_prompts(session)
    str(session.detector.contract)
    states: list[State] = []
    bank = None if rounds.bank is None else kept_bank(session.run, rounds.bank)
    for number in range(1, rounds.trainings + 1):
        is_last = number == rounds.trainings
        edit = name if is_last else round_name(name, number)
        training = Training(edit) if number == 1 else Training(edit, rounds.later, bank)
        states.append(train(training))
        say(f"round {number} of {rounds.trainings}: {states[-1]} → {session.run.edit(edit)}")
        system = session.system(whole_name(edit, floor))
        stage = _Attacked(session, name, number, edit, system, rounds, bank, is_last=is_last)
        states.append(stage.make(say))
        bank = bank_file(session.run, edit)
    return "done" if "done" in states else "already done"


class _Attacked:
    """The attacks on one round: what they found is kept for the rounds after it, and how often they succeeded is told.

    before: captions of earlier rounds, which the new ones join.
    """

    def __init__(
        self, session: Session, name: str, number: int, edit: str, system: System, rounds: Rounds, before: Path | None,
        *, is_last: bool,
    ) -> None:  # fmt: skip
        self.session, self.name, self.number, self.edit = session, name, number, edit
        self.system, self.rounds, self.before, self.is_last = system, rounds, before, is_last
        self.bank = bank_file(session.run, edit)

    @functools.cached_property
    def key(self) -> str:
        """What decides it: the system, the attacks, earlier captions, who judges, and how images are sampled."""
        rounds = self.rounds
        asked = [list(rounds.attacks), rounds.prompts, {name: dict(f) for name, f in rounds.budgets.items()}]
        before = None if self.before is None else sha256_of(self.before)
        contract, seed = str(self.session.detector.contract), self.session.settings.seed
        sampled = sampling_of(self.session.settings)
        return digest([self.system.sha256, asked, before, contract, seed, self.is_last, sampled])[:16]

    def record(self) -> Round | None:
        """The round as it is told already, under the same key and with the same captions; else None."""
        told = next((one for one in read_rounds(self.session.run, self.name) if one.number == self.number), None)
        if told is None or told.key != self.key:
            return None
        there = sha256_of(self.bank) if self.bank.exists() else None
        return told if self.is_last or there == told.bank else None

    def make(self, say: Say) -> State:
        """Attack, keep and tell; all processes come to the same end, and one of them writes."""
        run = self.session.run
        state: State = "already done"
        if (told := self.record()) is None:
            # Who has this claim tells `duo status` what all of them are at.
            with run.claim(f"bank.{self.name}"):
                searched = self._searched()
            with run.claim(f"bank.{self.name}.written", wait=True):
                if (told := self.record()) is None:
                    told = self._write(searched)
                    state = self.session.finish(f"attack {self.edit}", _seconds(searched), "done")
        numbers = ", ".join(map(_in_words, told.dsr)) or "no picture had a verdict"
        say(f"round {self.number} of {self.rounds.trainings}: {numbers}, on training prompts")
        return state

    def _searched(self) -> Searched:
        rounds = self.rounds
        found = search(self.session, self.system, rounds.attacks, rounds.prompts, rounds.budgets)
        if found.reasons:
            name, reason = next(iter(found.reasons.items()))
            hint = "the same command tries again; or other round_attacks"
            raise DuoError(f"the attack {name} on {self.system.name} did not run", got=reason, hint=hint)
        return found

    def _write(self, searched: Searched) -> Round:
        run, sha256 = self.session.run, None
        if not self.is_last:
            captions, facts = searched.captions, dict(searched.provenance)
            if self.before is not None:
                earlier, _ = read_bank(self.before)
                captions = distinct([*earlier, *captions])
                facts["before"] = sha256_of(self.before)
            if not captions:
                raise no_caption(self.rounds.attacks)
            write_bank(self.bank, captions, {**facts, "round": self.number})
            sha256 = sha256_of(self.bank)
        dsr = _dsr(searched, self.system, self.session.detector, quiet=self.session.quiet)
        now = Round(self.number, self.edit, edit_hash(run.edit(self.edit)), self.system.name, self.key, sha256, dsr)
        # When more rounds were asked for before, those beyond are no longer told.
        others = [one for one in read_rounds(run, self.name) if one.number <= self.rounds.trainings]
        others = [one for one in others if one.number != self.number]
        write_rounds(run, self.name, sorted([*others, now], key=lambda one: one.number))
        return now


def _dsr(searched: Searched, system: System, detector: Detector, *, quiet: bool) -> list[Estimate]:
    """DSR by attack under a detector, of what was asked last."""
    run, contract = searched.apart.run, str(detector.contract)
    with run.claim("judge", wait=True):
        judge(run, detector, quiet=quiet)
        verdicts = read_verdicts(run, contract)
    asked = [Asked(record, attempts_of(run, record)) for record in _records(searched)]
    assert verdicts is not None
    estimates, _ = judged_under(searched.apart.settings.seed, asked, verdicts, {system.name: system}, None)
    return [one for one in estimates if one.metric == "dsr" and one.attack != WORST]


def _records(searched: Searched) -> list[GroupRecord]:
    run = searched.apart.run
    records = [read_group(plan.group.folder(run) / "group.json") for plan in searched.plans]
    return [record for record in records if record is not None]


def _seconds(searched: Searched) -> float:
    """What the attacks took, of all processes together, and of those that were stopped."""
    parts = [part for record in _records(searched) for part in parts_of(searched.apart.run, record)]
    return sum(part.seconds for part in parts if part.seconds is not None)


def _in_words(estimate: Estimate) -> str:
    return f"{estimate.attack} DSR {100 * estimate.value:.0f} % (n = {estimate.n})"
