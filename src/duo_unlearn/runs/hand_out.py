"""A hand-out of parts: which one a worker that asks makes next, what is over, and what cannot be made.

It is plain Python without a clock, a file or a network, so a simulation drives it as a cluster does.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from typing import Final, Literal, NamedTuple

MOST_FAILURES: Final = 2
"""How often a part is tried that fails, or whose worker dies over it."""
MOST_DEATHS: Final = 3
"""How many workers of one slot may die with no part made between. A slot is a GPU, or some cores, of one machine."""


def slot_of(worker: str) -> str:
    """The slot of a worker, which is named SLOT.LIFE: the one that is started in its place has another life."""
    return worker.rpartition(".")[0] or worker


class Stage(NamedTuple):
    """Some parts that all workers finish before any of them goes on. name: the same in each worker.

    run: the run folder, as parts of two runs have the same names.
    """

    run: str
    name: str


class Part(NamedTuple):
    """A part that is missing. place: parts of one place are made faster one after the other. cost: in any unit."""

    name: str
    place: str
    cost: float


class Answer(NamedTuple):
    """What a worker does next. look: post what is missing, as nobody did. again: the part was given out before."""

    does: Literal["look", "make", "wait", "leave"]
    part: str = ""
    again: bool = False


class Progress(NamedTuple):
    """Parts of all stages so far. of: those that were missing."""

    done: int
    absent: int
    of: int
    workers: int


class HandOut:
    """Hands the parts of stages to workers that ask, the longest first.

    A part whose worker died or failed is given again before all others, to a worker of another slot where there is one.
    After two failures it is absent, with its last reason. Every call takes O(log parts).
    """

    def __init__(self) -> None:
        self.stages: dict[Stage, _Queue] = {}
        self.workers: dict[str, Stage] = {}
        self.deaths: Counter[str] = Counter()
        self.lost: dict[tuple[str, str], str] = {}
        self.told: list[str] = []

    def ask(self, worker: str, stage: Stage) -> Answer:
        """What a worker does next in a stage."""
        self.workers[worker] = stage
        queue = self.stages.setdefault(stage, _Queue())
        if queue.looker is None:
            queue.looker = worker
            return Answer("look")
        if not queue.is_posted:
            return Answer("wait")
        if not queue.left:
            return Answer("leave")
        slot = slot_of(worker)
        others = bool(queue.again) and any(slot_of(o) != slot and at == stage for o, at in self.workers.items())
        return queue.give(worker, others)

    def post(self, stage: Stage, missing: list[Part]) -> None:
        """Take the parts of a stage that are missing, from the worker that looked."""
        self.stages[stage].post(missing)

    def done(self, worker: str, stage: Stage, part: str) -> None:
        """A worker has made its part."""
        self.deaths.pop(slot_of(worker), None)
        queue = self.stages[stage]
        if queue.take_back(worker, part):
            queue.left.discard(part)
            queue.done += 1
            self.lost.pop((stage.run, part), None)

    def put_back(self, worker: str, stage: Stage, part: str) -> None:
        """Somebody outside the hand-out is making a worker's part: it is looked at again after the others."""
        queue = self.stages[stage]
        if queue.take_back(worker, part):
            queue.later.append(part)

    def failed(self, worker: str, stage: Stage, part: str, reason: str) -> None:
        """A worker could not make its part."""
        queue = self.stages[stage]
        if not queue.take_back(worker, part):
            return
        failures = queue.failures.setdefault(part, [])
        failures.append(slot_of(worker))
        if len(failures) < MOST_FAILURES:
            queue.again.append(part)
            self.told.append(f"{part} is made again: {reason}")
            return
        queue.left.discard(part)
        queue.absent += 1
        self.lost[stage.run, part] = reason
        self.told.append(f"{part} is absent: {reason}")

    def died(self, worker: str, reason: str) -> bool:
        """A worker has died; gives whether its slot is given another one, as it may be the machine that is sick."""
        self.gone(worker, reason)
        self.deaths[slot_of(worker)] += 1
        return self.deaths[slot_of(worker)] < MOST_DEATHS

    def gone(self, worker: str, reason: str) -> None:
        """A worker has died or left, and what it held is given to another."""
        stage = self.workers.pop(worker, None)
        if stage is None:
            return
        queue = self.stages[stage]
        if queue.looker == worker and not queue.is_posted:
            queue.looker = None
        if worker in queue.held:
            self.failed(worker, stage, queue.held[worker], reason)

    def absent(self) -> dict[tuple[str, str], str]:
        """(run, part) → why it could not be made."""
        return dict(self.lost)

    def news(self) -> list[str]:
        """What there is to tell since the last call, a line each."""
        told, self.told = self.told, []
        return told

    def progress(self) -> Progress:
        """How far all stages have come."""
        queues = self.stages.values()
        done, absent = sum(queue.done for queue in queues), sum(queue.absent for queue in queues)
        return Progress(done, absent, sum(queue.of for queue in queues), len(self.workers))


class _Queue:
    """The parts of one stage. left: those that are neither done nor absent, so of those that are held too."""

    def __init__(self) -> None:
        self.looker: str | None = None
        self.is_posted = False
        self.places: dict[str, deque[Part]] = {}
        self.heap: list[tuple[float, str, int]] = []
        self.again: list[str] = []
        self.later: deque[str] = deque()
        self.failures: dict[str, list[str]] = {}
        self.held: dict[str, str] = {}
        self.last: dict[str, str] = {}
        self.left: set[str] = set()
        self.of = self.done = self.absent = 0

    def post(self, missing: list[Part]) -> None:
        if self.is_posted:
            return
        self.is_posted = True
        for part in sorted(missing, key=lambda part: -part.cost):
            self.places.setdefault(part.place, deque()).append(part)
        self.left = {part.name for part in missing}
        self.of = len(self.left)
        self.heap = [(-parts[0].cost, place, len(parts)) for place, parts in self.places.items()]
        heapq.heapify(self.heap)

    def give(self, worker: str, others: bool) -> Answer:
        for i, part in enumerate(self.again):
            if not others or slot_of(worker) not in self.failures[part]:
                return self._hold(worker, self.again.pop(i), again=True)
        place = self._longest(self.last.get(worker))
        if place is not None:
            self.last[worker] = place
            return self._hold(worker, self._pop(place))
        if self.later:
            return self._hold(worker, self.later.popleft(), again=True)
        return Answer("wait")

    def _hold(self, worker: str, part: str, *, again: bool = False) -> Answer:
        self.held[worker] = part
        return Answer("make", part, again)

    def _longest(self, last: str | None) -> str | None:
        """The place of the longest part; that of the worker's last one where it has one as long."""
        while self.heap and len(self.places[self.heap[0][1]]) != self.heap[0][2]:
            heapq.heappop(self.heap)  # parts of that place were given since
        if not self.heap:
            return None
        longest = -self.heap[0][0]
        own = self.places.get(last) if last is not None else None
        return last if own and own[0].cost >= longest else self.heap[0][1]

    def _pop(self, place: str) -> str:
        parts = self.places[place]
        part = parts.popleft()
        if parts:
            heapq.heappush(self.heap, (-parts[0].cost, place, len(parts)))
        return part.name

    def take_back(self, worker: str, part: str) -> bool:
        """Whether a worker still held a part: one that was told dead may speak up late."""
        if self.held.get(worker) != part:
            return False
        del self.held[worker]
        return True
