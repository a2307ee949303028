"""From attempts and verdicts to results.json: every estimate of every system under every contract, with its hash.

The file is derived: it is made again from the run folder whenever that has changed, and when it is broken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..attacks.registry import ATTACKS, counts_in_worst_case
from ..concepts.captions import CAPTIONS
from ..features.clip import why_no_clip
from ..features.lpips import why_no_lpips
from ..metrics.estimate import Outcome, agreement, defence, false_positives, worst_case
from ..metrics.fidelity import Images, fidelity, names_digest, reference_pictures
from ..records import CORRECTED, ORIGINAL, PRESERVED, Attempt, Estimate, Source, told_by
from ..runs.attempts import GroupRecord, attempts_of, read_derived, why_partial, write_sealed
from ..runs.results import EVERY_SYSTEM, STALE, WORST, Results, estimate_of, is_in_worst, write_results
from ..runs.verdicts import Verdicts, every_verdicts
from ..session import Session
from ..settings.sampling import read_current
from ..storage.files import digest
from ..system import System
from .labelled import Labelled, read_labelled


class Asked(NamedTuple):
    """A group with its attempts, in order."""

    record: GroupRecord
    attempts: list[Attempt]


def make_results(session: Session) -> tuple[Results, bool]:
    """Write results.json from the run folder; gives its content, and whether it changed."""
    run, systems = session.run, session.known_systems()
    groups, absent = [], []
    for record in read_current(run, session.settings):
        reason = _why_no_number(record, systems.get(record.group.system))
        attempts = attempts_of(run, record) if reason is None else []
        reason = reason or why_partial(record, len(attempts))
        if reason is not None:
            absent.append(_absence(record, "dsr", reason))
        else:
            groups.append(Asked(record, attempts))
    asked_for = (a.sha256 for g in groups if g.record.kind not in PRESERVED for a in g.attempts)
    labelled = read_labelled(run, (sha256 for sha256 in asked_for if sha256 is not None))
    first = [str(judge.contract) for judge in session.judges.there]
    seed = session.settings.seed
    every, head = every_verdicts(run, first), next(iter(first), None)
    judged = [judged_under(seed, groups, verdicts, systems, labelled, head) for verdicts in every]
    # What a judge reads of a picture is the same under each of its thresholds, and told once.
    estimates = list(dict.fromkeys(estimate for found, _ in judged for estimate in found))
    absent += [entry for _, lacking in judged for entry in lacking]
    kept, lacking = _preserved(session, groups)
    lacking += [
        {"metric": "dsr", "system": EVERY_SYSTEM, "scenario": "every set", "attack": None, "preset": None,
         "reason": f"the judge {name} cannot be had: {reason}"}
        for name, reason in session.judges.absent.items()
    ]  # fmt: skip
    return write_results(
        run,
        concept=session.concept.name,
        model=session.settings.model,
        seed=session.settings.seed,
        quick=_is_quick(session),
        systems=[system.as_json() for system in systems.values()],
        estimates=[*estimates, *kept],
        absent=[*absent, *lacking],
        labels=None if labelled is None else labelled.as_json(),
    )


def _why_no_number(record: GroupRecord, current: System | None) -> str | None:
    """Why a group says nothing of a system as it is now, or None. An older version searched where none does now."""
    group = record.group
    if record.reason is not None:
        return record.reason
    if current is None or record.sha256 != current.sha256:
        return STALE
    if group.search == "aware" and (reason := current.why_not_aware()) is not None:
        return reason
    is_own = record.contract is not None and group.replay is None
    if is_own and group.attack in ATTACKS.names() and not ATTACKS.get(group.attack).passes_filters:
        return current.why_no_search(str(record.contract))
    return None


def _is_quick(session: Session) -> bool:
    """Whether fewer prompts or steps than the default were used for some number."""
    settings = session.settings.evaluate
    usual = type(settings)()
    names = ("prompts", "keep_prompts", "neighbour_prompts", "inversion_prompts", "inversion_steps")
    return any(getattr(settings, name) < getattr(usual, name) for name in names)


def _absence(record: GroupRecord, metric: str, reason: str) -> dict[str, Any]:
    group = record.group
    attack = None if group.preset is None else group.attack_name
    return {
        "metric": metric, "system": group.system, "scenario": group.scenario, "attack": attack,
        "preset": group.preset, "reason": reason,
    }  # fmt: skip


def _source(seed: int, record: GroupRecord, contract: str, unscored: int = 0) -> Source:
    group = record.group
    attack = None if group.preset is None else group.attack_name
    return Source(
        group.system, record.sha256, group.scenario, attack, group.preset, group.search, contract, (seed,), unscored
    )


def _outcomes(attempts: Sequence[Attempt], verdicts: Verdicts) -> list[Outcome]:
    outcomes = []
    for attempt in attempts:
        reading = None if attempt.sha256 is None else verdicts.readings.get(attempt.sha256)
        verdict, read = (None, {}) if reading is None else reading
        outcomes.append(Outcome(verdict, attempt.refusal is not None, attempt.shows, read))
    return outcomes


def judged_under(
    seed: int,
    groups: Sequence[Asked],
    verdicts: Verdicts,
    systems: Mapping[str, System],
    labelled: Labelled | None,
    head: str | None = None,
) -> tuple[list[Estimate], list[dict[str, Any]]]:
    """The estimates of all groups under one contract, and what it gives no number for. seed: of the run.

    head: the contract that heads its tables; None: this one.
    """
    estimates, absent, measured = list[Estimate](), list[dict[str, Any]](), list[Asked]()
    for asked in groups:
        reason = systems[asked.record.group.system].why_no_measure(verdicts.contract, head)
        if reason is None:
            measured.append(asked)
        elif verdicts.covers(asked.attempts):
            absent.append(_absence(asked.record, "dsr", f"{reason} {verdicts.contract}: no measure of it"))
    for record, attempts in measured:
        if not verdicts.covers(attempts):
            absent.append(_absence(record, "dsr", f"not judged under {verdicts.contract}: duo judge RUN"))
            continue
        outcomes = _outcomes(attempts, verdicts)
        lacking = [a for a, outcome in zip(attempts, outcomes, strict=True) if not outcome.is_scored]
        source = _source(seed, record, verdicts.contract, len(lacking))
        if lacking:
            first = verdicts.faults.get(lacking[0].sha256 or "", "not judged")
            reason = f"{len(lacking)} of {len(attempts)} images had no verdict: {first}"
            absent.append(_absence(record, "verdict", reason))
        if record.kind in PRESERVED:
            agreements = agreement(source._replace(contract=verdicts.reader), outcomes)
            estimates += [*false_positives(source, outcomes), *agreements]
            attribute = told_by(record.group.scenario)
            if attribute is not None and not any(e.metric == f"{attribute} agreement" for e in agreements):
                reason = f"{verdicts.reader} reads no {attribute}s, so how often a safe one comes back is not known"
                absent.append(_absence(record, f"{attribute} agreement", reason))
        else:
            estimates += defence(source, outcomes)
            if labelled is not None:
                found, why = labelled.beside(verdicts).corrected(source, attempts, outcomes)
                estimates += found
                absent += [_absence(record, CORRECTED, why)] if why is not None else []
    worst, without = _worst(seed, measured, verdicts)
    return estimates + worst, absent + without


def _worst(seed: int, groups: Sequence[Asked], verdicts: Verdicts) -> tuple[list[Estimate], list[dict[str, Any]]]:
    """The worst case of each system, scenario and preset: a prompt is defended when every attack is seen to fail.

    So it is never above the DSR of one of them. It is over the attacks on the same prompts, with direct prompts among
    them; what was replayed, and attacks that say that they do not count, are left out. There is none where attacks were
    asked other prompts, as after a change of the concept file.
    """
    estimates, absent = list[Estimate](), list[dict[str, Any]]()
    for key, members in _by_place(groups, verdicts).items():
        if len(members) < 2:
            continue
        count, record = min(len(asked.attempts) for asked in members), members[0].record
        place = record._replace(group=record.group._replace(attack=WORST, preset=key[2], search=key[3]))
        texts = [[attempt.prompt for attempt in asked.attempts[:count]] for asked in members]
        if odd := [asked.record.group.attack for asked, own in zip(members, texts, strict=True) if own != texts[0]]:
            reason = f"{record.group.attack} and {odd[0]} were asked other prompts: `duo attack` again"
            absent.append(_absence(place, "dsr", reason))
            continue
        columns = (_outcomes(asked.attempts[:count], verdicts) for asked in members)
        by_prompt = [worst_case(row) for row in zip(*columns, strict=True)]
        source = _source(seed, place, verdicts.contract, sum(not o.is_scored for o in by_prompt))
        estimates += defence(source, by_prompt)
    return estimates, absent


def _by_place(groups: Sequence[Asked], verdicts: Verdicts) -> dict[tuple[str, str, str, Any], list[Asked]]:
    """(system, scenario, preset, search) → its groups that count, direct prompts first."""
    counted = [
        asked
        for asked in groups
        if asked.record.kind == "attack"
        and asked.record.group.replay is None
        and verdicts.covers(asked.attempts)
        and asked.attempts
        and counts_in_worst_case(asked.record.group.attack)
    ]
    places: dict[tuple[str, str, str, Any], list[Asked]] = {}
    for asked in counted:
        group = asked.record.group
        if group.preset is not None:
            place = (group.system, group.scenario, group.preset)
            others = (other.record.group for other in counted)
            searches = {other.search for other in others if (other.system, other.scenario, other.preset) == place}
            # What searches nothing counts in both cases.
            for search in sorted(searches - {None}, key=str) or [None]:
                if is_in_worst(group.search, search):
                    places.setdefault((*place, search), []).append(asked)
    for (system, scenario, _, _), members in places.items():
        plain = (asked for asked in counted if asked.record.group.preset is None)
        own = [one for one in plain if (one.record.group.system, one.record.group.scenario) == (system, scenario)]
        members[:0] = own
    return places


def _preserved(session: Session, groups: Sequence[Asked]) -> tuple[list[Estimate], list[dict[str, Any]]]:
    """What each system's images keep of the original's on keep and neighbour prompts; measured once and kept."""
    chosen = [g for g in groups if g.record.kind in PRESERVED and g.record.group.preset is None]
    originals = {g.record.group.scenario: g for g in chosen if g.record.group.system == ORIGINAL}
    cache = _Cache(session)
    estimates, absent = list[Estimate](), list[dict[str, Any]]()
    for asked in chosen:
        original = originals.get(asked.record.group.scenario)
        there = 0 if original is None else len(original.attempts)
        if original is None or there != len(asked.attempts):
            reason = f"the original has {there} of these pictures, and it {len(asked.attempts)}"
            again = f"{reason}: `duo evaluate --system {asked.record.group.system}`"
            absent.append(_absence(asked.record, "prior preservation", again))
            continue
        found, lacking = cache.measured(asked, original)
        estimates += found
        absent += [_absence(asked.record, metric, reason) for metric, reason in lacking]
    cache.write()
    return estimates, absent


class _Cache:
    """preservation.json: estimates by the images, texts and networks that they were measured with."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.networks = [str(why_no_clip(session.family)), str(why_no_lpips())]
        reference = session.settings.evaluate.reference
        self.reference_digest = names_digest(reference_pictures(reference)) if reference is not None else ""
        content = read_derived(session.run.preservation)
        self.known: dict[str, Any] = content["measured"] if content is not None else {}
        self.used: dict[str, Any] = {}

    def measured(self, asked: Asked, original: Asked) -> tuple[list[Estimate], list[tuple[str, str]]]:
        """The estimates of one group beside the original's, read or measured."""
        pairs = [
            (mine, other)
            for mine, other in zip(asked.attempts, original.attempts, strict=True)
            if mine.file is not None and other.file is not None
        ]
        hashes = [[mine.sha256, other.sha256, mine.prompt] for mine, other in pairs]
        source = _source(self.session.settings.seed, asked.record, "")
        reference = self._reference(source.scenario)
        seen = [*self.networks, self.reference_digest if reference is not None else ""]
        key = digest([seen, hashes, source._asdict()])
        if key not in self.known:
            self.known[key] = self._measure(source, pairs, reference)
        entry = self.used[key] = self.known[key]
        return [estimate_of(e) for e in entry["estimates"]], [(metric, reason) for metric, reason in entry["absent"]]

    def _reference(self, scenario: str) -> Path | None:
        """The images that a prompt set is measured from: captions have them to themselves."""
        chosen = self.session.settings.evaluate
        return chosen.reference if chosen.captions is None or scenario == CAPTIONS else None

    def _measure(
        self, source: Source, pairs: Sequence[tuple[Attempt, Attempt]], reference: Path | None
    ) -> dict[str, Any]:
        folder = self.session.run.folder
        images = Images(
            source,
            [mine.prompt for mine, _ in pairs],
            [folder / str(mine.file) for mine, _ in pairs],
            None if source.system == ORIGINAL else [folder / str(other.file) for _, other in pairs],
            reference,
        )
        found = fidelity(self.session.family, images)
        return {"estimates": [e.as_json() for e in found.estimates], "absent": [list(a) for a in found.absent]}

    def write(self) -> None:
        """Keep what was used."""
        write_sealed(self.session.run.preservation, {"measured": self.used})
