"""Several processes for one command on this machine: a process a GPU, or the cores divided among them.

They share the parts of a run by its claims, as processes that were started by hand do. One that is killed or crashes
is started again. What the command itself refuses stops all of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import DuoError, Interrupted
from ..progress import progress
from ..records import Stage
from ..runs.work import absent_parts
from .options import say
from .outlook import Outlook

COMMAND: Final = "from duo_unlearn.cli.main import main; main()"
MOST_STARTS: Final = 3
"""How often a process is started that dies."""
MOST_AUTO: Final = 8
"""How many processes there are at most on a CPU when nobody says."""
REFUSED: Final = 1
"""The exit code of a command that was not run to its end for a reason of its own; a crash of Python has the same."""
USAGE: Final = 2
"""The exit code of a command that was typed wrong."""
TRACEBACK: Final = "Traceback (most recent call last)"
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
PATIENCE: Final = 20.0
"""Seconds that a process has to save its state once it was told to stop."""


def count_of(text: str, gpus: Callable[[], int]) -> int:
    """How many processes `--workers` asks for: a number, or auto, one a GPU or else one a core and eight at most."""
    if text == "auto":
        return gpus() or min(MOST_AUTO, os.cpu_count() or 1)
    if not text.isdecimal() or int(text) < 1:
        hint = "--workers 2, auto, ray, or the address of a Ray cluster"
        raise DuoError("--workers takes a number of processes", got=text, hint=hint)
    return int(text)


def share(
    workers: str | None,
    stages: Mapping[Path, Sequence[Stage]],
    arguments: Sequence[str],
    *,
    device: str = "auto",
    edits: Sequence[str] = (),
) -> None:
    """Run a command by several processes until all of it is done; None: do nothing. What follows finds it done.

    stages: run folder → what the command makes there; logs are in the first one. arguments: the command's words.
    device: its setting. edits: those that it makes in each folder, where they are not the run's own alone.
    """
    if workers is None:
        return
    if workers == "ray" or ":" in workers:
        from .ray_crew import share_by_ray

        share_by_ray(workers, stages, without_workers(arguments), device=device, edits=edits)
        return
    gpus = gpus_of(device, os.environ, _gpu_count)
    count = count_of(workers, lambda: len(gpus))
    command = [sys.executable, "-c", COMMAND, *without_workers(arguments)]
    environments = [environment_of(i, count, gpus) for i in range(count)]
    with progress(f"{count} workers, percent", 100, timed=False) as report:
        outlook = Outlook(stages, report, edits=edits, workers=count)
        supervise(command, environments, next(iter(stages)) / "cache" / "workers", outlook.look)
        outlook.tell()


def absence() -> DuoError | None:
    """What the workers could not make, as an error; None: all is made."""
    absent = absent_parts()
    if not absent:
        return None
    (_, part), reason = next(iter(absent.items()))
    hint = "the same command tries them again; all else is done"
    parts = "1 part" if len(absent) == 1 else f"{len(absent)} parts"
    return DuoError(f"{parts} could not be made", got=f"{part}: {reason}", hint=hint)


def without_workers(arguments: Sequence[str]) -> list[str]:
    """A command's words without the option `--workers`."""
    kept, skip = [], False
    for word in arguments:
        if not skip and word != "--workers" and not word.startswith("--workers="):
            kept.append(word)
        skip = word == "--workers"
    return kept


def supervise(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    logs: Path,
    look: Callable[[], None],
    *,
    every: float = 1.0,
) -> None:
    """Run a command once in each environment, until all have ended well.

    logs: a folder; what process i says goes to i.log. look: called every so many seconds. One that dies or crashes is
    started three times in all, and then left out, which is told; that all are is a DuoError. So is what the command
    refuses, with its words, and the others are stopped.
    """
    logs.mkdir(parents=True, exist_ok=True)
    workers = [_Worker(command, environment, logs / f"{i}.log") for i, environment in enumerate(environments)]
    try:
        with _terminable():
            for worker in workers:
                worker.start()
            while sum(worker.is_at_work() for worker in workers):  # not any(): each is looked at, and starts again
                look()
                time.sleep(every)
        errors = [worker.error for worker in workers if worker.error is not None]
        if len(errors) == len(workers):
            raise errors[0]
    except KeyboardInterrupt:
        raise Interrupted("stopped; what was made is kept", hint="the same command goes on") from None
    finally:
        _stop(workers)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM stops this process as Ctrl-C does, so that it reaches the others."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def stop(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Worker:
    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.command, self.environment, self.log = list(command), environment, log
        self.starts = self.begin = 0
        self.error: DuoError | None = None  # why it is left out
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.starts += 1
        with self.log.open("ab" if self.starts > 1 else "wb") as log:
            self.begin = log.tell()
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(self.command, env=environment, stdout=subprocess.DEVNULL, stderr=log)

    def is_at_work(self) -> bool:
        """Whether it still runs; one that died or crashed is started again, or left out."""
        assert self.process is not None
        if self.error is not None:
            return False
        code = self.process.poll()
        if code is None or code == 0:
            return code is None
        said, hint = self._said(), f"what it said is in {self.log}"
        if code in (REFUSED, USAGE) and (refusal := refusal_in(said, hint)) is not None:
            raise refusal
        if code == USAGE:
            raise DuoError("a worker ended before its work was done", got=f"exit code {code}", hint=hint)
        if self.starts >= MOST_STARTS:
            last = f": {said[-1]}" if said else ""
            got = f"exit code {code} after {self.starts} starts{last}"
            self.error = DuoError("a worker died again and again, and is left out", got=got, hint=hint)
            say(f"{self.error.problem}: {got}; {hint}")
            return False
        self.start()
        return True

    def _said(self) -> list[str]:
        """The lines of its log since it was started last."""
        with self.log.open("rb") as log:
            log.seek(self.begin)
            return log.read().decode(errors="replace").splitlines()


def _stop(workers: Sequence[_Worker]) -> None:
    """Tell those that run to stop, give them time to save, and end those that do not.

    SIGTERM, as a shell lets what it starts in the background ignore SIGINT.
    """
    running = [w.process for w in workers if w.process is not None and w.process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def refusal_in(said: Sequence[str], hint: str) -> DuoError | None:
    """The error that a process ended on, by the lines that it said; None: it crashed, which is a traceback or nothing.

    hint: where the error has none.
    """
    crash = max((i for i, line in enumerate(said) if line.startswith(TRACEBACK)), default=-1)
    told = [line.partition(": ") for line in said[crash + 1 :]]
    found = {name: rest for name, _, rest in told if name in ("Error", "Got", "Try")}
    return DuoError(found["Error"], got=found.get("Got"), hint=found.get("Try", hint)) if "Error" in found else None


def gpus_of(device: str, environment: Mapping[str, str], count: Callable[[], int]) -> list[str]:
    """What each process that has a GPU of its own sets CUDA_VISIBLE_DEVICES to; none where the command uses no GPU.

    device: the setting. environment: of this process, whose own list of numbers or UUIDs stands. count: gives how many
    GPUs torch sees.
    """
    kind, _, number = device.partition(":")
    there = count() if kind in ("auto", "cuda") else 0
    known = environment.get(VISIBLE)
    names = [str(i) for i in range(there)] if known is None else [name.strip() for name in known.split(",")][:there]
    # A process that is told the number of a GPU finds it in the whole list.
    return [",".join(names)] if number and names else names


def environment_of(number: int, count: int, gpus: Sequence[str]) -> dict[str, str]:
    """What a process of several has: a GPU of its own, or no GPU and a share of the cores."""
    if gpus:
        return {VISIBLE: gpus[number % len(gpus)]}
    return {VISIBLE: "-1", "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()
