"""What decides an image of the original model, whatever computes it, and which pairs an attacker has."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

import duo_unlearn as duo
from duo_unlearn.arena.fine_tuning import FineTuning
from duo_unlearn.arena.group_work import GroupWork
from duo_unlearn.arena.plans import Plan, attacked_scenarios
from duo_unlearn.arena.target import base_state, target_of
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.attacks.relearning import FewBudget, fine_tune
from duo_unlearn.pairs.manifest import save_manifest, set_keep
from duo_unlearn.pairs.own_pairs import import_pairs
from duo_unlearn.runs.search_state import NO_STATE
from duo_unlearn.session import Session
from duo_unlearn.storage.files import read_tensors
from duo_unlearn.system import System

from ..drawn_pairs import draw_pairs


def test_a_state_is_the_same_under_every_python(tmp_path: Path) -> None:
    """Python 3.12 writes an ordered dictionary otherwise than 3.11: a run that moves between them is still known."""
    session = duo.open_run(tmp_path / "run", quiet=True)
    before, scheduler = base_state(session), session.model.pipe.scheduler
    kind = type(scheduler.config)
    other = type(kind.__name__, (kind,), {"__repr__": lambda self: f"{kind.__name__}({dict(self)})"})
    scheduler._internal_dict = other(dict(scheduler.config))
    assert repr(scheduler.config).startswith("FrozenDict({")
    assert base_state(session) == before
    scheduler.register_to_config(solver_order=1)
    assert base_state(session) != before


def with_pairs(folder: Path, concept: str) -> Session:
    """A run with four pairs, whose prompts are of sword, balloon, balloon and sword."""
    session = duo.open_run(folder / "run", concept=concept, quiet=True)
    draw_pairs(folder / "mine", 4)
    pairs = import_pairs(folder / "mine", session.run.pairs, quiet=True)
    told = [
        dataclasses.replace(
            pair,
            unsafe_prompt=f"an orange king holding a {item} in the snow",
            safe_prompt=f"an orange king holding a wand in the snow, once a {item}",
        )
        for pair, item in zip(pairs, ("sword", "balloon", "balloon", "sword"), strict=True)
    ]
    save_manifest(session.run.pairs, concept=None, settings={}, pairs=told)
    return session


def test_on_the_prompts_of_a_joined_concept_an_attacker_has_its_own_pairs(tmp_path: Path) -> None:
    session = with_pairs(tmp_path, "sword+balloon")
    few = ATTACKS.get("relearning-concept-100-of-20")
    plans = {
        scenario.name: Plan(System(), scenario, few, "custom", FewBudget(1, "concept", pictures=3))
        for scenario in attacked_scenarios(session, 1)
    }
    whole, every = session.cache.unsafe, target_of(session, System(), None)
    assert every.moments() is whole
    assert every.contrast() == session.contrast()
    for name, rows in (("sword", [0, 3]), ("balloon", [1, 2])):
        plan = plans[f"{name}-direct"]
        work = GroupWork(session, plan)
        with work.target() as target:
            assert torch.equal(target.moments().mean, whole.mean[rows])
            assert torch.equal(target.moments().std, whole.std[rows])
            assert target.contrast() == [session.contrast()[row] for row in rows]
        assert work.why_not() == "it has 3 pictures of the concept, and the run has 2 pairs"
        # What was made of the pairs of all is made anew; of what learns from none it stays.
        (key,), files = work.keys.values(), FineTuning(session, plan, work.base, fine_tune).file.key
        search = work._search_key(slice(0, 1))
        of, work.of = work.of, None
        assert (of, work._key(slice(0, 1)) == key, work._search_key(slice(0, 1)) == search) == (name, False, False)
        alone = dataclasses.replace(plan, scenario=plan.scenario._replace(name="file-mine"))
        assert FineTuning(session, alone, work.base, fine_tune).file.key != files
        benign = dataclasses.replace(plan, attack=ATTACKS.get("relearning-benign-300"))
        assert GroupWork(session, benign).of is None
    assert GroupWork(with_pairs(tmp_path / "one", "sword"), alone).of is None


def test_a_session_that_is_open_while_a_pair_is_dropped_has_the_others_pictures_and_prompts(tmp_path: Path) -> None:
    session = with_pairs(tmp_path, "sword")
    before = target_of(session, System(), None).moments()
    set_keep(session.run.pairs, [session.pairs[0].name], False)  # from another terminal, or on a page of `duo look`
    target = target_of(session, System(), None)
    assert len(target.contrast()) == len(target.moments().mean) == 3
    assert torch.equal(target.moments().mean, before.mean[1:])


def test_an_attacker_does_not_draw_the_token_that_a_guard_drew(tmp_path: Path) -> None:
    """By one seed, batch and rate both would learn one vector, and the guard go away from just that one."""
    session = with_pairs(tmp_path, "sword")
    few = {"steps": 2, "batch": 2}
    session.settings.guards["inverted-negative"] = few
    attack = ATTACKS.get("concept-inversion")
    budget = dataclasses.replace(attack.budgets["quick"], **few)
    (scenario,) = attacked_scenarios(session, 1)
    guarded, plain = (
        Plan(session.system(name), scenario, attack, "custom", budget) for name in ("inverted-negative", "original")
    )
    found = []
    for plan in (guarded, plain):
        with GroupWork(session, plan).target() as target:
            found.append(attack.find(target, scenario.prompts, scenario.seeds, budget, lambda _: None, NO_STATE))
    (file,) = session.run.guards.glob("inverted-negative-*.safetensors")
    learnt = read_tensors(file)[0]["vector"]
    assert not torch.equal(found[0].tensors["token"], learnt)
    assert torch.equal(found[1].tensors["token"], learnt)  # elsewhere the run's seed is the attacker's, as it was
    direct = dataclasses.replace(guarded, attack=ATTACKS.get("direct"), preset=None)
    assert GroupWork(session, direct).seed == session.settings.seed != GroupWork(session, guarded).seed


def test_a_strength_that_is_no_step_of_a_sampling_is_told(tmp_path: Path) -> None:
    """The pipeline would end with an error of its own."""
    session = duo.open_run(tmp_path / "run", quiet=True)
    attack = ATTACKS.get("image-to-image-30")
    (scenario,) = attacked_scenarios(session, 1)
    plan, said = Plan(System(), scenario, attack, "quick", attack.budgets["quick"]), []
    for steps in (3, 4):
        session.settings.evaluate.steps = steps
        said.append(GroupWork(session, plan).why_not())
    assert said == ["strength 0.3 of 3 steps is none: evaluate.steps=4 or more", None]
