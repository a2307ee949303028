"""The attempts: by attack, system and verdict; and one of them, with the same question to the other systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..records import ORIGINAL
from ..report.words import ATTACK_WORDS, attack_order, set_name, set_order
from ..runs.verdicts import Reading, Verdicts
from .pages import Missing, Pages, leaf
from .records import Entry, word

A_PAGE: Final = 60
"""How many attempts an overview shows."""
VERDICTS: Final = {
    "": "all",
    "yes": "concept seen",
    "no": "not seen",
    "broken": "broken picture",
    "refused": "refused by a guard",
    "unscored": "no verdict",
}


class Filter(NamedTuple):
    """Which attempts are shown. attack: an attack with its budget. judge: whose verdicts are meant, by its place."""

    attack: str = ""
    system: str = ""
    scenario: str = ""
    verdict: str = ""
    judge: str = ""
    text: str = ""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Filter:
        """The filter of a query; a verdict or judge that there is none of is left out."""
        made = cls(**{name: values.get(name, "")[:120] for name in cls._fields})
        made = made._replace(verdict=made.verdict if made.verdict in VERDICTS else "")
        return made._replace(judge=made.judge if made.judge.isdecimal() and len(made.judge) < 4 else "")

    def select(self, entries: Sequence[Entry], judge: Verdicts | None) -> list[Entry]:
        """The attempts that are meant, in the run's order."""
        needle = self.text.lower().strip()
        return [
            entry
            for entry in entries
            if (not self.attack or entry.record.group.slug == self.attack)
            and (not self.system or entry.record.group.system == self.system)
            and (not self.scenario or entry.record.group.scenario == self.scenario)
            and (not self.verdict or word_of(entry, judge) == self.verdict)
            and (not needle or needle in entry.attempt.text.lower() or needle in entry.attempt.prompt.lower())
        ]


class Word(NamedTuple):
    """A judge's word on a picture. kind: of VERDICTS. reading: None where there is none; fault: why, if it is known."""

    contract: str
    kind: str
    reading: Reading | None
    fault: str | None


def word_of(entry: Entry, judge: Verdicts | None) -> str:
    """What a judge says of an attempt, by the names of VERDICTS."""
    if entry.attempt.refusal is not None:
        return "refused"
    reading = judge.readings.get(entry.attempt.sha256 or "") if judge is not None else None
    return "unscored" if reading is None else word(reading.verdict)


def attempt_routes(pages: Pages) -> list[Route]:
    """What the attempts answer to."""
    room = _Room(pages)
    return [
        Route("/attempts", room.overview),
        Route("/attempts/{system}/{scenario}/{slug}/{place:int}", room.one),
    ]


def path_of(entry: Entry) -> str:
    """Where an attempt is shown."""
    return "/attempts/" + "/".join(quote(str(part), safe="", errors="replace") for part in entry.path)


class _Room:
    def __init__(self, pages: Pages) -> None:
        self.pages, self.records = pages, pages.records

    def overview(self, request: Request) -> Response:
        entries, chosen = self.records.attempts(), Filter.of(request.query_params)
        judge = self._judge(chosen)
        found = chosen.select(entries, judge)
        page = leaf(found, A_PAGE, request.query_params.get("page"))
        groups = [entry.record.group for entry in entries]
        slugs = sorted({(group.slug, group.attack) for group in groups}, key=lambda one: (attack_order(one[1]), one[0]))
        return self.pages(
            "attempts.html.j2",
            room="Attempts",
            filter=chosen._asdict(),
            attacks=[("", "all"), *((slug, slug) for slug, _ in slugs)],
            systems=[("", "all"), *((name, name) for name in _systems(entries))],
            scenarios=[("", "all"), *((s, set_name(s)) for s in sorted({g.scenario for g in groups}, key=set_order))],
            verdicts=VERDICTS,
            judges=[(str(i), one.contract) for i, one in enumerate(self.records.verdicts())],
            shown=[(entry, path_of(entry), word_of(entry, judge)) for entry in page.shown],
            count=len(found),
            total=len(entries),
            page=page.number,
            pages=page.of,
        )

    def one(self, request: Request) -> Response:
        chosen, entries = Filter.of(request.query_params), self.records.attempts()
        path = tuple(request.path_params[name] for name in ("system", "scenario", "slug", "place"))
        entry = next((entry for entry in entries if entry.path == path), None)
        if entry is None:
            got = "/".join(map(str, path))[:120]
            raise Missing("there is no such attempt in this run", got=got, hint="/attempts shows those that there are")
        judge = self._judge(chosen)
        found = chosen.select(entries, judge)
        at = next((i for i, one in enumerate(found) if one.path == entry.path), None)
        return self.pages(
            "attempt.html.j2",
            room="Attempts",
            filter=chosen._asdict(),
            entry=entry,
            place=at,
            count=len(found),
            before=path_of(found[at - 1]) if at else None,
            after=path_of(found[at + 1]) if at is not None and at + 1 < len(found) else None,
            words=[_word(entry, verdicts) for verdicts in self.records.verdicts()],
            around=[(one, path_of(one), word_of(one, judge)) for one in _around(entries, entry)],
            says=ATTACK_WORDS.get(entry.record.group.attack, ""),
            set_name=set_name(entry.record.group.scenario),
            verdicts=VERDICTS,
        )

    def _judge(self, chosen: Filter) -> Verdicts | None:
        judges = self.records.verdicts()
        place = int(chosen.judge or 0)
        return judges[place] if place < len(judges) else next(iter(judges), None)


def _systems(entries: Sequence[Entry]) -> list[str]:
    """The systems, the original first."""
    return sorted({entry.record.group.system for entry in entries}, key=lambda name: (name != ORIGINAL, name))


def _word(entry: Entry, judge: Verdicts) -> Word:
    sha256 = entry.attempt.sha256 or ""
    return Word(judge.contract, word_of(entry, judge), judge.readings.get(sha256), judge.faults.get(sha256))


def _around(entries: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The same question to every system: its prompt set, attack, prompt and seed; the original first."""
    group, asked = entry.record.group, (entry.attempt.prompt, entry.attempt.seed)
    found = [
        one
        for one in entries
        if (one.attempt.prompt, one.attempt.seed) == asked
        and (one.record.group.scenario, one.record.group.attack_name, one.record.group.preset)
        == (group.scenario, group.attack_name, group.preset)
    ]
    order = _systems(found)
    return sorted(found, key=lambda one: (order.index(one.record.group.system), one.record.group.slug))
