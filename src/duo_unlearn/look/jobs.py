"""Comparisons, one at a time in a process of their own, which holds the model and can be stopped."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, Literal

from ..errors import DuoError

MOST: Final = 40
"""How many comparisons are kept; older ones are forgotten with their pictures."""


class Busy(DuoError):
    """A comparison is being drawn: status 409."""


@dataclasses.dataclass
class Job:
    """A comparison. request: what `arena.samples.compared` takes. pictures: PNG files, None where a guard refused.

    phase: what is being done, stage: how many phases have begun, of three. error: problem, got and hint.
    """

    number: int
    request: dict[str, Any]
    state: Literal["running", "done", "stopped", "failed"] = "running"
    phase: str = "starting"
    stage: int = 0
    pictures: list[bytes | None] = dataclasses.field(default_factory=list)
    error: list[str | None] = dataclasses.field(default_factory=list)
    began: float = dataclasses.field(default_factory=time.monotonic)
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended or time.monotonic()) - self.began

    def end(self, state: Literal["done", "stopped", "failed"]) -> None:
        """Note how it ended."""
        self.state, self.ended = state, time.monotonic()


class Jobs:
    """The comparisons of one run since the page was started, the newest last. Nothing of them is written to the run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.history = folder, list[Job]()
        self._lock, self._count = threading.Lock(), 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> Job | None:
        """The comparison that is being drawn."""
        return next((job for job in self.history if job.state == "running"), None)

    def job(self, number: int) -> Job | None:
        """A comparison by its number."""
        return next((job for job in self.history if job.number == number), None)

    def begin(self, request: dict[str, Any]) -> Job:
        """Begin a comparison; Busy while another one is being drawn."""
        with self._lock:
            if self.running is not None:
                raise Busy("one comparison at a time", got="another one is being drawn", hint="wait, or stop it first")
            process = self._started()
            self._count += 1
            job = Job(self._count, request)
            self.history = [*self.history, job][-MOST:]
            threading.Thread(target=self._follow, args=(job, process), daemon=True).start()
        return job

    def stop(self) -> None:
        """Stop what is being drawn. Its process is ended, and the next comparison loads the model again."""
        with self._lock:
            if (job := self.running) is not None:
                job.end("stopped")
            self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError, ValueError):
                    assert pipe is not None
                    pipe.close()
        self._process = None

    def _started(self) -> subprocess.Popen[str]:
        """The process that samples, started where there is none."""
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-m", "duo_unlearn.look.worker", str(self.folder)]
            pipe = subprocess.PIPE
            # In a session of its own, on Windows a group: Ctrl-C is the page's, which then ends it.
            apart: dict[str, Any] = {"start_new_session": True}
            apart["creationflags"] = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8", **apart)
        return self._process

    def _follow(self, job: Job, process: subprocess.Popen[str]) -> None:
        """Send a job, and take what its process answers until it is done."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job.request) + "\n")
            process.stdin.flush()
            while job.state == "running" and (line := process.stdout.readline()):
                self._take(job, json.loads(line))
        except (OSError, ValueError):
            pass  # it was stopped, or has ended
        if job.state == "running":
            job.error = ["the process that draws has ended", f"status {process.poll()}", "the terminal may say why"]
            job.end("failed")

    @staticmethod
    def _take(job: Job, answer: dict[str, Any]) -> None:
        if "phase" in answer:
            job.phase, job.stage = str(answer["phase"]), job.stage + 1
        elif "error" in answer:
            job.error = list(answer["error"])
            job.end("failed")
        else:
            job.pictures = [None if text is None else base64.b64decode(text) for text in answer["pictures"]]
            job.end("done")
