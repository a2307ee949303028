"""The first page: how the run stands, and what there is to look at."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import DuoError
from ..records import Pair
from ..report.status import Status
from ..runs.labels import read_labels
from .pages import Pages


def home_routes(pages: Pages) -> list[Route]:
    """The first page."""
    return [Route("/", _Home(pages).show)]


class _Home:
    def __init__(self, pages: Pages) -> None:
        self.pages, self.records = pages, pages.records

    def show(self, _request: Request) -> Response:
        records, faults = self.records, list[DuoError]()
        pairs: list[Pair] = []
        labelled = 0
        try:
            pairs = records.pairs
        except DuoError as error:
            faults.append(error)
        try:
            labelled = len({label.sha256 for label in read_labels(records.run)})
        except DuoError as error:
            faults.append(error)
        counts = {
            "pairs": len(pairs),
            "dropped": sum(not pair.keep for pair in pairs),
            "attempts": len(records.attempts()),
            "judges": len(records.verdicts()),
            "labelled": labelled,
        }
        stand: Status | None = None
        try:
            stand = records.stand()
        except DuoError as error:
            faults.append(error)
        return self.pages("home.html.j2", stand=stand, counts=counts, faults=faults)
