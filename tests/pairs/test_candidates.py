"""Candidates: their numbers decide them, and how many are tried is bounded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from duo_unlearn.concepts.spec import Concept
from duo_unlearn.concepts.store import load_concept
from duo_unlearn.errors import DuoError
from duo_unlearn.mini.world.scenes import COLOURS, SUBJECTS, Scene, is_held_out
from duo_unlearn.mini.world.words import lexicon
from duo_unlearn.pairs.candidates import candidates_to_try, make_candidate, next_round
from duo_unlearn.pairs.manifest import KindTries

from .drawn_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "pairs")


def test_candidates_depend_on_their_numbers_alone(world: World) -> None:
    concept = world.concept
    first = make_candidate(concept, 1, 5, 0)
    assert first == make_candidate(concept, 1, 5, 0)
    others = {
        make_candidate(concept, 0, 5, 0).seed,
        make_candidate(concept, 1, 6, 0).seed,
        make_candidate(concept, 1, 5, 1).seed,
    }
    assert len(others | {first.seed}) == 4
    assert 0 <= first.seed < 2**31


def test_how_many_candidates_a_kind_needs() -> None:
    fresh = KindTries("u", "s", 10)
    assert candidates_to_try(fresh, 4) == 13
    assert candidates_to_try(fresh, 1) == 10
    assert candidates_to_try(dataclasses.replace(fresh, kept=10, tries=12), 4) == 0
    assert candidates_to_try(dataclasses.replace(fresh, kept=9, tries=18), 4) == 2
    assert candidates_to_try(dataclasses.replace(fresh, kept=0, tries=37), 4) == 3
    assert candidates_to_try(dataclasses.replace(fresh, kept=0, tries=50), 4) == 0


def test_a_round_takes_all_kinds_together(world: World) -> None:
    records = [KindTries("u", "s", 2), KindTries("u", "s", 2, 1, 3), KindTries("u", "s", 2, 2, 2)]
    chosen = next_round(world.concept, records, tries=4, most=100, seed=0)
    assert [(c.kind, c.attempt) for c in chosen] == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]
    assert next_round(world.concept, records, tries=4, most=2, seed=0) == chosen[:2]


def test_a_kind_without_allowed_words_is_an_error(world: World) -> None:
    held = next(s for s in _scenes() if is_held_out(s))
    fill: dict[str, Any] = {"subject": [held.subject], "colour": [held.colour], "place": {held.place: ["at night"]}}
    concept: Concept = world.concept.model_copy(update={"fill": fill})
    with pytest.raises(DuoError, match="held out"):
        make_candidate(concept, 0, 0, 0)


def test_a_scene_that_is_held_out_for_any_joined_concept_is_in_no_pair() -> None:
    both = load_concept("sword+balloon")
    kind = next(i for i, pair in enumerate(both.pairs) if "balloon" in pair.unsafe)
    safe = both.pairs[kind].shows["item"]
    held = next(
        scene
        for scene in _scenes()
        if is_held_out(dataclasses.replace(scene, item="balloon"))
        and not is_held_out(scene)
        and not is_held_out(dataclasses.replace(scene, item=safe))
    )
    fill: dict[str, Any] = {"subject": [held.subject], "colour": [held.colour], "place": {held.place: ["at night"]}}
    with pytest.raises(DuoError, match="held out"):
        make_candidate(both.model_copy(update={"fill": fill}), kind, 0, 0)


def _scenes() -> list[Scene]:
    return [Scene(s, c, "sword", p) for s in SUBJECTS for c in COLOURS for p in lexicon()["english"]["places"]]
