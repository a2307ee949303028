"""What the benchmarks share: ratios of two ways in one run, the matrix rate of the machine, and what is printed."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch

from duo_unlearn.cli.workers import COMMAND


class Ratio(NamedTuple):
    """One line of a table: the median of a ratio and its middle half. goal: e.g. "≤ 0.25"; "": none.

    What was measured once has no middle half: low and high are the value.
    """

    what: str
    value: float
    low: float
    high: float
    goal: str = ""

    def __str__(self) -> str:
        goal = f"   goal {self.goal}" if self.goal else ""
        half = "" if self.low == self.high else f"   ({self.low:.3f} to {self.high:.3f})"
        return f"{self.what:64}{self.value:8.3f}{half}{goal}"


def ratio(what: str, over: Iterable[tuple[float, float]], goal: str = "") -> Ratio:
    """The ratios a / b of what was measured side by side."""
    found = sorted(a / b for a, b in over)
    return Ratio(what, statistics.median(found), found[len(found) // 4], found[-1 - len(found) // 4], goal)


def report(rows: Sequence[Ratio], facts: dict[str, Any], *, as_json: bool) -> None:
    """Print the rows, and where it is asked for one line of JSON, last, which `benchmarks/all.py` reads."""
    for row in rows:
        print(row)
    if as_json:
        told = [
            {**row._asdict(), **{key: round(getattr(row, key), 4) for key in ("value", "low", "high")}} for row in rows
        ]
        print(json.dumps({**facts, "rows": told}, ensure_ascii=False))


def seconds(way: Callable[[], object]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


def run_duo(*words: str) -> None:
    """Run the command in a process, whose workers have a thread each too; its words are not shown."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMMAND, *words]
    subprocess.run(command, check=True, env=one_thread, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def matrix_rate(device: torch.device, precision: torch.dtype) -> float:
    """Measured operations a second of large matrix products: what no step can be faster than."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=precision) for _ in range(2))
    found = [seconds(lambda: float((a @ b)[0, 0])) for _ in range(10)]
    return 2 * side**3 / statistics.median(found)


def operations(way: Callable[[], object]) -> float:
    """Floating-point operations of a call's matrix products, convolutions and attention, counted."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        way()
    return float(counter.get_total_flops())
