"""The application: routes, the gate around them, and how an error is told."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..errors import DuoError
from .attempts import attempt_routes
from .compare import compare_routes
from .gate import Door, Gate
from .home import home_routes
from .jobs import Jobs
from .labels import label_routes
from .pages import KEEP, Missing, Pages, refusal, refused
from .pairs import pair_routes
from .pictures import Pictures, Sent
from .records import Records
from .training import training_routes

STATIC: Final = Path(__file__).parent / "static"


def application(records: Records, door: Door, jobs: Jobs) -> ASGIApp:
    """Everything that the page of a run answers to."""
    pictures = Pictures(records)
    pages = Pages(records, are_tiny=lambda: pictures.are_tiny)
    routes: list[BaseRoute] = [
        *home_routes(pages),
        *pair_routes(pages),
        *attempt_routes(pages),
        *label_routes(pages),
        *training_routes(pages),
        *compare_routes(pages, jobs),
        Route("/picture/{sha256}", functools.partial(_picture, pictures)),
        Route("/small/{sha256}", functools.partial(_small, pictures)),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    handlers = {DuoError: refused, HTTPException: _unknown, Exception: _failed}
    inner = Starlette(routes=routes, exception_handlers=handlers)
    inner.router.redirect_slashes = False
    return Gate(inner, door, refusal)


def _picture(pictures: Pictures, request: Request) -> Response:
    return _sent(pictures.whole(_id_of(request)))


def _small(pictures: Pictures, request: Request) -> Response:
    return _sent(pictures.small(_id_of(request)))


def _id_of(request: Request) -> str:
    sha256 = str(request.path_params["sha256"])
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise Missing("a picture is named by its SHA-256", got=sha256[:80], hint="open it from its page")
    return sha256


def _sent(picture: Sent) -> Response:
    return Response(picture.content, media_type=picture.kind, headers=KEEP)


def _unknown(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    problem = "there is no such page" if status == 404 else "that cannot be asked of this page"
    return refusal(DuoError(problem, got=f"{request.method} {request.url.path}"[:200], hint="go back to /"), status)


def _failed(_request: Request, error: Exception) -> Response:
    got = f"{type(error).__name__}: {error}"[:200]
    return refusal(DuoError("the page failed", got=got, hint="the run was not changed; the terminal says more"), 500)
