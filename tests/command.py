"""The command `duo` in a process of its own, by the code that is tested."""

from __future__ import annotations

import subprocess
import sys

from duo_unlearn.cli.workers import COMMAND


def as_process(*words: str) -> list[str]:
    """The words of a process."""
    return [sys.executable, "-c", COMMAND, *words]


def duo(*words: str) -> subprocess.CompletedProcess[str]:
    """The command, run to its end; a failure is told by its return code."""
    return subprocess.run(as_process(*words), capture_output=True, text=True, check=False)
