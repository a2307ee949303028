"""A browser that has opened a run, without a browser: Starlette's client, with the headers that browsers send."""

from __future__ import annotations

from starlette.testclient import TestClient

from duo_unlearn.look.app import application
from duo_unlearn.look.gate import Door
from duo_unlearn.look.jobs import Jobs
from duo_unlearn.look.records import Records
from duo_unlearn.runs.folder import Run

__all__ = ["BASE", "TestClient", "door_of", "manifest", "opened", "stranger"]
BASE = "http://127.0.0.1:8765"


def door_of(*, remote: bool = False) -> Door:
    return Door.fresh(8765, remote=remote)


def manifest(run: Run) -> bytes:
    """The list of a run's pairs, byte for byte."""
    return (run.pairs / "manifest.json").read_bytes()


def stranger(run: Run, door: Door | None = None, base: str = BASE) -> TestClient:
    """A client that has not opened the run."""
    return TestClient(
        application(Records(run), door or door_of(), Jobs(run.folder)), base_url=base, follow_redirects=False
    )


def opened(run: Run, base: str = BASE) -> TestClient:
    """A client that has, whose forms come from the page itself."""
    door = door_of()
    client = stranger(run, door, base)
    assert client.get(f"/open?token={door.token}").status_code == 200
    client.headers.update({"Origin": base, "Sec-Fetch-Site": "same-origin"})
    return client
