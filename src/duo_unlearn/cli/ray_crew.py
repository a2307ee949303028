"""Workers by Ray, on one machine or a cluster: an actor a GPU, or on CPUs an actor for as many cores as a process uses.

Each runs the command that was typed, and has its parts from a hand-out. The run folder, which all share, stays the
truth: through Ray go names of parts and what became of them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import DuoError, Interrupted
from ..progress import progress
from ..records import Stage
from ..runs.hand_out import HandOut
from ..runs.handed import Remaining
from ..runs.work import take_parts_from
from ..storage.files import write_bytes
from .options import say
from .outlook import Outlook, few_parts
from .ray_session import ray_session
from .ray_worker import Ending, Job, Worker, threads_and_device, versions

PATIENCE: Final = 20.0
"""Seconds that the others have to end once one worker has come to the command's end."""


def share_by_ray(
    address: str,
    stages: Mapping[Path, Sequence[Stage]],
    arguments: Sequence[str],
    *,
    device: str = "auto",
    edits: Sequence[str] = (),
) -> None:
    """Run a command by Ray's actors until all of it is done; what follows finds it done.

    address: "ray" for this machine alone, "ray://HOST:PORT" or "HOST:PORT" of a cluster. stages, edits: as `share` has
    them. device: the run's setting; one device by its number is a DuoError. Parts that could not be made stay absent,
    and the command ends with exit code 1.
    """
    if device not in ("auto", "cpu", "cuda"):
        got, hint = f"device {device}", "--device auto, or cpu"
        raise DuoError("Ray gives each worker a device of its own", got=got, hint=hint)
    folders, (threads, used) = list(stages), threads_and_device(device)
    with _marked(folders) as marks, ray_session(address) as ray:
        logs = folders[0].resolve() / "cache" / "workers"
        job = Job(list(arguments), os.getcwd(), marks, versions(), used, str(logs), device)  # noqa: PTH109, as it is spelt
        crew = _Crew(ray, job, threads)
        try:
            with progress("by Ray, percent", 100, timed=False) as report:
                crew.work(Outlook(stages, report, edits=edits))
            take_parts_from(Remaining(crew.absent()))
        except KeyboardInterrupt:
            raise Interrupted("stopped; what was made is kept", hint="the same command goes on") from None
        except ray.exceptions.RayError as error:
            hint = "the same command goes on from what was made"
            raise DuoError("the Ray session ended before the work did", got=_first_line(error), hint=hint) from error
        finally:
            crew.stop()


class _Slot:
    """A place for one worker after the other."""

    def __init__(self, node: str, host: str, number: int) -> None:
        self.node, self.host, self.number = node, host, number
        self.life = 0
        self.by_gpu = False
        self.actor: Any = None
        self.future: Any = None

    @property
    def name(self) -> str:
        """The worker's, of this start; see `hand_out.slot_of`."""
        return f"{self.host}-{self.node[:6]}-{self.number}.{self.life}"


class _Crew:
    """The workers of all machines."""

    def __init__(self, ray: Any, job: Job, threads: int) -> None:
        self.ray, self.job, self.threads = ray, job, threads
        here = self._on(ray.get_runtime_context().get_node_id())
        self.hand_out = ray.remote(HandOut).options(num_cpus=0, scheduling_strategy=here).remote()
        self.slots: dict[str, list[_Slot]] = {}
        self.errors: list[DuoError] = []
        self.has_ended = self.has_told_few = False

    def work(self, outlook: Outlook) -> None:
        """Start workers, and start those again that die, until one has come to the command's end."""
        deadline = None
        while at_work := self._at_work():
            ready, _ = self.ray.wait([slot.future for slot in at_work], timeout=1.0)
            for slot in at_work:
                if slot.future in ready:
                    self._ended(slot)
            self._tell()
            outlook.look()
            if self.has_ended:  # no part is left, so the others end soon
                deadline = deadline or time.monotonic() + PATIENCE
                if time.monotonic() > deadline:
                    break
        outlook.tell()
        if not self.has_ended:
            raise self.errors[0]

    def absent(self) -> dict[tuple[str, str], str]:
        """(run, part) → why it could not be made."""
        found: dict[tuple[str, str], str] = self.ray.get(self.hand_out.absent.remote())
        return found

    def stop(self) -> None:
        """End the workers and the hand-out."""
        with contextlib.suppress(self.ray.exceptions.RayError, ConnectionError, KeyboardInterrupt):
            for actor in [slot.actor for slots in self.slots.values() for slot in slots] + [self.hand_out]:
                if actor is not None:
                    self.ray.kill(actor)

    def _on(self, node: str) -> Any:
        return self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)

    def _at_work(self) -> list[_Slot]:
        """The slots with a worker. Machines that have joined get workers, and those that left lose theirs."""
        alive = {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"]}
        gpus = any(node["Resources"].get("GPU") for node in alive.values())
        by_gpu = gpus and self.job.setting != "cpu"
        if not self.has_ended:
            for node in alive.keys() - self.slots.keys():
                self._open(node, alive[node], by_gpu=by_gpu)
        if not any(self.slots.values()) and not self.errors:
            got = f"{self.threads} threads a process, machines with " + ", ".join(
                f"{node['Resources'].get('CPU', 0):.0f} cores" for node in alive.values()
            )
            hint = "export OMP_NUM_THREADS=1 before the command, for a worker a core"
            raise DuoError("no machine of the cluster has room for a worker", got=got, hint=hint)
        return [slot for slots in self.slots.values() for slot in slots if slot.future is not None]

    def _open(self, node: str, facts: Mapping[str, Any], *, by_gpu: bool) -> None:
        resources, host = facts["Resources"], str(facts["NodeManagerHostname"])
        count = int(resources.get("GPU", 0)) if by_gpu else int(resources.get("CPU", 0)) // self.threads
        self.slots[node] = [_Slot(node, host, number) for number in range(count)]
        for slot in self.slots[node]:
            self._start(slot, by_gpu=by_gpu)
        say(f"Ray: {count} workers on {host}")

    def _start(self, slot: _Slot, *, by_gpu: bool) -> None:
        needs = {"num_gpus": 1, "num_cpus": 0} if by_gpu else {"num_cpus": self.threads}
        environment = {"env_vars": {"OMP_NUM_THREADS": str(self.threads)}}
        slot.life, slot.by_gpu = slot.life + 1, by_gpu
        actor = self.ray.remote(Worker).options(
            **needs, runtime_env=environment, scheduling_strategy=self._on(slot.node), max_restarts=0
        )
        slot.actor = actor.remote()
        slot.future = slot.actor.run.remote(slot.name, self.job, self.hand_out)

    def _ended(self, slot: _Slot) -> None:
        """A worker has ended: well, for a reason of its machine, or because it died, and then it is started again."""
        future, slot.future = slot.future, None
        try:
            ending: Ending = self.ray.get(future)
        except self.ray.exceptions.RayError as error:
            self._died(slot, error)
            return
        self.ray.get(self.hand_out.gone.remote(slot.name, "the worker ended"))
        if ending.error is None:
            self.has_ended = True
            return
        problem, got, hint = ending.error
        refusal = DuoError(problem, got=got, hint=hint)
        if str(refusal) not in [str(one) for one in self.errors]:
            say(f"Ray: the worker {slot.name} ends, the others go on: {' '.join(str(refusal).split())}")
        self.errors.append(refusal)

    def _died(self, slot: _Slot, error: Exception) -> None:
        self.ray.kill(slot.actor)
        reason = f"its worker died: {_first_line(error)} (on {slot.host})"
        goes_on = self.ray.get(self.hand_out.died.remote(slot.name, reason))
        if "No module named 'duo_unlearn'" in str(error):
            self.errors.append(DuoError("duo_unlearn is not installed on a machine", got=slot.host))
        elif all(node["NodeID"] != slot.node or not node["Alive"] for node in self.ray.nodes()):
            self.errors.append(DuoError("a machine left the cluster", got=slot.host))
        elif not goes_on:
            got, hint = _first_line(error), f"what it said is in {self.job.logs}"
            self.errors.append(DuoError("a worker died again and again, and is left out", got=got, hint=hint))
        else:
            say(f"Ray: the worker {slot.name} died and is started again: {_first_line(error)}")
            self._start(slot, by_gpu=slot.by_gpu)
            return
        say(f"Ray: {self.errors[-1].problem}: {slot.name}")

    def _tell(self) -> None:
        told, state = self.ray.get([self.hand_out.news.remote(), self.hand_out.progress.remote()])
        for line in told:
            say(f"Ray: {line}")
        count = sum(map(len, self.slots.values()))
        if not self.has_told_few and (line := few_parts(state.of, count)) is not None:
            self.has_told_few = True
            say(f"Ray: {line}")


@contextlib.contextmanager
def _marked(folders: Sequence[Path]) -> Iterator[list[str]]:
    """A file of a new name in each run folder, by which workers know it; gives their paths."""
    name = f"ray-{secrets.token_hex(8)}"
    paths = [folder.resolve() / "cache" / "workers" / name for folder in folders]
    try:
        for path in paths:
            write_bytes(path, b"")
        yield [str(path) for path in paths]
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
