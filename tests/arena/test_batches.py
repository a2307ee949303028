"""Plain prompts of several sets in one batch: how they are divided, and that a stop in the middle changes no byte."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from duo_unlearn.arena.batches import PlainWork, in_batches, members_of
from duo_unlearn.arena.group_work import GroupWork
from duo_unlearn.arena.plans import evaluation_plans
from duo_unlearn.arena.stages import evaluate
from duo_unlearn.errors import DuoError
from duo_unlearn.records import ORIGINAL
from duo_unlearn.runs.attempts import Group, batch_claim
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
    plain, *others = works_of(reopen(run.run.folder, evaluate__batch=7))
    assert isinstance(plain, PlainWork)
    assert {work.plan.attack.name for work in others if isinstance(work, GroupWork)} == {"concept-inversion"}
    sizes = [[len(member.prompts) for member in batch.values()] for batch in plain.batches.values()]
    assert sizes == [[3, 3], [3, 3], [2, 2]]  # four sets of three prompts, two of two
    names = plain.parts()
    assert [name.endswith("+1") for name in names] == [True, True, True]


def test_what_fills_a_batch_is_divided_as_if_it_were_alone(run: Session) -> None:
    plain = plain_of(reopen(run.run.folder, evaluate__batch=2))
    full = {name: member for batch in plain.batches.values() for name, member in batch.items()}
    full = {name: member for name, member in full.items() if len(member.prompts) == 2}
    assert full
    assert all(list(plain.batches[name]) == [name] for name in full)


@pytest.mark.parametrize("system", [pytest.param(ORIGINAL, marks=pytest.mark.slow), "duo"])
def test_a_batch_that_was_half_written_gives_the_same_bytes(run: Session, system: str) -> None:
    before = files(run)
    batch = next(batch for batch in plain_of(run, system).batches.values() if len(batch) > 1)
    gone = 0
    for member in list(batch.values())[1:]:
        path = member.work.folder / f"{member.name}.json"
        for attempt in json.loads(path.read_text())["attempts"]:
            (run.run.folder / attempt["file"]).unlink()
            gone += 1
        path.unlink()
    assert gone
    assert evaluate(reopen(run.run.folder)).state == "done"
    assert files(run).keys() == before.keys()
    if system != ORIGINAL:  # of the original what is there is read, so the others lie in another batch
        assert files(run) == before


def test_a_part_that_another_command_is_making_is_waited_for_and_left_as_it_is(run: Session) -> None:
    plain = plain_of(run)
    part, batch = next((part, batch) for part, batch in plain.batches.items() if len(batch) > 2)
    before, last = list(batch)[-2:]
    paths = [batch[name].work.folder / f"{batch[name].name}.json" for name in (before, last)]
    images = sorted(paths[1].parent.glob("*.png"))
    whole, times = paths[1].read_bytes(), [image.stat().st_mtime_ns for image in images]
    for path in paths:
        path.unlink()
    held = threading.Event()

    def other() -> None:
        with run.run.claim(last):
            held.set()
            for _ in range(600):  # until the batch is sampled, and its part before this one is written
                if paths[0].exists():
                    break
                time.sleep(0.1)
            paths[1].write_bytes(whole)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(60)
    assert finish([plain], run.run.claim)
    thread.join(60)
    assert paths[1].read_bytes() == whole
    assert plain.is_done(part)
    assert times == [image.stat().st_mtime_ns for image in images] != []


def test_a_member_that_cannot_be_written_keeps_no_other_from_it(run: Session) -> None:
    plain = plain_of(run)
    part, batch = next((part, batch) for part, batch in plain.batches.items() if len(batch) > 2)
    members = list(batch.values())
    for member in members[1:]:
        (member.work.folder / f"{member.name}.json").unlink()
    image = members[1].work.folder / "0000.png"
    image.unlink()
    (image / "in the way").mkdir(parents=True)
    with pytest.raises(DuoError, match=members[1].work.group.scenario):
        finish([plain], run.run.claim)
    assert not plain.is_done(part)
    assert all((m.work.folder / f"{m.name}.json").exists() == (m is not members[1]) for m in members)


def test_what_a_batch_stands_for(run: Session) -> None:
    works, plain = works_of(run), plain_of(run)
    assert members_of(works, "no.part") == ["no.part"]
    assert members_of(works, plain.parts()[0])[:2] == ["duo.direct.direct.0000", "duo.synonym.direct.0000"]


def test_a_claim_of_a_batch_is_of_every_set_of_its_system_and_of_no_search() -> None:
    claim = batch_claim(["duo.direct.direct.0000", "duo.keep.direct.0000"])
    assert claim == "duo.direct.direct.0000+1"
    assert Group("duo", "keep", "direct", None).is_claimed_by(claim)
    assert not Group("duo+sld", "keep", "direct", None).is_claimed_by(claim)
    assert not Group("duo", "keep", "p4d", "quick").is_claimed_by(claim)
    assert not Group("duo", "keep", "direct", None).is_claimed_by(batch_claim(["duo.direct.direct.0000"]))
