"""The preference term on margins alone: its gradient, its limits, one side, unpaired."""

from __future__ import annotations

import math

import pytest
import torch

from duo_unlearn.erasers.duo.objective import preference_loss
from duo_unlearn.records import Pairing, Sides

BETA = 5.0


@pytest.mark.parametrize("d", [0.0, 0.3, -0.3, 2.0])
def test_gradient_weight_is_beta_sigma_beta_d(d: float) -> None:
    safe, unsafe = torch.tensor([d + 0.1], requires_grad=True), torch.tensor([0.1], requires_grad=True)
    preference_loss(safe, unsafe, BETA).backward()  # type: ignore[no-untyped-call]
    weight = BETA / (1 + math.exp(-BETA * d))
    assert safe.grad is not None
    assert unsafe.grad is not None
    assert safe.grad.item() == pytest.approx(weight, rel=1e-5)
    assert unsafe.grad.item() == pytest.approx(-weight, rel=1e-5)


def test_a_separated_pair_no_longer_pulls() -> None:
    unsafe = torch.tensor([4.0], requires_grad=True)
    preference_loss(torch.zeros(1), unsafe, 500.0).backward()  # type: ignore[no-untyped-call]
    assert unsafe.grad is not None
    assert unsafe.grad.item() == 0


def test_an_extreme_margin_stays_finite() -> None:
    assert preference_loss(torch.tensor([1.0]), torch.tensor([-1.0]), 500.0).item() == pytest.approx(1000)


def test_a_single_side_has_the_same_gradient_as_in_both() -> None:
    def gradient(sides: Sides) -> tuple[float, float]:
        safe, unsafe = torch.tensor([0.2], requires_grad=True), torch.tensor([-0.1], requires_grad=True)
        preference_loss(safe, unsafe, BETA, sides=sides).backward()  # type: ignore[no-untyped-call]
        return tuple(0.0 if x.grad is None else x.grad.item() for x in (safe, unsafe))  # type: ignore[return-value]

    safe, unsafe = gradient("both")
    assert gradient("safe") == (safe, 0.0)
    assert gradient("unsafe") == (0.0, unsafe)


def test_unpaired_starts_like_paired() -> None:
    for pairing in ("paired", "unpaired"):
        safe, unsafe = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        loss = preference_loss(safe, unsafe, BETA, pairing=pairing)
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == pytest.approx(math.log(2))
        assert safe.grad is not None
        assert unsafe.grad is not None
        assert (safe.grad.item(), unsafe.grad.item()) == pytest.approx((BETA / 2, -BETA / 2))


def test_unpaired_members_do_not_see_each_other() -> None:
    def pull(unsafe_margin: float, pairing: Pairing) -> float:
        safe = torch.tensor([0.2], requires_grad=True)
        preference_loss(safe, torch.tensor([unsafe_margin]), BETA, pairing=pairing).backward()  # type: ignore[no-untyped-call]
        assert safe.grad is not None
        return safe.grad.item()

    assert pull(0.0, "unpaired") == pull(3.0, "unpaired")
    assert pull(0.0, "paired") > pull(3.0, "paired")
