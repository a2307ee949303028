"""Budgets of attacks: what no picture has is told."""

from __future__ import annotations

import pytest
import torch

from duo_unlearn.attacks.budgets import budget_fault
from duo_unlearn.attacks.inpainting import middle
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.errors import DuoError


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("completion", {"begun": 1.0}, "begun must be above 0 and below 1"),
        ("completion", {"begun": 0.99}, "the original takes 20 of 20 steps, so one of the two draws nothing"),
        ("completion", {"begun": 0.01}, "the original takes 0 of 20 steps, so one of the two draws nothing"),
        ("inpainting", {"side": 1.5}, "side must be above 0 and at most 1"),
        ("image-to-image", {"strength": 1.5}, "strength must be above 0 and at most 1"),
    ],
)
def test_a_share_that_no_picture_has_is_told_before_anything_is_asked(
    name: str, fields: dict[str, float], said: str
) -> None:
    budget = ATTACKS.get(name).budgets["quick"]
    assert budget_fault(budget, fields) == f"has a fault: {said}"
    assert budget_fault(budget, dict.fromkeys(fields, 0.7)) is None


@pytest.mark.parametrize("name", ["tina", "inpainting", "completion"])
def test_a_path_of_more_steps_than_there_are_noise_levels_would_draw_nothing_and_is_told(name: str) -> None:
    budget = ATTACKS.get(name).budgets["quick"]
    assert budget_fault(budget, {"steps": 1000}) == "has a fault: a path has 999 steps at most"
    assert budget_fault(budget, {"steps": 999}) is None


@pytest.mark.parametrize("name", ["relearning-concept-100", "relearning-concept-100-of-20"])
def test_relearning_on_no_images_is_told_before_anything_is_asked(name: str) -> None:
    budget = ATTACKS.get(name).budgets["quick"]
    assert budget_fault(budget, {"images": "benign"}) == "has a fault: images=benign needs benign, how many there are"
    assert budget_fault(budget, {"images": "benign", "benign": 4}) is None


def test_a_mask_of_no_latent_would_give_the_original_back_and_is_told() -> None:
    assert middle(torch.zeros(1, 4, 64, 64), 0.1).sum() == 36
    with pytest.raises(DuoError, match="would draw nothing anew"):
        middle(torch.zeros(1, 4, 16, 16), 0.05)
