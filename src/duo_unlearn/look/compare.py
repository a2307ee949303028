"""Comparing: a prompt and a noise, drawn by the original and by a system of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..edits.provenance import edit_names, hashes_below
from ..errors import DuoError
from ..records import ORIGINAL
from .jobs import Job, Jobs
from .pages import Missing, Pages, html, number, posted

LONGEST: Final = 2000
"""How many characters a prompt may have."""
SUGGESTED: Final = 60
"""How many prompts of the run's sets are offered."""
SIDES: Final = ("original", "system")


class Range(NamedTuple):
    """What a number of the form may be. whole: no fraction."""

    low: float
    high: float
    usual: float
    whole: bool = False


NUMBERS: Final = {
    "seed": Range(0, (1 << 32) - 1, 0, whole=True),
    "guidance": Range(0, 30, 5),
    "strength": Range(-4, 4, 1),
    "steps": Range(2, 200, 25, whole=True),
}


def compare_routes(pages: Pages, jobs: Jobs) -> list[Route]:
    """What comparisons answer to."""
    room = _Room(pages, jobs)
    return [
        Route("/compare", room.show, methods=["GET"]),
        Route("/compare", posted(room.begin), methods=["POST"]),
        Route("/compare/stop", posted(room.stop), methods=["POST"]),
        Route("/compare/now", room.now),
        Route("/compare/{job:int}/{side}", room.picture),
    ]


class _Room:
    def __init__(self, pages: Pages, jobs: Jobs) -> None:
        self.pages, self.records, self.jobs = pages, pages.records, jobs

    def show(self, request: Request) -> Response:
        job = self._shown(request)
        usual = {"prompt": "", "system": "", **{name: found.usual for name, found in NUMBERS.items()}}
        return self.pages(
            "compare.html.j2",
            room="Compare",
            values=usual | (job.request if job is not None else {}),
            systems=self._systems(),
            prompts=self._prompts(),
            ranges=NUMBERS,
            **self._values(job),
        )

    def now(self, request: Request) -> Response:
        """The comparison as it is now; 204 where nothing is new."""
        job = self._shown(request)
        if request.query_params.get("mark") == _mark(job):
            return Response(status_code=204)
        return html("comparison.html.j2", headers={"X-Mark": _mark(job)}, **self._values(job))

    def begin(self, _request: Request, form: Mapping[str, str]) -> str:
        """Begin a comparison."""
        prompt = " ".join(form.get("prompt", "").split())
        if not prompt or len(prompt) > LONGEST:
            got = "none" if not prompt else f"{len(prompt)} characters"
            raise DuoError(f"a prompt has 1 to {LONGEST} characters", got=got, hint="type one, or choose one")
        system = form.get("system", "")
        if system not in self._systems():
            known = ", ".join(self._systems()) or "none: `duo erase` makes one"
            raise DuoError("there is no such system in this run", got=system[:80], hint=f"one of {known}")
        chosen: dict[str, Any] = {name: _number(name, form.get(name)) for name in NUMBERS}
        chosen["seed"] = min(chosen["seed"] + (form.get("next") == "seed"), int(NUMBERS["seed"].high))
        self.jobs.begin({"prompt": prompt, "system": system, **chosen})
        return "/compare"

    def stop(self, _request: Request, _form: Mapping[str, str]) -> str:
        """Stop what is being drawn."""
        self.jobs.stop()
        return "/compare"

    def picture(self, request: Request) -> Response:
        """One side of a comparison."""
        job, side = self.jobs.job(int(request.path_params["job"])), str(request.path_params["side"])
        place = SIDES.index(side) if side in SIDES else len(SIDES)
        picture = job.pictures[place] if job is not None and place < len(job.pictures) else None
        if picture is None:
            raise Missing("there is no such picture", got=side[:40], hint="/compare shows those that there are")
        # Not kept by the browser: numbers begin again with every start of the page.
        return Response(picture, media_type="image/png")

    def _shown(self, request: Request) -> Job | None:
        """The comparison that is asked for; else the newest one."""
        asked = request.query_params.get("job", "")
        found = self.jobs.job(int(asked)) if asked.isdecimal() and len(asked) < 9 else None
        return found or next(reversed(self.jobs.history), None)

    def _values(self, job: Job | None) -> dict[str, Any]:
        history = self.jobs.history
        at = history.index(job) if job in history else None
        return {
            "job": job,
            "mark": _mark(job),
            "history": history[::-1],
            "older": history[at - 1] if at else None,
            "newer": history[at + 1] if at is not None and at + 1 < len(history) else None,
        }

    def _systems(self) -> list[str]:
        """The systems that have an edit here, each with what lies below it, or that were asked something."""
        edits = self.records.run.edits
        own = (_whole(edits / name) for name in edit_names(edits))
        asked = (entry.record.group.system for entry in self.records.attempts() if entry.current)
        return [name for name in dict.fromkeys([*own, *asked]) if name != ORIGINAL]

    def _prompts(self) -> list[str]:
        """Some prompts of every set that the run asked, those that ask for the concept first."""
        by_set: dict[tuple[bool, str], dict[str, None]] = {}
        for entry in self.records.attempts():
            place = entry.record.kind != "attack", entry.record.group.scenario
            by_set.setdefault(place, {})[entry.attempt.prompt] = None
        few = max(2, SUGGESTED // max(1, len(by_set)))
        chosen = [prompt for _, prompts in sorted(by_set.items()) for prompt in list(prompts)[:few]]
        return [prompt for prompt in dict.fromkeys(chosen) if prompt][:SUGGESTED]


def _whole(edit: Path) -> str:
    """The system of an edit and what it was made on top of; of the edit alone where it does not say that readably."""
    below: list[str] = []
    with contextlib.suppress(DuoError):
        below = list(hashes_below(edit))
    return "+".join([*below, edit.name])


def _mark(job: Job | None) -> str:
    return f"{job.number}.{job.state}.{job.stage}" if job is not None else ""


def _number(name: str, text: str | None) -> float | int:
    """A number of the form, which must lie in its range."""
    known = NUMBERS[name]
    found = known.usual if text in (None, "") else number(text)
    if found is None or not known.low <= found <= known.high or (known.whole and found != int(found)):
        kind = "a whole number" if known.whole else "a number"
        raise DuoError(
            f"{name} is {kind} from {known.low:g} to {known.high:.12g}", got=(text or "")[:40], hint="change it"
        )
    return int(found) if known.whole else found
