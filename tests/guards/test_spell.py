"""SPELL: the worked numbers, along pictures and along pairs, and that outside its radius nothing changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duo_unlearn.families.interface import Model, Step
from duo_unlearn.families.load import load_model
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.guards.spell import repelled, taken_back

from .small import context_of, sample


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


@pytest.mark.parametrize(("strength", "lands"), [(1.6, 1.3), (1.0, 1.0)])
def test_a_picture_is_moved_to_the_shell_and_beyond(strength: float, lands: float) -> None:
    clean, unsafe = torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2)
    torch.testing.assert_close(repelled(clean, unsafe, 1.0, strength), torch.tensor([[lands, 0.0]]))


def test_several_push_together_and_none_pushes_from_outside() -> None:
    unsafe = torch.tensor([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    inside, outside = torch.tensor([[0.5, 0.5]]), torch.tensor([[5.0, -3.0]])
    push = 1.6 * (2**0.5 - 1)  # both push upwards by half of it, and their sideways parts cancel
    torch.testing.assert_close(repelled(inside, unsafe, 1.0, 1.6), torch.tensor([[0.5, 0.5 + push]]))
    assert torch.equal(repelled(outside, unsafe, 1.0, 1.6), outside)


def test_along_a_pair_only_its_direction_changes() -> None:
    unsafe, safe = torch.tensor([[4.0, 0.0], [50.0, 50.0]]), torch.tensor([[0.0, 0.0], [50.0, 40.0]])
    # 3.5 of 4 has been gone, 3 are let: with λ = 1 it lands there, with 1.6 at 3.5 − 0.8.
    clean = torch.tensor([[3.5, 0.7]])
    torch.testing.assert_close(taken_back(clean, unsafe, safe, 0.25, 1.0), torch.tensor([[3.0, 0.7]]))
    torch.testing.assert_close(taken_back(clean, unsafe, safe, 0.25, 1.6), torch.tensor([[2.7, 0.7]]))
    before = torch.tensor([[2.9, 0.7], [-5.0, 0.3]])
    assert torch.equal(taken_back(before, unsafe, safe, 0.25, 1.6), before)


def test_the_shell_is_around_the_latents_of_the_unsafe_pictures(model: Model, tmp_path: Path) -> None:
    context = context_of(model, tmp_path)
    hook = GUARDS.get("spell").build({"radius": 1.0}, context).clean
    assert hook is not None
    unsafe = context.pairs.unsafe().mean  # 17 from one another, and 31 long
    way = torch.zeros_like(unsafe[:1])
    way[0, 1, 2, 3] = 1.0
    step = Step(unsafe[:1], 0, 1, None, {})
    for one in (unsafe[:1], unsafe[1:]):  # the worked number: from 0.5 to 1.3
        torch.testing.assert_close(hook(step, one + 0.5 * way), one + 1.3 * way, atol=1e-4, rtol=0)


def test_outside_the_radius_images_are_the_models_own(model: Model, tmp_path: Path) -> None:
    hooks = GUARDS.get("spell").build({"radius": 1e-3}, context_of(model, tmp_path))
    assert torch.equal(sample(model, hooks, steps=2), sample(model, None, steps=2))


def test_along_the_difference_images_change(model: Model, tmp_path: Path) -> None:
    hooks = GUARDS.get("spell").build({"along": "difference", "share": 1.0}, context_of(model, tmp_path))
    assert not torch.equal(sample(model, hooks, steps=2), sample(model, None, steps=2))
