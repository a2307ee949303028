"""Labels: pictures shown blind, drawn by a judge's verdict, with one key a word; and what the labels say."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ..arena.labelled import read_labelled
from ..errors import DuoError
from ..runs.labels import WORDS, Label, append_label, read_labels
from ..runs.verdicts import Verdicts
from ..storage.files import digest
from .pages import Missing, Pages, posted, typed
from .records import Entry, Records, word

WEIGHTS: Final = {"yes": 2, "no": 2, "broken": 1}
"""How often a verdict is drawn beside the others: the rare ones too, since a judge's errors are counted by its word."""
KEYS: Final = {"yes": "y", "no": "n", "broken": "b"}
AIM: Final = 100
"""How many labels a bar shows as whole: few more tell little more."""


class Drawn(NamedTuple):
    """A picture to label. stratum: the verdict by which it is drawn; None where nobody judged."""

    sha256: str
    stratum: str | None


def label_routes(pages: Pages) -> list[Route]:
    """What the labels answer to."""
    room = _Room(pages)
    return [
        Route("/labels", room.show),
        Route("/labels/agreement", room.agreement),
        Route("/labels/{sha256}", posted(room.say), methods=["POST"]),
    ]


def order_of(records: Records, judge: Verdicts | None) -> list[Drawn]:
    """All pictures that may be labelled, in the order in which everybody is shown them: people label the same ones.

    Within a verdict the order is that of a hash, which is as good as a shuffle and the same on every machine.
    """
    contract = judge.contract if judge is not None else ""
    shas = sorted(records.pool(), key=lambda sha: digest([sha, contract]))
    if judge is None:
        return [Drawn(sha, None) for sha in shas]
    strata: dict[str, list[str]] = {name: [] for name in WORDS}
    for sha in shas:
        if (reading := judge.readings.get(sha)) is not None:
            strata[word(reading.verdict)].append(sha)
    # By lot, not in turn: who knew whose turn it is would know the judge's word.
    lot, found = random.Random(digest(contract)), []
    while left := [name for name, queue in strata.items() if queue]:
        name = lot.choices(left, [WEIGHTS[one] for one in left])[0]
        found.append(Drawn(strata[name].pop(), name))
    return found


class _Room:
    def __init__(self, pages: Pages) -> None:
        self.pages, self.records = pages, pages.records
        self._skipped: set[tuple[str, str]] = set()
        self._order: tuple[list[Entry], Verdicts | None, list[Drawn]] | None = None

    def show(self, request: Request) -> Response:
        """The next picture for a person, or one that is asked for again; first the question who it is."""
        labeller = typed(request.query_params.get("labeller", ""))
        place, judge = self._judge(request.query_params)
        if not labeller:
            names = sorted({label.labeller for label in read_labels(self.records.run)})
            return self.pages("labeller.html.j2", room="Labels", names=names, count=len(self.records.pool()))
        labels = [label for label in read_labels(self.records.run) if label.labeller == labeller]
        mine, drawn = {label.sha256: label.label for label in labels}, self._drawn(judge)
        again = request.query_params.get("again", "")
        wanted = [one for one in drawn if one.sha256 == again] if again else []
        seen = {*mine, *(sha for name, sha in self._skipped if name == labeller)}
        wanted = wanted or [one for one in drawn if one.sha256 not in seen]
        before = request.query_params.get("before") or (labels[-1].sha256 if labels else "")
        known = {one.sha256 for one in drawn}
        return self.pages(
            "label.html.j2",
            room="Labels",
            labeller=labeller,
            judge=place,
            drawn=wanted[0] if wanted else None,
            ahead=wanted[1] if len(wanted) > 1 else None,
            before=before if before in known and before != again else "",
            said=mine.get(again, ""),
            count=len(mine.keys() & known),  # not those of an edit that was made anew
            aim=min(AIM, len(drawn)),
            total=len(drawn),
            skipped=len(seen - {*mine}),
            keys=KEYS,
        )

    def say(self, request: Request, form: Mapping[str, str]) -> str:
        """Write one person's word on a picture, or skip it, and go on. The label is on the disk before the answer."""
        sha256, labeller = str(request.path_params["sha256"]), typed(form.get("labeller", ""))
        place, judge = self._judge(form)
        drawn = next((one for one in self._drawn(judge) if one.sha256 == sha256), None)
        if drawn is None:
            raise Missing("there is no such picture to label", got=sha256[:80], hint="/labels shows the next one")
        if not labeller:
            raise DuoError("a label needs the name of who gives it", hint="type a name on /labels")
        said = form.get("label", "")
        if said == "skip":
            self._skipped.add((labeller, sha256))
        else:
            self.pages.check_free()
            contract = judge.contract if judge is not None and drawn.stratum is not None else None
            entry: dict[str, Any] = {"label": said, "stratum": drawn.stratum, "contract": contract}
            append_label(self.records.run, Label(sha256, labeller=labeller, **entry))
        return f"/labels?{urlencode({'labeller': labeller, 'judge': place, 'before': sha256})}"

    def agreement(self, _request: Request) -> Response:
        """How far people agree, and how often each judge errs by their labels."""
        labelled = read_labelled(self.records.run, self.records.pool())
        if labelled is None:
            return RedirectResponse("/labels", 303)
        for verdicts in self.records.verdicts():
            labelled.beside(verdicts)
        counts: dict[str, dict[str, int]] = {}
        for label in labelled.labels:
            counts.setdefault(label.labeller, dict.fromkeys(WORDS, 0))[label.label] += 1
        return self.pages("agreement.html.j2", room="Labels", told=labelled.as_json(), counts=counts, words=WORDS)

    def _judge(self, values: Mapping[str, str]) -> tuple[int, Verdicts | None]:
        """The judge by whose verdicts pictures are drawn, and its place: the first, unless another is asked for."""
        judges, asked = self.records.verdicts(), values.get("judge", "0")
        place = int(asked) if asked.isdecimal() and len(asked) < 4 else 0
        return (place, judges[place]) if place < len(judges) else (0, next(iter(judges), None))

    def _drawn(self, judge: Verdicts | None) -> list[Drawn]:
        """The order, made again where the attempts or the verdicts have changed."""
        entries, known = self.records.attempts(), self._order
        if known is None or known[0] is not entries or known[1] is not judge:
            known = self._order = entries, judge, order_of(self.records, judge)
        return known[2]
