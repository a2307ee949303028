"""Who may speak to the page, and what every answer carries: Host, cookie, Origin, size of a body, security headers."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import DuoError

MOST_BODY: Final = 64 * 1024
"""How many bytes a request may carry: a form of a few lines."""
MOST_PATH: Final = 2000
"""How many characters a path may have: the names of a system, a prompt set and an attack."""
OPEN: Final = "/open"
"""The path of the first URL, which carries the token."""
STATIC: Final = "/static/"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Not no-referrer: with that, browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_MOVE_ON: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>duo look</title>
<link rel="icon" href="/static/icon.svg">
<meta http-equiv="refresh" content="0;url=/"><p><a href="/">Go on to the run</a></p></html>"""
"""A page rather than a redirect: a Strict cookie is not sent along a redirect that a link elsewhere began."""
Refuse = Callable[[DuoError, int], Response]
"""Makes the answer that tells an error, with an HTTP status."""


class Door(NamedTuple):
    """What opens the page. token: of the first URL; secret: the cookie's value. names: further Hosts that are ours.

    remote: whether any IP address is a good Host. No name that others own can point here, so it is no way round.
    """

    cookie: str
    token: str
    secret: str
    names: frozenset[str] = frozenset()
    remote: bool = False

    @classmethod
    def fresh(cls, port: int, names: frozenset[str] = frozenset(), *, remote: bool = False) -> Door:
        """A door with a token and a secret of its own. Cookies do not know ports, so the cookie's name holds it."""
        return cls(f"duo-look-{port}", secrets.token_urlsafe(24), secrets.token_urlsafe(24), names, remote)

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names this machine; the port may be another one's that is forwarded here."""
        name = host_name(host)
        return name in LOOPBACK or name in self.names or (self.remote and _is_address(name))


def host_name(host: str) -> str:
    """The name in a Host header, in small letters, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Gate:
    """ASGI middleware around the whole application. refuse: makes the answer that tells why."""

    def __init__(self, app: ASGIApp, door: Door, refuse: Refuse) -> None:
        self.app, self.door, self.refuse = app, door, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a good request through; any other one is answered here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        guarded = _with_headers(send)
        headers = Headers(scope=scope)
        answer = self._answer(scope, headers)
        body = b""
        if answer is None and scope["method"] == "POST":
            read = await _read_body(receive, headers)
            if read is None:
                got = f"more than {MOST_BODY} bytes"
                answer = self.refuse(DuoError("this is too much to send here", got=got, hint="a shorter text"), 413)
            else:
                body = read
        if answer is not None:
            await answer(scope, receive, guarded)
            return
        await self.app(scope, _replay(body, receive), guarded)

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        """What a request is told here; None for a good one."""
        path, method = scope["path"], scope["method"]
        if len(path) > MOST_PATH:
            return self.refuse(DuoError("this address is too long", got=f"{len(path)} characters"), 414)
        host = headers.get("host", "")
        if not self.door.is_ours(host):
            hint = "open the address that `duo look` printed"
            return self.refuse(DuoError("this page is not served under that name", got=host[:100], hint=hint), 421)
        if method not in ("GET", "HEAD", "POST"):
            return self.refuse(DuoError("this page does not know that method", got=method[:20]), 405)
        if path == OPEN:
            return self._opened(scope)
        if path.startswith(STATIC):
            return None
        if not self._knows(headers):
            problem = "this browser has not opened the run yet"
            hint = "open the whole address that `duo look` printed, with its token"
            return self.refuse(DuoError(problem, got="no valid cookie", hint=hint), 403)
        if method == "POST" and (fault := _origin_fault(headers, host)):
            hint = "send the form from the page itself"
            return self.refuse(DuoError("another page may change nothing here", got=fault, hint=hint), 403)
        return None

    def _opened(self, scope: Scope) -> Response:
        """The cookie for the right token."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self.door.token.encode()):
            hint = "copy the whole address that `duo look` printed; a new start has a new token"
            return self.refuse(DuoError("that token does not open this run", got="another token", hint=hint), 403)
        answer = HTMLResponse(_MOVE_ON, headers={"Cache-Control": "no-store"})
        answer.set_cookie(self.door.cookie, self.door.secret, httponly=True, samesite="strict", path="/")
        return answer

    def _knows(self, headers: Mapping[str, str]) -> bool:
        # Cookies do not know ports, so others of this machine's come along; Starlette passes over what is no cookie.
        given = cookie_parser(headers.get("cookie", "")).get(self.door.cookie, "")
        return hmac.compare_digest(given.encode(), self.door.secret.encode())


def _origin_fault(headers: Mapping[str, str], host: str) -> str | None:
    """Why a POST is not from a page of ours, or None. Browsers send at least one of both headers."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return f"Sec-Fetch-Site {site[:40]}"
    if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        return f"Origin {origin[:100]}"
    if origin is None and site is None:
        return "neither Origin nor Sec-Fetch-Site"
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return None if kind in ("", "application/x-www-form-urlencoded") else f"Content-Type {kind[:60]}"


async def _read_body(receive: Receive, headers: Mapping[str, str]) -> bytes | None:
    """The whole body; None where it is larger than MOST_BODY, of which no more than that is read."""
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BODY:
        return None
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > MOST_BODY:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body which was read already, then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _with_headers(send: Send) -> Send:
    """A `send` that puts the security headers on every answer; pages are not kept unless they say so."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sent
