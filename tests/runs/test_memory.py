"""Freed blocks are kept: the same work asks the system for fewer pages."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from duo_unlearn.runs.machine import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
x = torch.ones(64, 64, 64, 64)  # above the 32 MB that glibc learns to keep by itself
def work():
    for _ in range(10):
        (x * 2).relu() + x
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has the call")
def test_freed_blocks_are_kept() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    faults = {}
    for how in ("plain", "keep"):
        command = [sys.executable, "-c", SCRIPT, how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    assert faults["keep"] < faults["plain"] / 2, faults
