"""Serving the page of a run on this machine until it is stopped."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable
from typing import Any, Final

import uvicorn

from ..errors import DuoError
from ..runs.folder import Run
from .app import application
from .gate import LOOPBACK, OPEN, Door
from .jobs import Jobs
from .records import Records

PORT: Final = 8765
"""The port that is taken where none is asked for; another free one where it is in use."""
WARNING: Final = (
    "warning: whoever reaches this address and learns the token sees every picture, and nothing on the way is "
    "encrypted. Safer: without --allow-remote, and on your own machine `ssh -L {port}:localhost:{port} THIS_MACHINE`"
)


def serve(
    run: Run, *, host: str = "127.0.0.1", port: int | None = None, remote: bool = False, browser: bool = False,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Serve a run until Ctrl-C. The first URL, which holds the token, is printed on standard output.

    DuoError: the address is not this machine's alone and `remote` was not given, or the port is in use.
    """
    check_run(run)
    check_host(host, remote=remote)
    listener = listen(host, port)
    there = int(listener.getsockname()[1])
    door = Door.fresh(there, own_names(host) if remote else frozenset({host.lower()}), remote=remote)
    if remote:
        say(WARNING.format(port=there))
    records = Records(run)
    # Read while the address is on its way to a browser.
    threading.Thread(target=records.warm, daemon=True).start()
    quiet: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
    }
    jobs = Jobs(run.folder)
    config = uvicorn.Config(application(records, door, jobs), lifespan="off", ws="none", **quiet)
    url = f"http://{_shown(host)}:{there}{OPEN}?token={door.token}"
    print(url, flush=True)
    say("open that address; Ctrl-C ends it")
    if browser:
        webbrowser.open(url)
    for name in ("SIGTERM", "SIGHUP"):  # uvicorn hands these on when it has closed, or knows nothing of them
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), _leave)
    with contextlib.closing(jobs), contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    say("closed")


def _leave(_number: int, _frame: object) -> None:
    """End the process by way of its `finally` parts, so that the process that draws ends too."""
    raise SystemExit(0)


def check_run(run: Run) -> None:
    """Fail for a folder that is no run."""
    run.check_form()
    if not run.is_there:
        raise run.no_run(f"duo erase -o {run.argument}")


def check_host(host: str, *, remote: bool) -> None:
    """Fail for an address that other machines reach, unless that was asked for; and where they do not, if it was."""
    is_alone = host in LOOPBACK or _is_loopback(host)
    if remote and is_alone:
        hint = "--host 0.0.0.0, or this machine's own address"
        raise DuoError("other machines cannot reach this address", got=f"--allow-remote, --host {host}", hint=hint)
    if remote or is_alone:
        return
    hint = "leave --host out, and use `ssh -L` from another machine; or add --allow-remote"
    raise DuoError("other machines could reach this page, and see every picture", got=f"--host {host}", hint=hint)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_names(host: str) -> frozenset[str]:
    """The names under which other machines may know this one."""
    return frozenset(name.lower() for name in (host, socket.gethostname(), socket.getfqdn()) if name)


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket. port: None takes PORT, or a free one where that is in use."""
    if port is not None:
        return _bound(host, port)
    try:
        return _bound(host, PORT)
    except DuoError:
        return _bound(host, 0)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # With its protocol named, asyncio turns Nagle's algorithm off: an answer is 40 ms faster.
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port))
            found.listen(128)
        except OSError:
            found.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "another --port, or none: then a free one is taken; or end what uses it, perhaps another `duo look`"
            raise DuoError(f"port {port} is in use", got=f"{host}:{port}", hint=hint) from error
        hint = "another --host or --port; ports below 1024 are the system's"
        raise DuoError(f"cannot serve on {host}:{port}", got=error.strerror or str(error), hint=hint) from error
    return found


def _shown(host: str) -> str:
    """A host as a browser on this machine reaches it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
