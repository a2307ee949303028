"""SLD: its numbers by hand, its presets, and where it leaves images alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from duo_unlearn.families.interface import Branches, Hooks, Model, Step
from duo_unlearn.families.load import load_model
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.guards.sld import PRESETS, SldSettings, Strength, safety_term, strength_of

from ..families import small_models as small
from .small import REQUESTS, context_of, sample

EMPTY, CONCEPT, PROMPT = torch.tensor([0.0, 0.0]), torch.tensor([0.4, -0.2]), torch.tensor([0.3, 0.6])


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


def test_the_presets_are_the_authors_and_numbers_override_them() -> None:
    assert PRESETS["weak"] == (15, 20, 0, 0, 0)
    assert PRESETS["medium"] == (10, 1000, 0.01, 0.3, 0.4)
    assert PRESETS["max"] == (0, 5000, 1, 0.5, 0.7)
    assert strength_of(SldSettings(preset="strong")) == (7, 2000, 0.025, 0.5, 0.7)
    assert strength_of(SldSettings(preset="strong", scale=3, beta=0)) == (7, 3, 0.025, 0.5, 0)


def test_the_term_by_hand() -> None:
    # The first coordinate: ε_c − ε_s = −0.1 < 0.01, μ = 0.1 · 4 = 0.4; the second: 0.8 ≥ 0.01, so nothing.
    numbers = Strength(0, 4.0, 0.01, 0.3, 0.4)
    found = safety_term(PROMPT, EMPTY, CONCEPT, torch.tensor([1.0, 2.0]), numbers)
    torch.testing.assert_close(found, torch.tensor([0.4 * 0.4 + 0.3, 0.6]))


def test_without_a_scale_guidance_is_plain() -> None:
    found = safety_term(PROMPT, EMPTY, CONCEPT, torch.zeros(2), Strength(0, 0.0, 1.0, 0.0, 0.0))
    assert torch.equal(found, torch.zeros(2))


def test_a_large_scale_leaves_the_difference_from_the_concept() -> None:
    found = safety_term(PROMPT, EMPTY, CONCEPT, torch.zeros(2), Strength(0, 1e6, 1.0, 0.0, 0.0))
    torch.testing.assert_close((PROMPT - EMPTY) - found, PROMPT - CONCEPT)


def test_warm_up_counts_steps_of_fifty_and_momentum_grows_meanwhile(model: Model, tmp_path: Path) -> None:
    options = {"preset": "max", "warmup": 25, "scale": 1e6, "momentum": 0.5, "beta": 0.7}
    hooks = GUARDS.get("sld").build(options, context_of(model, tmp_path))
    assert hooks.prediction is not None
    memory: dict[str, Tensor] = {}

    def step(number: int) -> Tensor:
        branches = Branches(PROMPT[None], EMPTY[None], 5.0, lambda _words: CONCEPT[None])
        assert hooks.prediction is not None
        return hooks.prediction(Step(EMPTY[None], number, 4, branches, memory), torch.ones(1, 2))

    assert torch.equal(step(0), torch.ones(1, 2))  # 0 of 4 and 1 of 4 come before 25 of 50
    torch.testing.assert_close(memory["sld"], 0.3 * CONCEPT[None])
    assert torch.equal(step(1), torch.ones(1, 2))
    now = CONCEPT + 0.5 * memory["sld"]
    torch.testing.assert_close(step(2), 1 - 5 * now)


def test_it_is_off_bit_for_bit_without_scale_or_guidance(model: Model, tmp_path: Path) -> None:
    guard, context = GUARDS.get("sld"), context_of(model, tmp_path)
    assert guard.build({"scale": 0}, context) == Hooks()
    hooks = guard.build({"preset": "max"}, context)
    assert torch.equal(sample(model, hooks, guidance=1.0, steps=2), sample(model, None, guidance=1.0, steps=2))


def test_with_the_whole_difference_it_is_guidance_away_from_the_concept(model: Model, tmp_path: Path) -> None:
    """ε_n + s (ε_c − ε_s), by a hook that asks for the concept itself."""
    options = {"warmup": 0, "scale": 1e9, "threshold": 1e9, "momentum": 0, "text": "a sword"}
    hooks = GUARDS.get("sld").build(options, context_of(model, tmp_path))
    words = model.condition(["a sword"])

    def by_hand(step: Step, _guided: Tensor) -> Tensor:
        assert step.branches is not None
        positive, negative, scale, predict = step.branches
        return negative + scale * (positive - predict(words.repeat(2)))

    difference = sample(model, hooks) - sample(model, Hooks(prediction=by_hand))
    assert difference.abs().max() <= 2  # of 255: rounding


@pytest.mark.parametrize("family", ["mini", "sdxl", "sd3"])
def test_a_step_can_be_asked_again(family: str, tmp_path: Path) -> None:
    """Asked under the prompts' own conditioning, every family's denoiser says what the pipeline got of it."""
    made = "mini" if family == "mini" else str(getattr(small, family)(tmp_path / "model"))
    model = load_model(made, torch.device("cpu"), resolution=None if family == "mini" else small.RESOLUTION)
    words = model.condition([str(request.words) for request in REQUESTS])
    seen: list[Tensor] = []

    def ask(step: Step, guided: Tensor) -> Tensor:
        assert step.branches is not None
        positive, negative, scale, predict = step.branches
        torch.testing.assert_close(negative + scale * (positive - negative), guided, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(predict(words), positive, rtol=1e-3, atol=1e-4)
        seen.append(positive)
        return guided

    sample(model, Hooks(prediction=ask), steps=2)
    assert len(seen) >= 2
