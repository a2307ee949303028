"""How well parts are handed out to many workers, and what it costs: a simulation without a model, and a small real run.

The simulation drives the hand-out of `--workers ray` with a virtual clock: each part's cost is drawn from a log-normal
distribution, and it takes that long times a drawn factor, as nobody knows it before. Some parts kill their worker,
which starts again; a sick machine's workers die over every part. Ideal is all time that was worked, divided among the
workers, or the longest part alone.

    python benchmarks/schedule.py
    python benchmarks/schedule.py --parts 20000 --deaths 0.01 --json
    python benchmarks/schedule.py --files          # file operations of a real part of the mini model
    python benchmarks/schedule.py --ray            # what Ray's calls take, which a part makes two of
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

import duo_unlearn as duo
from duo_unlearn.cli.ray_session import LOCAL, ray_session
from duo_unlearn.cli.ray_worker import RayChannel
from duo_unlearn.runs.hand_out import Answer, HandOut, Part, Stage
from duo_unlearn.runs.handed import Handed, pause
from duo_unlearn.runs.work import parts_from

WORKERS: Final = (1, 8, 64, 512)
PARTS: Final = 100_000
PLACES: Final = 200
"""Works, e.g. an attack on a system, that the parts are of."""
MEDIAN: Final = 60.0
"""Seconds of a part."""
SPREAD: Final = 1.0
"""The standard deviation of the logarithm of costs: one part in forty takes seven times the median."""
UNKNOWN: Final = 0.3
"""That of the logarithm of the factor between what a part was expected to take, and what it takes."""
RESTART: Final = 30.0
"""Seconds until a worker that died asks again."""
RAY_PARTS: Final = 5_000
"""Parts that are handed out by a real Ray session, at most."""
AUDITED: Final = {"open", "os.rename", "os.remove", "os.mkdir", "os.scandir", "os.listdir", "os.utime"}
"""Events of Python's audit hooks that are operations on files. Its looks at a file's state (stat) are none."""


class Outcome(NamedTuple):
    """makespan, ideal: virtual seconds. driver: real seconds in the hand-out, a part. given: how many times."""

    workers: int
    makespan: float
    ideal: float
    driver: float
    given: int
    absent: int

    @property
    def ratio(self) -> float:
        """How much longer than the ideal it takes."""
        return self.makespan / self.ideal


def simulate(workers: int, parts: int, *, deaths: float = 0.0, sick: int = 0, seed: int = 0) -> Outcome:
    """Hand out drawn parts until all are done or absent.

    deaths: the share of parts given that kill their worker. sick: so many workers, the first ones, die over every part.
    """
    rng = np.random.default_rng(seed)
    costs = MEDIAN * np.exp(SPREAD * rng.standard_normal(parts))
    seconds = dict(zip(map(str, range(parts)), costs * np.exp(UNKNOWN * rng.standard_normal(parts)), strict=True))
    missing = [Part(str(i), str(i % PLACES), float(cost)) for i, cost in enumerate(costs)]
    hand_out, stage, driver = HandOut(), Stage("run", "stage"), 0.0
    # (when, in which order, worker, the part that it made, whether it dies over it, how often it asked in vain)
    events = [(0.0, i, f"{i}.0", "", False, 0) for i in range(workers)]
    now, worked, given, turn = 0.0, 0.0, 0, workers
    while events:
        now, _, worker, part, dies, waits = heapq.heappop(events)
        begin = time.perf_counter()
        if dies:
            number, _, life = worker.partition(".")
            if not hand_out.died(worker, "it died"):
                continue
            worker, now = f"{number}.{int(life) + 1}", now + RESTART
        elif part:
            hand_out.done(worker, stage, part)
        answer = hand_out.ask(worker, stage)
        if answer.does == "look":
            hand_out.post(stage, missing)
            answer = hand_out.ask(worker, stage)
        driver += time.perf_counter() - begin
        if answer.does == "leave":
            continue
        takes, dies, waits = pause(waits), False, waits + 1
        if answer.does == "make":
            dies = bool(rng.random() < deaths) or int(worker.partition(".")[0]) < sick
            given, waits = given + 1, 0
            takes = float(seconds[answer.part]) * (float(rng.random()) if dies else 1.0)
            worked += takes
        heapq.heappush(events, (now + takes, turn, worker, answer.part, dies, waits))
        turn += 1
    ideal = max(worked / workers, *seconds.values())
    return Outcome(workers, now, ideal, driver / parts, given, len(hand_out.absent()))


class Desk:
    """A worker's calls to a hand-out in its own process."""

    def __init__(self, name: str, hand_out: HandOut) -> None:
        self.name, self.hand_out = name, hand_out

    def ask(self, stage: Stage) -> Answer:
        return self.hand_out.ask(self.name, stage)

    def post(self, stage: Stage, missing: list[Part]) -> None:
        self.hand_out.post(stage, missing)

    def done(self, stage: Stage, part: str) -> None:
        self.hand_out.done(self.name, stage, part)

    def put_back(self, stage: Stage, part: str) -> None:
        self.hand_out.put_back(self.name, stage, part)

    def failed(self, stage: Stage, part: str, reason: str) -> None:
        self.hand_out.failed(self.name, stage, part, reason)

    def absent(self) -> Mapping[tuple[str, str], str]:
        return self.hand_out.absent()


def file_operations(folder: Path, images: int = 8, parts: int = 4) -> dict[str, Any]:
    """File operations in the run folder that making parts of so many images takes, from the first look on.

    parts: of each of the larger prompt sets. "all" is the count of everything, folders of groups among it.
    """
    from duo_unlearn.arena.attempts import make_attempts
    from duo_unlearn.arena.plans import evaluation_plans

    size = parts * images
    counts = {"prompts": size, "keep_prompts": size, "neighbour_prompts": images, "inversion_prompts": 0}
    settings = {f"evaluate.{name}": count for name, count in {**counts, "steps": 2, "batch": images}.items()}
    run = duo.open_run(folder, model="mini", concept="sword", settings=settings, quiet=True)
    plans = evaluation_plans(run, [run.system("negative-prompt")])  # a system that is not the original
    seen, hand_out = Counter[str](), HandOut()
    run.model.fingerprint()
    at_work = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if at_work and event in AUDITED and arguments and str(arguments[0]).startswith(str(folder)):
            seen[event] += 1

    sys.addaudithook(hook)
    with parts_from(Handed(Desk("worker", hand_out))):
        make_attempts(run, plans)
    at_work = False
    made, count = hand_out.progress().of, sum(seen.values())
    return {"parts": made, "images a part": images, "all": count, "a part": count / made, "events": dict(seen)}


class Caller:
    """A worker of a real Ray session that makes nothing: it asks for parts, and says that they are done."""

    def work(self, name: str, hand_out: Any, stage: Stage) -> int:
        """How many parts of a stage it had."""
        channel, made = RayChannel(name, hand_out), 0
        while (answer := channel.ask(stage)).does == "make":
            channel.done(stage, answer.part)
            made += 1
        return made


class TimedHandOut(HandOut):
    """A hand-out that tells its process' seconds of a core, Ray's own threads among them."""

    def cpu(self) -> float:
        """Seconds since the process started."""
        return time.process_time()


def ray_calls(workers: int, parts: int) -> dict[str, Any]:
    """What a part costs by Ray on this machine, where it takes no time to make: of the clock, and of the hand-out."""
    with ray_session(LOCAL) as ray:
        hand_out = ray.remote(TimedHandOut).options(num_cpus=0).remote()
        callers = [ray.remote(Caller).options(num_cpus=0).remote() for _ in range(workers)]
        first = RayChannel("first", hand_out)
        for count in (workers, parts):  # the first ones start the callers, and do not count
            stage = Stage("run", str(count))
            first.ask(stage)
            first.post(stage, [Part(f"{count}.{i}", str(i % PLACES), MEDIAN) for i in range(count)])
            before, begin = ray.get(hand_out.cpu.remote()), time.perf_counter()
            made = ray.get([caller.work.remote(f"{i}.0", hand_out, stage) for i, caller in enumerate(callers)])
            taken, spent = time.perf_counter() - begin, ray.get(hand_out.cpu.remote()) - before
    each = {"ms a part": 1e3 * taken / parts, "ms of the hand-out's process": 1e3 * spent / parts}
    return {"workers": workers, "parts": sum(made), **each}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=PARTS)
    parser.add_argument("--deaths", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.files:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(file_operations(Path(folder) / "run"), indent=1))
        return
    if arguments.ray:
        for workers in (1, 2, 8):
            print(json.dumps(ray_calls(workers, min(arguments.parts, RAY_PARTS))))
        return
    print("workers  makespan ÷ ideal  driver, ms a part  given  absent")
    for workers in WORKERS:
        found = simulate(workers, arguments.parts, deaths=arguments.deaths, seed=arguments.seed)
        if arguments.json:
            print(json.dumps({**found._asdict(), "ratio": found.ratio}))
            continue
        driver = 1e3 * found.driver
        print(f"{workers:7}  {found.ratio:16.4f}  {driver:17.4f}  {found.given:5}  {found.absent:6}")


if __name__ == "__main__":
    main()
