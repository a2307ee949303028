"""The evidence of an export, from the run: what its numbers come from, without a picture or a prompt's words.

Each attempt has the hash of its prompt, its seed and the hash of its image, and each judge's word on every image goes
along. So every estimate of what judges say can be computed again from the exported folder alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ..attacks.registry import ATTACKS
from ..records import CORRECTED, PRESERVED, Attempt, Estimate, Verdict
from ..runs.attempts import Group, GroupRecord, attempts_of, why_partial
from ..runs.folder import Run
from ..runs.labels import Label, read_labels
from ..runs.results import EVERY_SYSTEM, Results
from ..runs.verdicts import Reading, Verdicts, every_verdicts
from ..settings.sampling import read_current
from ..system import System
from .forms import Asked, AttemptOf, Evidence, GroupOf, JudgeOf, LabelOf, Missing, ReadingOf, SystemOf

JUDGED: Final = ("dsr", "detected", "refused", "broken", CORRECTED)
"""Metrics that are of judges' words. An agreement of an attribute is one too."""


class Measurement(NamedTuple):
    """What a run measured of an edit by itself and of the original, as its evidence has it."""

    systems: Sequence[SystemOf] = ()
    groups: Sequence[GroupOf] = ()
    judges: Sequence[JudgeOf] = ()
    labels: Sequence[LabelOf] = ()
    pool: Sequence[str] = ()
    kept: Sequence[Estimate] = ()
    absent: Sequence[Missing] = ()


def measurement_of(run: Run, results: Results, systems: Sequence[System]) -> Measurement:
    """The attempts of some systems of a run, the judges' words on them, and people's.

    Attempts of another edit of the same name are left out.
    """
    hashes = {system.name: system.sha256 for system in systems}
    asked = list(_groups(run, hashes))
    labels = read_labels(run)
    # Labels are drawn from the pictures of every system, and correct a judge by all of them.
    current = {system["name"]: system["sha256"] for system in results.systems} if labels else {}
    everything = (a.sha256 for record, some in _groups(run, current) if record.kind not in PRESERVED for a in some)
    pool = sorted({sha256 for sha256 in everything if sha256 is not None})
    wanted = {a.sha256 for _, attempts in asked for a in attempts} | set(pool)
    return Measurement(
        systems=[SystemOf(name=system.name, sha256=system.sha256) for system in systems],
        groups=[_group(record, attempts) for record, attempts in asked],
        judges=[_judge(verdicts, wanted) for verdicts in every_verdicts(run)],
        labels=_labels(labels),
        pool=pool,
        kept=[e for e in results.estimates if hashes.get(e.system) == e.sha256 and not is_judged(e.metric)],
        absent=[_missing(entry) for entry in results.absent if entry["system"] in (*hashes, EVERY_SYSTEM)],
    )


def _groups(run: Run, hashes: Mapping[str, str]) -> Iterator[tuple[GroupRecord, list[Attempt]]]:
    """The groups of some systems with their attempts. One that lacks some has no number: it has none, and why.

    hashes: system → its own, which a group must have.
    """
    for record in read_current(run):
        if hashes.get(record.group.system) == record.sha256:
            attempts = [] if record.reason else attempts_of(run, record)
            reason = record.reason or why_partial(record, len(attempts))
            yield record._replace(reason=reason), [] if reason else attempts


def is_judged(metric: str) -> bool:
    """Whether a metric is of judges' words, so that it can be computed again without an image."""
    return metric in JUDGED or metric.endswith(" agreement")


def attempts_in(evidence: Evidence) -> list[tuple[GroupRecord, list[Attempt]]]:
    """The groups that ran, and their attempts as records; a hash stands where a text was."""
    found = []
    for entry in evidence.groups:
        asked = entry.asked
        if asked.reason is None:
            group = Group(asked.system, asked.scenario, asked.attack, asked.preset, asked.search, asked.replay)
            record = GroupRecord(
                group, entry.sha256, asked.kind, asked.title, asked.budget, asked.contract, None, asked.size, {}
            )
            attempts = [
                Attempt(a.prompt, a.shows, a.seed, a.text, {}, a.image, a.image, a.refusal) for a in entry.attempts
            ]
            found.append((record, attempts))
    return found


def verdicts_in(evidence: Evidence) -> list[Verdicts]:
    """The judges' words as records."""
    return [
        Verdicts(
            judge.contract,
            judge.reader,
            {k: Reading(Verdict(r.detected, r.score, r.broken), r.reads) for k, r in judge.readings.items()},
            dict(judge.faults),
        )
        for judge in evidence.judges
    ]


def labels_in(evidence: Evidence) -> list[Label]:
    """People's labels as records."""
    return [Label(**label.model_dump()) for label in evidence.labels]


def words_digest(text: str) -> str:
    """The hash of a prompt."""
    return hashlib.sha256(text.encode()).hexdigest()


def known_attacks() -> list[str]:
    """The names of the attacks that there are."""
    return list(ATTACKS.names())


def _group(record: GroupRecord, attempts: Sequence[Attempt]) -> GroupOf:
    asked = Asked(
        **record.group._asdict(), kind=record.kind, title=record.title, budget=dict(record.budget),
        contract=record.contract, size=record.size, reason=record.reason,
    )  # fmt: skip
    return GroupOf(asked=asked, sha256=record.sha256, attempts=[_attempt(attempt) for attempt in attempts])


def _attempt(attempt: Attempt) -> AttemptOf:
    return AttemptOf(
        prompt=words_digest(attempt.prompt), text=words_digest(attempt.text), seed=attempt.seed,
        image=attempt.sha256, refusal=attempt.refusal, shows=dict(attempt.shows),
    )  # fmt: skip


def _judge(verdicts: Verdicts, wanted: set[str | None]) -> JudgeOf:
    readings = {
        sha256: ReadingOf(
            detected=reading.verdict.detected, score=reading.verdict.score, broken=reading.verdict.broken,
            reads=dict(reading.attributes),
        )
        for sha256, reading in verdicts.readings.items()
        if sha256 in wanted
    }  # fmt: skip
    faults = {sha256: why for sha256, why in verdicts.faults.items() if sha256 in wanted}
    return JudgeOf(contract=verdicts.contract, reader=verdicts.reader, readings=readings, faults=faults)


def _labels(labels: Sequence[Label]) -> list[LabelOf]:
    numbers: dict[str, str] = {}
    for label in labels:
        numbers.setdefault(label.labeller, str(len(numbers) + 1))
    return [LabelOf(**label._replace(labeller=numbers[label.labeller])._asdict()) for label in labels]


def _missing(entry: dict[str, object]) -> Missing:
    fields = {name: entry.get(name) for name in ("system", "scenario", "attack", "preset")}
    return Missing.model_validate({"what": entry["metric"], "reason": entry["reason"], **fields})
