"""Ray nodes of this machine as processes of their own, and what runs in them, for the tests of workers by Ray."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

MARK: Final = "DUO_TEST_MARK"
"""The variable by which a test knows its processes: all that it starts have it."""
START: Final = "from ray.scripts.scripts import main; main()"


def environment(mark: str, **more: str) -> dict[str, str]:
    """For a process of a test, whose children have one thread each."""
    return {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1", "TMPDIR": "/tmp", **more}


def processes(mark: str, command: str = "") -> list[int]:
    """The processes with a mark, those whose command line has some words."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command in words:
                    found.append(int(folder.name))
    return sorted(found)


def with_children(pids: list[int]) -> list[int]:
    """Processes and all that came of them: Ray's agents write their title over the variables that have the mark."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal():
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = set(pids), set(pids)
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return sorted(found)


def environ(pid: int) -> dict[str, str]:
    """The variables that a process was started with."""
    words = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def listeners(pids: list[int]) -> set[str]:
    """The ports that processes listen on, in hexadecimal as /proc/net tells them."""
    nodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    nodes.add(str(handle.readlink()))
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {line[1].partition(":")[2] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in nodes}


def kill(pids: list[int]) -> None:
    """End processes at once."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for(true: Callable[[], object], process: subprocess.Popen[str], seconds: float = 300) -> None:
    """Wait until something is so, or a process has ended."""
    deadline = time.monotonic() + seconds
    while not true() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Nodes:
    """A head with one core and another node with one core. port, client: where the head is asked."""

    def __init__(self, mark: str, token: str) -> None:
        self.mark, self.port, self.client = mark, free_port(), free_port()
        self.variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        self.folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        here = ["--node-ip-address=127.0.0.1", f"--port={self.port}", f"--ray-client-server-port={self.client}"]
        self._start("head", ["--head", "--include-dashboard=false", f"--temp-dir={self.folder}", *here])
        self._start("other", [f"--address=127.0.0.1:{self.port}", "--node-ip-address=127.0.0.2"])

    def _start(self, name: str, words: list[str]) -> None:
        common = ["start", "--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000", "--disable-usage-stats"]
        done = subprocess.run(
            [sys.executable, "-c", START, *common, *words],
            env=environment(self.mark + name, **self.variables), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def kill_other(self) -> None:
        """As a power cut of the node that is no head."""
        kill(with_children(processes(self.mark + "other")))

    def said(self) -> str:
        """What the server for clients said: its files end with the nodes."""
        files = sorted(Path(self.folder).glob("session_2*/logs/ray_client_server*.err"))
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in files)

    def close(self) -> None:
        """End both, and remove what they wrote."""
        kill(with_children(processes(self.mark + "other") + processes(self.mark + "head")))
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def two_nodes(mark: str, token: str) -> Iterator[Nodes]:
    """Two nodes while the block runs."""
    nodes = Nodes(mark, token)
    try:
        yield nodes
    finally:
        nodes.close()
