"""A search that is aware of guards sees what they hand to the scheduler, at one step by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.arena.guarded_reader import STEPS, GuardedReader
from duo_unlearn.families.interface import Hooks, Model, Step
from duo_unlearn.families.load import load_model
from duo_unlearn.guards.registry import GUARDS

from ..slow import slow_but
from .small import REQUESTS, context_of, given_to_scheduler

SCALE = 5.0
ACTING: dict[str, dict[str, Any]] = {
    # What is kept from step to step is no part of it.
    "sld": {"preset": "max", "text": "a figure holding a sword", "momentum": 0.0},
    "spell": {"radius": 1000.0},
    "prototypes": {"steps": 2, "threshold": -1.0, "clusters": 1},
}
"""Guards that act behind guidance, or add a term to it."""


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


@pytest.mark.parametrize("name", slow_but(sorted(ACTING), ("spell",)))
def test_the_prediction_is_what_the_scheduler_is_given(
    model: Model, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = GUARDS.get(name).build(ACTING[name], context_of(model, tmp_path))
    given = given_to_scheduler(model, hooks, REQUESTS[0], SCALE, 4)
    monkeypatch.setattr(model, "hooks", [hooks])
    reader, text = GuardedReader(model, SCALE), model.condition([str(REQUESTS[0].words)])
    monkeypatch.setattr(model, "hooks", [])
    plain = GuardedReader(model, SCALE)
    plain.guided = True
    apart: list[float] = []
    with torch.no_grad():
        for one in given:
            # SLD's S is in the thousands, so rounding counts: two passes here, one of both branches there.
            found = reader.predict(one.latents, one.t, text)
            torch.testing.assert_close(found, one.output, atol=2e-3, rtol=2e-3)
            apart.append(float((plain.predict(one.latents, one.t, text) - one.output).abs().max()))
    assert max(apart) > 0.05


def test_rows_of_other_noise_levels_go_through_a_guard_at_steps_of_their_own(model: Model) -> None:
    numbers: list[tuple[int, int]] = []

    def late(step: Step, guided: Tensor) -> Tensor:
        numbers.append((step.number, len(guided)))
        assert step.steps == STEPS
        assert step.branches is not None
        assert len(step.latents) == len(step.branches.negative) == len(guided)
        return guided if step.number < 25 else guided + 1

    noisy = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([100, 999, 110, 0])
    text = model.condition(["a red knight"]).repeat(4)
    model.hooks = [Hooks(prediction=late)]
    try:
        with torch.no_grad():
            changed = GuardedReader(model, SCALE).predict(noisy, t, text)
    finally:
        model.hooks = []
    assert numbers == [(0, 1), (44, 2), (49, 1)]
    plain = GuardedReader(model, SCALE)
    plain.guided = True
    with torch.no_grad():
        moved = (changed - plain.predict(noisy, t, text)).flatten(1).mean(dim=1)
    torch.testing.assert_close(moved, torch.tensor([1.0, 0.0, 1.0, 1.0]), atol=1e-4, rtol=0)


def test_a_search_differentiates_through_sld(model: Model) -> None:
    """Near the guard's own words its gradient is another one than without the guard."""
    noisy, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    words, gradients = model.condition(["a red knight with a sword"]), []
    for options in (None, {"preset": "max", "text": "a figure holding a sword"}):
        vector = words.text.clone().requires_grad_(True)
        model.hooks = [] if options is None else [GUARDS.get("sld").build(options, context_of(model, Path("unused")))]
        try:
            reader = GuardedReader(model, SCALE)
            reader.guided = True
            reader.predict(noisy, t, words._replace(text=vector)).square().sum().backward()  # type: ignore[no-untyped-call]
        finally:
            model.hooks = []
        assert vector.grad is not None
        gradients.append(vector.grad)
    assert torch.isfinite(gradients[1]).all()
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-2, atol=1e-3)
