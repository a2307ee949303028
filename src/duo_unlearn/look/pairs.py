"""The pairs: an overview by filters, one pair at a time, and dropping or taking back, as `duo drop` does."""

from __future__ import annotations

import functools
import re
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..pairs.drop import BY_HAND, drop
from ..pairs.manifest import KindTries
from ..records import Pair
from .pages import Missing, Pages, leaf, number, posted, query, typed

A_PAGE: Final = 48
"""How many pairs an overview shows."""
REASONS: Final = 12
"""How many of the reasons that were given are offered again."""
ORDERS: Final = {"": "by name", "unsafe": "unsafe score, lowest first", "safe": "safe score, highest first"}
STATES: Final = {"": "all", "kept": "kept", "dropped": "dropped"}


class Filter(NamedTuple):
    """Which pairs are shown, and in what order. kind: the place of a kind among those that were searched, as text."""

    kind: str = ""
    state: str = ""
    unsafe: str = ""
    safe: str = ""
    order: str = ""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Filter:
        """The filter of a query; words that it does not know are left out."""
        made = cls(**{name: values.get(name, "")[:40] for name in cls._fields})
        known = {"state": made.state in STATES, "order": made.order in ORDERS, "kind": made.kind.isdecimal()}
        return made._replace(**{name: "" for name, is_known in known.items() if not is_known})

    def select(self, pairs: list[Pair], kinds: Mapping[str, str]) -> list[Pair]:
        """The pairs that are meant, in order. kinds: a pair's name → its kind. No score is no reason to show a pair."""
        most, least = number(self.unsafe), number(self.safe)
        found = [
            pair
            for pair in pairs
            if (not self.kind or kinds.get(pair.name) == self.kind)
            and (not self.state or pair.keep == (self.state == "kept"))
            and (most is None or (pair.unsafe_score is not None and pair.unsafe_score <= most))
            and (least is None or (pair.safe_score is not None and pair.safe_score >= least))
        ]
        if self.order == "unsafe":
            return sorted(found, key=lambda pair: (pair.unsafe_score is None, pair.unsafe_score or 0.0))
        if self.order == "safe":
            return sorted(found, key=lambda pair: -(pair.safe_score or 0.0))
        return found


def pair_routes(pages: Pages) -> list[Route]:
    """What the pairs answer to."""
    room = _Room(pages)
    return [
        Route("/pairs", room.overview),
        Route("/pairs/{name}", room.one),
        Route("/pairs/{name}/drop", posted(room.drop), methods=["POST"]),
        Route("/pairs/{name}/undo", posted(room.undo), methods=["POST"]),
    ]


class _Room:
    def __init__(self, pages: Pages) -> None:
        self.pages, self.records = pages, pages.records
        # One drop after the other: the lock of a run tells processes apart, not threads.
        self._writing = threading.Lock()

    def overview(self, request: Request) -> Response:
        kinds, chosen = self._kinds(), Filter.of(request.query_params)
        found = chosen.select(self.records.pairs, kinds)
        page = leaf(found, A_PAGE, request.query_params.get("page"))
        return self.pages(
            "pairs.html.j2",
            room="Pairs",
            filter=chosen._asdict(),
            kinds=[f"{kind.unsafe_prompt} → {kind.safe_prompt}" for kind in self._tries()],
            states=STATES,
            orders=ORDERS,
            pairs=page.shown,
            count=len(found),
            total=len(self.records.pairs),
            kept=sum(pair.keep for pair in self.records.pairs),
            page=page.number,
            pages=page.of,
        )

    def one(self, request: Request) -> Response:
        name, chosen = str(request.path_params["name"]), Filter.of(request.query_params)
        pair = self._pair(name)
        found = chosen.select(self.records.pairs, self._kinds())
        names = [one.name for one in found]
        place = names.index(name) if name in names else None
        last = next((p for p in self.records.pairs if p.name == request.query_params.get("last")), None)
        reasons = Counter(p.reason for p in self.records.pairs if not p.keep and p.reason)
        manifest = self.records.manifest()
        return self.pages(
            "pair.html.j2",
            room="Pairs",
            filter=chosen._asdict(),
            pair=pair,
            place=place,
            count=len(found),
            before=names[place - 1] if place else None,
            after=names[place + 1] if place is not None and place + 1 < len(names) else None,
            ahead=found[place + 1] if place is not None and place + 1 < len(names) else None,
            last=last if last is not None and not last.keep else None,
            reasons=[reason for reason, _ in reasons.most_common(REASONS)],
            finished=manifest is not None and manifest.finished,
            by_hand=BY_HAND,
        )

    def drop(self, request: Request, form: Mapping[str, str]) -> str:
        """Drop a pair, and go on to the next one."""
        name, chosen = str(request.path_params["name"]), Filter.of(request.query_params)
        names = [one.name for one in chosen.select(self.records.pairs, self._kinds())]
        self._change(name, typed(form.get("reason", "")) or None, undo=False)
        rest = names[names.index(name) + 1 :] if name in names else []
        # After the last pair it is shown itself, wherever the filter would put it now.
        return _address(rest[0] if rest else name, chosen, last=name)

    def undo(self, request: Request, _form: Mapping[str, str]) -> str:
        """Take a pair back, and show it."""
        name = str(request.path_params["name"])
        self._change(name, None, undo=True)
        return _address(name, Filter.of(request.query_params))

    def _change(self, name: str, reason: str | None, *, undo: bool) -> None:
        self.pages.check_free()
        self._pair(name)
        with self._writing:
            drop(self.records.run, [name], reason, undo=undo)

    def _pair(self, name: str) -> Pair:
        pair = next((pair for pair in self.records.pairs if pair.name == name), None)
        if pair is None:
            raise Missing("there is no such pair in this run", got=name[:80], hint="/pairs shows those that there are")
        return pair

    def _tries(self) -> list[KindTries]:
        manifest = self.records.manifest()
        return manifest.tries if manifest is not None else []

    def _kinds(self) -> dict[str, str]:
        """A pair's name → the place of its kind, by the templates that its prompts fill; "" for none."""
        templates = tuple((kind.unsafe_prompt, kind.safe_prompt) for kind in self._tries())
        if not templates:
            return {}
        return {pair.name: _kind(templates, pair.unsafe_prompt, pair.safe_prompt) for pair in self.records.pairs}


def _address(name: str, chosen: Filter, **more: str) -> str:
    """Where a pair is shown, among those that are meant."""
    return f"/pairs/{quote(name, safe='', errors='replace')}{query(chosen._asdict(), **more)}"


@functools.lru_cache(maxsize=20_000)
def _kind(templates: tuple[tuple[str, str], ...], unsafe: str | None, safe: str | None) -> str:
    """The place of the first templates that two prompts fill, as text; "" for none."""
    for i, (one, other) in enumerate(templates):
        if _filled(one).fullmatch(unsafe or "") and _filled(other).fullmatch(safe or ""):
            return str(i)
    return ""


@functools.lru_cache(maxsize=1_000)
def _filled(template: str) -> re.Pattern[str]:
    """What a template such as "a {colour} hat" may have become."""
    parts = re.split(r"\{\w+\}", template)
    return re.compile("[^\n]*?".join(re.escape(part) for part in parts), re.DOTALL)
