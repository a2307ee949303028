"""Several processes for one command on this machine: a process a GPU, or the cores divided among them.

They share the parts of a run by its claims, as processes that were started by hand do. One that is killed is started
again. What the command itself refuses stops all of them.
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
from .outlook import Outlook

COMMAND: Final = "from duo_unlearn.cli.main import main; main()"
MOST_STARTS: Final = 3
"""How often a process is started that dies."""
MOST_AUTO: Final = 8
"""How many processes there are at most on a CPU when nobody says."""
REFUSED: Final = (1, 2)
"""Exit codes of a command that was not run to its end for a reason of its own."""
PATIENCE: Final = 20.0
"""Seconds that a process has to save its state once it was told to stop."""


def count_of(text: str, gpus: Callable[[], int]) -> int:
    """How many processes `--workers` asks for: a number, or auto, one a GPU or else one a core."""
    if text == "auto":
        return gpus() or min(MOST_AUTO, os.cpu_count() or 1)
    if not text.isdecimal() or int(text) < 1:
        hint = "--workers 2, auto, ray, or the address of a Ray cluster"
        raise DuoError("--workers takes a number of processes", got=text, hint=hint)
    return int(text)


def share(workers: str | None, stages: Mapping[Path, Sequence[Stage]], arguments: Sequence[str]) -> None:
    """Run a command by several processes until all of it is done; None: do nothing. What follows finds it done.

    stages: run folder → what the command makes there; logs are in the first one. arguments: the command's words.
    """
    if workers is None:
        return
    if workers == "ray" or ":" in workers:
        from .ray_crew import share_by_ray

        share_by_ray(workers, list(stages), without_workers(arguments))
        return
    gpus = _gpus()
    count = count_of(workers, lambda: gpus)
    command = [sys.executable, "-c", COMMAND, *without_workers(arguments)]
    environments = [_environment(i, count, gpus) for i in range(count)]
    with progress(f"{count} workers, percent", 100, timed=False) as report:
        outlook = Outlook(stages, report)
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

    logs: a folder; what process i says goes to i.log. look: called every so many seconds. One that dies is started
    again, three times in all. What the command refuses is a DuoError with its words, and the others are stopped.
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
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.starts += 1
        with self.log.open("ab" if self.starts > 1 else "wb") as log:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(self.command, env=environment, stdout=subprocess.DEVNULL, stderr=log)

    def is_at_work(self) -> bool:
        """Whether it still runs; one that died is started again."""
        assert self.process is not None
        code = self.process.poll()
        if code is None or code == 0:
            return code is None
        if code in REFUSED:
            raise _refusal(self.log)
        if self.starts >= MOST_STARTS:
            got = f"exit code {code} after {self.starts} starts"
            raise DuoError("a worker died again and again", got=got, hint=f"what it said is in {self.log}")
        self.start()
        return True


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


def _refusal(log: Path) -> DuoError:
    """What a process said last, as the error that it was."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line.partition(": ") for line in lines]
    found = {name: rest for name, _, rest in told if name in ("Error", "Got", "Try")}
    problem = found.get("Error", "a worker ended before its work was done")
    return DuoError(problem, got=found.get("Got"), hint=found.get("Try", f"what it said is in {log}"))


def _environment(number: int, count: int, gpus: int) -> dict[str, str]:
    """A GPU of its own, or a share of the cores."""
    if gpus:
        return {"CUDA_VISIBLE_DEVICES": str(number % gpus)}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
