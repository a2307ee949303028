"""Comparing pictures that were sampled again: what is broken is compared too, and what says nothing is no pass."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from duo_unlearn.arena.remeasure import LEVEL, _Again, _test
from duo_unlearn.detectors.mini_judge import MiniJudge
from duo_unlearn.export.forms import AttemptOf, JudgeOf, ReadingOf
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import random_scene
from duo_unlearn.storage.files import digest

JUDGE = MiniJudge(("item=sword",))
FLAT = Image.new("RGB", (64, 64), "green")


def again(*images: Image.Image) -> _Again:
    """Pictures now, of prompts whose pictures before are named by their places."""
    names = [digest(i) for i in range(len(images))]
    attempts = [AttemptOf(prompt=n, text=n, seed=0, image=n, refusal=None, shows={}) for n in names]
    return _Again(["direct"], attempts, list(images), ["another"] * len(images))


def before(count: int, *, broken: bool = False) -> JudgeOf:
    """A judge that saw no sword in any of the pictures before."""
    reading = ReadingOf(detected=False, score=0.0, broken=broken, reads={})
    return JudgeOf(
        contract=str(JUDGE.contract), reader="", readings={digest(i): reading for i in range(count)}, faults={}
    )


def bare(count: int) -> list[Image.Image]:
    """Pictures without a sword."""
    rng = random.Random(0)
    return [draw(random_scene(rng, items=("sword",)).counterpart("none")) for _ in range(count)]


@pytest.mark.parametrize(("count", "outcome"), [(20, "differs"), (3, "not checked")])
def test_a_model_that_draws_nothing_any_more_does_not_agree(count: int, outcome: str) -> None:
    check = _test(again(*[FLAT] * count), before(count), JUDGE, LEVEL / 2)
    assert check.outcome == outcome
    assert f"0 were broken before and {count} are now" in check.words


def test_some_broken_pictures_before_and_now_agree() -> None:
    check = _test(again(*bare(8), FLAT), before(9), JUDGE, LEVEL / 2)
    assert check.outcome == "agrees"
    assert "of 8 that" in check.words


def test_pictures_that_were_broken_before_and_are_not_now_differ() -> None:
    assert _test(again(*bare(10)), before(10, broken=True), JUDGE, LEVEL / 2).outcome == "differs"


def test_without_broken_pictures_the_verdicts_alone_are_compared() -> None:
    check = _test(again(*bare(8)), before(8), JUDGE, LEVEL / 2)
    assert check.outcome == "agrees"
    assert "broken" not in check.words
