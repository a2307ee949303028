"""ESD's loss by its worked numbers, and which weights it trains."""

from __future__ import annotations

import pytest
import torch

from duo_unlearn.erasers.esd import target

CONCEPT, EMPTY = torch.tensor([1.0, 0.0]), torch.zeros(2)


def test_the_target_goes_away_from_the_concept() -> None:
    assert torch.equal(target(CONCEPT, EMPTY, EMPTY, 1.0), torch.tensor([-1.0, 0.0]))
    assert torch.equal(target(CONCEPT, EMPTY, EMPTY, 0.0), EMPTY)
    # η −1 asks for the concept itself: an untouched student has no loss.
    assert torch.equal(target(CONCEPT, EMPTY, EMPTY, -1.0), CONCEPT)


@pytest.mark.parametrize(("eta", "expected"), [(1.0, 1.0), (0.0, 0.25), (-1.0, 0.0)])
def test_the_loss_at_the_start_is_the_square_of_what_is_asked(eta: float, expected: float) -> None:
    # (1 + η)² · mean (ε_c − ε_∅)², with a difference of 0.5 everywhere.
    concept, empty = torch.full((4,), 0.5), torch.zeros(4)
    assert float((concept - target(concept, empty, empty, eta)).square().mean()) == pytest.approx(expected)
