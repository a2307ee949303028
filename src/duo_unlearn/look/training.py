"""The curves of a run's trainings, which go on while the page is open: it asks again, and is told what is new."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..erasers.preview_files import preview_file, preview_prompts, preview_steps
from ..errors import DuoError
from ..report.read import curve
from ..storage.files import read_bytes
from .pages import Missing, Pages, html
from .pictures import MOST_BYTES
from .records import Cached, mark_of

COLOURS: Final = """<style>
svg { --ink: #1c1f24; --muted: #5a616b; --line: #dfe2e6; --system-1: #1f62b0; --system-2: #b8461a;
font-family: system-ui, sans-serif }
@media (prefers-color-scheme: dark) {
svg { --ink: #e7e9ec; --muted: #a3abb6; --line: #343a42; --system-1: #77b0f2; --system-2: #f0946a } }
</style>"""
"""The page's colours for a plot that is a picture of its own: the page's style does not reach into it."""
TOLD: Final = ("loss", "preference", "prior", "accuracy", "lr", "pairs_per_second")
"""What is told in numbers of the last step, where a training writes it."""


class Training(NamedTuple):
    """One edit's training. steps: that were written; last: name → value of the last one. captions: one a plot.

    previews: the steps that have pictures, the last one first, and the prompts of those, from left to right. best: what
    the held-out pairs say.
    """

    name: str
    steps: int
    last: Sequence[tuple[str, float]]
    captions: list[str]
    previews: list[int]
    prompts: list[str]
    best: str | None


def training_routes(pages: Pages) -> list[Route]:
    """What the trainings answer to."""
    room = _Room(pages)
    return [
        Route("/training", room.show),
        Route("/training/now", room.now),
        Route("/training/{name}/{plot:int}.svg", room.plot),
        Route("/training/{name}/previews/{step:int}.png", room.preview),
    ]


class _Room:
    def __init__(self, pages: Pages) -> None:
        self.pages, self.run = pages, pages.records.run
        self._known: dict[str, Cached[tuple[list[dict[str, float]], list[tuple[str, str]]]]] = {}
        # matplotlib's settings are one for all threads.
        self._drawing = threading.Lock()

    def show(self, _request: Request) -> Response:
        values, mark = self._values(), self._mark()
        return self.pages("training.html.j2", room="Training", mark=mark, **values)

    def now(self, request: Request) -> Response:
        """The same part of the page as it is now; 204 where nothing is new."""
        mark = self._mark()
        if request.query_params.get("mark") == mark:
            return Response(status_code=204)
        return html("curves.html.j2", headers={"X-Mark": mark}, **self._values())

    def plot(self, request: Request) -> Response:
        name, place = str(request.path_params["name"]), int(request.path_params["plot"])
        plots = self._read(name)[1] if name in self._paths() else []
        if place >= len(plots):
            raise Missing("there is no such curve", got=name[:80], hint="/training shows those that there are")
        return Response(plots[place][0], media_type="image/svg+xml")

    def preview(self, request: Request) -> Response:
        """The pictures of a step, side by side."""
        name, step = str(request.path_params["name"]), int(request.path_params["step"])
        if name not in self._paths() or step not in preview_steps(self.run.previews(name)):
            raise Missing("there is no such preview", got=f"{name}, step {step}"[:80], hint="/training shows all")
        path = preview_file(self.run.previews(name), step)
        return Response(read_bytes(path, "picture", MOST_BYTES), media_type="image/png")

    def _paths(self) -> dict[str, Path]:
        """An edit's name → where its training writes."""
        pattern = self.run.metrics("*").relative_to(self.run.folder)
        return {path.parent.name: path for path in sorted(self.run.folder.glob(str(pattern)))}

    def _mark(self) -> str:
        """Changes when a training has written a line, or a process has come or gone."""
        pictures = [self.run.previews(name) for name in self._paths()]
        mark: Hashable = (mark_of(*self._paths().values(), *pictures), self.pages.records.holder())
        return hashlib.sha256(repr(mark).encode()).hexdigest()[:16]

    def _values(self) -> dict[str, Any]:
        from ..report.curves import held_out_note

        found = []
        for name in self._paths():
            lines, plots = self._read(name)
            if lines:
                last = [(key, lines[-1][key]) for key in TOLD if key in lines[-1]]
                captions = [caption for _, caption in plots]
                steps = preview_steps(self.run.previews(name))[::-1]
                prompts = preview_prompts(self.run.previews(name))
                best = held_out_note(lines)
                found.append(Training(name, int(lines[-1]["step"]), last, captions, steps, prompts, best))
        work = None
        with contextlib.suppress(DuoError):  # a broken part of the run, which the first page tells
            work = next(work for work in self.pages.records.stand().stages if work.name == "train")
        return {"trainings": found, "work": work, "holder": self.pages.records.holder()}

    def _read(self, name: str) -> tuple[list[dict[str, float]], list[tuple[str, str]]]:
        """The lines of a training that are whole, and its plots: an SVG file and a caption each."""
        path = self.run.metrics(name)
        known = self._known.setdefault(name, Cached(lambda: mark_of(path), lambda: self._drawn(path)))
        return known()

    def _drawn(self, path: Path) -> tuple[list[dict[str, float]], list[tuple[str, str]]]:
        from ..report.curves import curve_plots

        lines = curve(path)
        with self._drawing:
            plots = curve_plots(lines, "curve") if lines else []
        return lines, [(_file(plot.svg), plot.caption) for plot in plots]


def _file(svg: str) -> str:
    """An SVG element for a page as a file of its own."""
    opening, rest = svg.split(">", 1)
    return f'{opening} xmlns="http://www.w3.org/2000/svg">{COLOURS}{rest}'
