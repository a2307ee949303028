"""Relearning divides: its fine-tuned weights are trained once, read for every part, and gone at the end."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from duo_unlearn.arena.attempts import make_attempts
from duo_unlearn.arena.fine_tuning import FILE, FineTuning
from duo_unlearn.arena.group_work import GroupWork
from duo_unlearn.arena.plans import Plan
from duo_unlearn.arena.target import base_state, target_of
from duo_unlearn.attacks import relearning
from duo_unlearn.attacks.interface import Target
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.concepts.prompt_sets import Counts, prompt_sets
from duo_unlearn.families.interface import SampleRequest
from duo_unlearn.pairs.manifest import set_keep
from duo_unlearn.session import Session
from duo_unlearn.storage.pictures import open_image

from .small_run import make_run, reopen

BUDGET = relearning.Budget(2, "concept", batch=2)
BENIGN = relearning.Budget(1, "benign", batch=2, benign=2)
WAIT = 60.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made")).run.folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Session:
    shutil.copytree(made, tmp_path / "run")
    return reopen(tmp_path / "run", evaluate__batch=2, evaluate__steps=2)


class Trainings:
    """Counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, target: Target, budget: relearning.Budget) -> dict[str, Tensor]:
        self.count += 1
        return relearning.fine_tune(target, budget)


def plan_of(run: Session, train: Callable[[Target, relearning.Budget], dict[str, Tensor]] | None = None) -> Plan:
    attack = ATTACKS.get("relearning-concept-20")._replace(fine_tune=train or relearning.fine_tune)
    scenario = prompt_sets(run.concept, Counts(3, 0, 0, 0), run.settings.seed)[0]
    return Plan(run.system("duo"), scenario, attack, "custom", BUDGET)


def fine_tuning(run: Session, plan: Plan, train: Trainings) -> FineTuning:
    return FineTuning(run, plan, base_state(run), train)


def test_other_benign_prompts_are_another_relearning(run: Session) -> None:
    """Of more prompts than there are images the further ones decide nothing."""

    def keys(keep: int) -> dict[str, str]:
        again = reopen(run.run.folder, evaluate__keep_prompts=keep)
        vars(again)["model"] = run.model
        plan = dataclasses.replace(plan_of(again), attack=ATTACKS.get("relearning-benign-300"), budget=BENIGN)
        return GroupWork(again, plan).keys

    one, two, three = (keys(count) for count in (1, 2, 3))
    assert one != two == three


@pytest.mark.slow
def test_pictures_are_those_under_weights_in_memory_whether_divided_or_not(run: Session) -> None:
    trainings = Trainings()
    plan = plan_of(run, trainings)
    with plan.system.on(run.model, run.guard_context(plan.system)):
        target = target_of(run, plan.system, None)
        in_memory = relearning.fine_tune(target, BUDGET)
        assert fine_tuning(run, plan, trainings).weights(target)
        read = fine_tuning(run, plan, trainings).weights(target)
        assert trainings.count == 1
        assert set(read) == set(in_memory)
        assert all(torch.equal(value, in_memory[name]) for name, value in read.items())
        requests = [SampleRequest(p.text, s) for p, s in zip(plan.scenario.prompts, plan.scenario.seeds, strict=True)]
        with relearning.fine_tuned(target, BUDGET, in_memory):
            together = [image.tobytes() for image in target.sample(requests) if image is not None]
    (state,), made = make_attempts(run, [plan])
    assert (state.attempts, made) == (3, True)
    assert trainings.count == 1  # the file was there
    folder = plan.group.folder(run.run)
    assert sorted(path.name for path in folder.glob("*.json")) == ["0000.json", "0002.json", "group.json"]
    assert [open_image(folder / f"{i:04}.png").tobytes() for i in range(3)] == together
    assert not (folder / FILE).exists()
    assert make_attempts(run, [plan])[1] is False
    assert trainings.count == 1


def test_what_decides_the_weights_is_in_their_key(run: Session) -> None:
    plan = plan_of(run)

    def key(plan: Plan) -> str:
        return fine_tuning(run, plan, Trainings()).file.key

    first = key(plan)
    assert key(plan) == first
    assert key(dataclasses.replace(plan, budget=dataclasses.replace(BUDGET, steps=3))) != first
    assert key(dataclasses.replace(plan, system=run.system("original"))) != first
    set_keep(run.run.pairs, [run.pairs[0].name], False)
    assert key(plan) != first


def test_a_broken_file_is_set_aside_and_made_again(run: Session) -> None:
    trainings = Trainings()
    plan = dataclasses.replace(plan_of(run), budget=BENIGN)
    with plan.system.on(run.model, run.guard_context(plan.system)):
        target = target_of(run, plan.system, None)
        before = dict(fine_tuning(run, plan, trainings).weights(target))
        file = plan.group.folder(run.run) / FILE
        file.write_bytes(file.read_bytes()[:1000])
        after = fine_tuning(run, plan, trainings).weights(target)
    assert trainings.count == 2
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert file.with_name(f"{FILE}.broken").exists()


@pytest.mark.slow
def test_other_parts_are_made_while_another_process_trains(run: Session) -> None:
    trainings = Trainings()
    plan = plan_of(run, trainings)
    removal = ATTACKS.get("edit-removal")
    other = dataclasses.replace(plan, attack=removal, preset="quick", budget=removal.budgets["quick"])
    group = GroupWork(run, plan)
    assert group.is_open()
    with run.run.claim(f"duo.direct.{plan.group.slug}.fine-tuning") as mine:
        assert mine
        assert not group.is_open()
        thread = threading.Thread(target=make_attempts, args=(run, [plan, other]))
        thread.start()
        deadline = time.monotonic() + WAIT
        while not (other.group.folder(run.run) / "0000.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (other.group.folder(run.run) / "0000.json").exists()
        assert trainings.count == 0
    thread.join(WAIT)
    assert trainings.count == 1
    assert (plan.group.folder(run.run) / "0002.json").exists()
