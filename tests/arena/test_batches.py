"""Plain prompts of several sets in one batch: how they are divided, and that a stop in the middle changes no byte."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duo_unlearn.arena.batches import PlainWork, in_batches, members_of
from duo_unlearn.arena.group_work import GroupWork
from duo_unlearn.arena.plans import evaluation_plans
from duo_unlearn.arena.stages import evaluate
from duo_unlearn.records import ORIGINAL
from duo_unlearn.runs.work import finish
from duo_unlearn.session import Session

from .small_run import pictures, reopen


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Session:
    shutil.copytree(evaluated, tmp_path / "run")
    return reopen(tmp_path / "run")


def works_of(run: Session, name: str = "duo") -> list[GroupWork | PlainWork]:
    systems = [system for system in run.systems() if system.name == name]
    return in_batches([GroupWork(run, plan) for plan in evaluation_plans(run, systems)])


def plain_of(run: Session, name: str = "duo") -> PlainWork:
    return next(work for work in works_of(run, name) if isinstance(work, PlainWork))


def files(run: Session) -> dict[str, bytes]:
    """Parts and pictures, without the seconds that a part took."""
    parts = sorted(run.run.attempts.rglob("0*.json"))
    texts = {str(p): p.read_bytes().split(b'"seconds"')[0] for p in parts}
    return {**texts, **pictures(run.run.folder)}


def test_sets_of_few_prompts_share_batches_and_searches_do_not(run: Session) -> None:
    plain, *others = works_of(run)
    assert isinstance(plain, PlainWork)
    assert {work.plan.attack.name for work in others if isinstance(work, GroupWork)} == {"concept-inversion"}
    sizes = [sum(len(member.prompts) for member in batch.values()) for batch in plain.batches.values()]
    most = run.settings.evaluate.batch
    assert len(sizes) < len(plain.scenarios)
    assert all(size <= most for size in sizes)
    # No batch could have had the first part of the next one.
    firsts = [len(next(iter(batch.values())).prompts) for batch in plain.batches.values()]
    assert all(size + first > most for size, first in zip(sizes, firsts[1:], strict=False))


def test_what_fills_a_batch_is_divided_as_if_it_were_alone(run: Session) -> None:
    plain = plain_of(reopen(run.run.folder, evaluate__batch=2))
    full = {name: member for batch in plain.batches.values() for name, member in batch.items()}
    full = {name: member for name, member in full.items() if len(member.prompts) == 2}
    assert full
    assert all(list(plain.batches[name]) == [name] for name in full)


@pytest.mark.parametrize("system", [ORIGINAL, "duo"])
def test_a_batch_that_was_half_written_gives_the_same_bytes(run: Session, system: str) -> None:
    before = files(run)
    batch = next(batch for batch in plain_of(run, system).batches.values() if len(batch) > 1)
    for member in list(batch.values())[1:]:
        (member.group.folder / f"{member.name}.json").unlink()
        for image in member.group.folder.glob("*.png"):
            image.unlink()
    assert evaluate(reopen(run.run.folder)).state == "done"
    assert files(run) == before


def test_a_part_that_another_command_is_making_is_waited_for_and_left_as_it_is(run: Session) -> None:
    plain = plain_of(run)
    part, batch = next((part, batch) for part, batch in plain.batches.items() if len(batch) > 1)
    last, member = list(batch.items())[-1]
    path = member.group.folder / f"{member.name}.json"
    whole = path.read_bytes()
    path.unlink()
    held, asked = threading.Event(), threading.Event()

    def other() -> None:
        with run.run.claim(last):
            held.set()
            asked.wait(60)
            path.write_bytes(whole)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(60)

    @contextmanager
    def claim(name: str, *, wait: bool = False) -> Iterator[bool]:
        if name == last:
            asked.set()
        with run.run.claim(name, wait=wait) as mine:
            yield mine

    plain.claim = claim
    times = [image.stat().st_mtime_ns for image in sorted(member.group.folder.glob("*.png"))]
    assert finish([plain], run.run.claim)
    thread.join(60)
    assert path.read_bytes() == whole
    assert plain.is_done(part)
    assert times
    assert times == [image.stat().st_mtime_ns for image in sorted(member.group.folder.glob("*.png"))]


def test_what_a_batch_stands_for(run: Session) -> None:
    works = works_of(run)
    plain = plain_of(run)
    assert members_of(works, "no.part") == ["no.part"]
    for part, batch in plain.batches.items():
        assert members_of(works, part) == list(batch)
    assert sum(map(plain.cost, plain.parts())) == sum(
        member.group.cost(name) for batch in plain.batches.values() for name, member in batch.items()
    )
