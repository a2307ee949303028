"""Templates, and what every page has: the run's name, the rooms, whether another process holds the run."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qs, quote, urlencode

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ..errors import DuoError
from ..progress import clock
from ..report.html import environment_of
from .jobs import Busy
from .records import Records

Thing = TypeVar("Thing")
ROOMS: Final = (
    ("Pairs", "/pairs"),
    ("Attempts", "/attempts"),
    ("Labels", "/labels"),
    ("Training", "/training"),
    ("Compare", "/compare"),
)
KEEP: Final = {"Cache-Control": "private, max-age=86400, immutable"}
"""For pictures: what lies at their address never changes."""
LONGEST: Final = 200
"""How many characters of a text that is typed are taken: a reason, a name."""


class Missing(DuoError):
    """What a request names is not there: status 404."""


class ReadOnly(DuoError):
    """Another process holds the run, so nothing is changed: status 409."""


class Pages:
    """Makes the pages of one run."""

    def __init__(self, records: Records, *, are_tiny: Callable[[], bool]) -> None:
        self.records, self.are_tiny = records, are_tiny

    def __call__(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page from its template."""
        records = self.records
        usual = {
            "run": records.run.folder.resolve().name,
            "folder": str(records.run.folder),
            "rooms": ROOMS,
            "concept": records.concept,
            "sensitive": records.sensitive,
            "holder": records.holder(),
            "tiny": self.are_tiny(),
        }
        return html(template, status, **{**usual, **values})

    def check_free(self) -> None:
        """Fail while another process holds the run."""
        if (holder := self.records.holder()) is not None:
            hint = "wait until it has ended; everything may be looked at meanwhile"
            got = f"{holder}: {holder.command}"[:160]
            raise ReadOnly("another process works on this run, so nothing is changed", got=got, hint=hint)


def html(template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> HTMLResponse:
    """A template's text. Half a surrogate, which JSON may hold and UTF-8 cannot, becomes a question mark."""
    text = environment().get_template(template).render(values)
    return HTMLResponse(text.encode(errors="replace"), status, headers)


def refusal(error: DuoError, status: int) -> Response:
    """A page that tells an error in the house's three lines, and nothing of the run."""
    return html("error.html.j2", status, error=error)


def refused(_request: Request, error: Exception) -> Response:
    """The answer to a DuoError in a page."""
    assert isinstance(error, DuoError)
    return refusal(error, 404 if isinstance(error, Missing) else 409 if isinstance(error, ReadOnly | Busy) else 400)


def posted(act: Callable[[Request, Mapping[str, str]], str]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for a form. act: does what it asks, in a thread, and gives the path to go on to."""

    async def endpoint(request: Request) -> Response:
        body = (await request.body()).decode(errors="replace")
        try:
            entries = parse_qs(body, keep_blank_values=True, max_num_fields=40)
        except ValueError as error:
            raise DuoError("this form has too many fields", hint="send it from the page") from error
        path = await run_in_threadpool(act, request, {name: values[-1] for name, values in entries.items()})
        return RedirectResponse(path, 303)

    return endpoint


def typed(text: str) -> str:
    """A text that a person typed: on one line, without what cannot be seen, at most LONGEST characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:LONGEST].rstrip()


def number(text: str | None) -> float | None:
    """A number that was typed; None for none, or for what is no number."""
    try:
        found = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return found if abs(found) < 1e9 else None


class Leaf(NamedTuple, Generic[Thing]):
    """One page of an overview. number, of: this page and how many there are, counted from 1."""

    shown: Sequence[Thing]
    number: int
    of: int


def leaf(things: Sequence[Thing], size: int, asked: str | None) -> Leaf[Thing]:
    """The page that a query asks for, or the nearest that there is; the first where it asks for none."""
    pages = max(1, -(-len(things) // size))
    found = int(asked) if asked and asked.isdecimal() and len(asked) < 7 else 1
    place = max(1, min(found, pages))
    return Leaf(things[(place - 1) * size : place * size], place, pages)


def query(values: Mapping[str, Any], **changes: Any) -> str:
    """A query with some values changed, without the empty ones: "?page=2", or ""."""
    merged = {k: v for k, v in {**values, **changes}.items() if v not in (None, "")}
    return f"?{urlencode(merged, errors='replace')}" if merged else ""


@functools.cache
def environment() -> jinja2.Environment:
    """What renders the pages."""
    return environment_of(
        __package__,
        "templates",
        {
            "quoted": lambda text: quote(str(text), safe="", errors="replace"),
            "score": score,
            "clock": clock,
            "query": query,
            "enumerated": enumerated,
        },
    )


def enumerated(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Texts with their places, for a choice."""
    return [(str(i), text) for i, text in enumerate(texts)]


def score(value: float | None) -> str:
    """A detector's score as people read it."""
    if value is None:
        return "–"
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.1e}"
