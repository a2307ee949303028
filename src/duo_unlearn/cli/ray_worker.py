"""A worker by Ray: an actor that checks its machine, and runs the command that was typed with parts from a hand-out."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import DuoError
from ..runs.hand_out import Answer, Part, Stage
from ..runs.handed import Handed
from ..runs.work import parts_from
from .ray_session import ray_module

MATCHED: Final = ("ray", "duo_unlearn", "torch")
"""Packages that must have the same version on every machine."""


class Job(NamedTuple):
    """What a worker does. directory: where the command was typed. marks: a file in each run folder.

    versions, device: of the process that started it. logs: the folder for what it says. setting: the run's for the
    device.
    """

    arguments: list[str]
    directory: str
    marks: list[str]
    versions: dict[str, str]
    device: str
    logs: str
    setting: str = "auto"


class Ending(NamedTuple):
    """How a worker's command ended. error: (problem, got, hint) where this worker cannot do it, though others may."""

    error: tuple[str, str | None, str | None] | None = None


class Worker:
    """An actor: a process that runs the command once."""

    def run(self, name: str, job: Job, hand_out: Any) -> Ending:
        """Run the command with parts from the hand-out. An error that is no DuoError ends the process."""
        try:
            _check(job)
            from .main import run_command

            with contextlib.ExitStack() as stack:
                path = Path(job.logs) / f"{name}.log"
                log = stack.enter_context(path.open("a", buffering=1, encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stderr(log))
                nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
                stack.enter_context(parts_from(Handed(RayChannel(name, hand_out))))
                run_command(job.arguments)
        except DuoError as error:
            return Ending((error.problem, error.got, error.hint))
        return Ending()


def _check(job: Job) -> None:
    """Fail where this machine cannot do the job."""
    there = versions()
    if different := [name for name, one in job.versions.items() if there.get(name) != one]:
        got = ", ".join(f"{name} {there.get(name, 'absent')} and not {job.versions[name]}" for name in different)
        raise DuoError("another version than where the command was started", got=got, hint="the same on every machine")
    try:
        os.chdir(job.directory)
    except OSError as error:
        hint = "start the command in a folder that every machine has, e.g. on the shared file system"
        raise DuoError(f"no folder {job.directory} here", got=error.strerror, hint=hint) from error
    for mark in job.marks:
        if not Path(mark).is_file():
            hint = "put it on a file system that every machine has under the same path"
            raise DuoError("the run folder is not shared with this machine", got=str(Path(mark).parents[2]), hint=hint)
    device = threads_and_device(job.setting)[1]
    if device != job.device:
        got = f"{device} here, {job.device} where the command was started"
        hint = "start it on a machine of the workers' kind: in half precision a CPU's parts have other keys"
        raise DuoError("this machine is of another kind", got=got, hint=hint)


class RayChannel:
    """A worker's calls to a hand-out that is an actor of Ray's."""

    def __init__(self, name: str, hand_out: Any) -> None:
        self.name, self.hand_out = name, hand_out

    def _call(self, method: str, *arguments: Any) -> Any:
        return ray_module().get(getattr(self.hand_out, method).remote(*arguments))

    def ask(self, stage: Stage) -> Answer:
        """What to do next."""
        answer: Answer = self._call("ask", self.name, stage)
        return answer

    def post(self, stage: Stage, missing: list[Part]) -> None:
        """Say what is missing."""
        self._call("post", stage, missing)

    def done(self, stage: Stage, part: str) -> None:
        """The part is made."""
        self._call("done", self.name, stage, part)

    def put_back(self, stage: Stage, part: str) -> None:
        """Another process has claimed it, or what it needs."""
        self._call("put_back", self.name, stage, part)

    def failed(self, stage: Stage, part: str, reason: str) -> None:
        """It could not be made."""
        self._call("failed", self.name, stage, part, reason)

    def absent(self) -> Mapping[tuple[str, str], str]:
        """(run, part) → why nobody could make it."""
        found: dict[tuple[str, str], str] = self._call("absent")
        return found


def versions() -> dict[str, str]:
    """What must be the same on every machine."""
    found = {"python": platform.python_version()}
    for name in MATCHED:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def threads_and_device(setting: str = "auto") -> tuple[int, str]:
    """How many threads a process has on a CPU, and where it computes under a setting for the device."""
    import torch

    return torch.get_num_threads(), "cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu"
