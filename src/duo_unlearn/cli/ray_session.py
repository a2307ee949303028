"""A Ray session: of this machine alone, or of a cluster. The only module that imports Ray.

Ray sends usage reports, serves a dashboard and asks for no token unless it is told otherwise, and it is told here.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Final

from ..errors import DuoError

ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # or `uv run duo` would be run again in every worker
}
"""What Ray reads when it is imported. Variables that are set already are kept."""
LOCAL: Final = "ray"
"""The address of a session of this machine alone."""
ADDRESSES: Final = "HOST:6379 on a machine of the cluster, ray://HOST:10001 from elsewhere"
OLDEST: Final = (2, 52)
"""The oldest Ray that is taken: with an older one a web page could run code by the dashboard."""
STORE: Final = 80 * 2**20
"""Bytes of the object store, about the least that Ray takes: nothing of size goes through it."""


def ray_module() -> Any:
    """Ray, with its telemetry off and its tokens on; where it is missing or too old a DuoError says how to get it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        hint = "pip install 'duo_unlearn[ray]', the same version on every machine; `--workers auto` needs none"
        raise DuoError("`--workers ray` needs Ray", got=str(error), hint=hint) from error
    if tuple(map(int, re.findall(r"\d+", ray.__version__)[:2])) < OLDEST:
        hint = "pip install --upgrade 'duo_unlearn[ray]', the same version on every machine"
        raise DuoError("with Ray before 2.52 a web page could run code on this machine", got=ray.__version__, hint=hint)
    return ray


@contextlib.contextmanager
def ray_session(address: str) -> Iterator[Any]:
    """Ray, connected. A session of this machine is new, and has a token of its own: Ray listens on every network."""
    handler = signal.getsignal(signal.SIGTERM)  # Ray takes its place
    if address == LOCAL:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray, folder = ray_module(), None
    given: dict[str, Any] = {"address": address}
    if address != LOCAL:
        _check_address(address)
    else:
        # The path of a socket has at most 107 letters, so a long TMPDIR would not do. Windows has no sockets by path.
        folder = tempfile.mkdtemp(prefix="duo-", dir=None if os.name == "nt" else "/tmp")
        given = {"address": "local", "include_dashboard": False, "_temp_dir": folder, "object_store_memory": STORE}
    try:
        ray.init(**given, log_to_driver=False, logging_level="ERROR")
        yield ray
    except (OSError, RuntimeError, ValueError, TimeoutError, ray.exceptions.AuthenticationError) as error:
        if ray.is_initialized():
            raise
        raise _refusal(address, error) from error
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _check_address(address: str) -> None:
    """Fail at once where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        got = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DuoError(f"there is no Ray cluster at {address}", got=got, hint=ADDRESSES) from error


def _refusal(address: str, error: Exception) -> DuoError:
    """Why there is no connection, in our words."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    text = " ".join(" ".join(map(str, causes)).split())
    if "ersion mismatch" in text:
        hint = f"here are Ray {version('ray')} and Python {platform.python_version()}: the same on every machine"
        return DuoError(f"the cluster at {address} has another Ray or Python", got=text[:200], hint=hint)
    hint = "its token in RAY_AUTH_TOKEN or ~/.ray/auth_token, or RAY_AUTH_MODE=disabled if it has none"
    if "token" in text.lower():
        return DuoError(f"the Ray cluster at {address} wants another token", got=str(error)[:200], hint=hint)
    return DuoError(f"no connection to the Ray cluster at {address}", got=text[:200], hint=f"{ADDRESSES}; {hint}")
