"""Budgets of attacks: what no picture has is told."""

from __future__ import annotations

import pytest

from duo_unlearn.attacks.budgets import budget_fault
from duo_unlearn.attacks.registry import ATTACKS


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("completion", {"begun": 1.0}, "begun must be above 0 and below 1"),
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
