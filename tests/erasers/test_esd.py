"""ESD's loss by its worked numbers, and what each of its forms asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.erasers.descent import generator_of
from duo_unlearn.erasers.esd import EsdLoss, target
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model

from .small import CPU
from .words_alone import SAFE, UNSAFE, context_of

CONCEPT, EMPTY = torch.tensor([1.0, 0.0]), torch.zeros(2)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", CPU)


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


@pytest.mark.parametrize(("form", "nothing"), [("word", -1.0), ("pair", -1.0), ("attribute", 0.0)])
def test_each_form_asks_an_untouched_model_for_what_it_says(
    model: Model, tmp_path: Path, form: str, nothing: float
) -> None:
    """η at which the target is what the model predicts; and the loss is a square of the distance of η from it."""
    losses = [loss_at_start(model, tmp_path, form, nothing + away) for away in (0, 1, 2)]
    assert losses[0] == pytest.approx(0, abs=1e-10)
    assert losses[1] > 1e-4
    assert losses[2] == pytest.approx(4 * losses[1], rel=1e-3)


def test_the_pair_form_erases_what_differs_alone(model: Model, tmp_path: Path) -> None:
    # Where the safe prompt is the unsafe one nothing is asked, whatever else the scene says.
    assert loss_at_start(model, tmp_path, "pair", 1.0, safe=UNSAFE) == pytest.approx(0, abs=1e-10)
    assert loss_at_start(model, tmp_path, "pair", 1.0) > 1e-4


def test_latents_lie_on_the_frozen_models_path(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = ERASERS.get("esd-x").course
    assert make is not None
    with make(context_of("esd-x", model, tmp_path, {"sampling_steps": 2})) as course, torch.no_grad():
        loss = course.descent.loss
        assert isinstance(loss, EsdLoss)
        real, found = loss._latents, []

        def note(*given: Any) -> tuple[Tensor, Tensor]:
            found.append((given, real(*given)))
            return found[-1][1]

        monkeypatch.setattr(loss, "_latents", note)
        loss(0)
        for tensor in course.descent.tensors.values():
            tensor.mul_(2)
        loss(0)
        (first, (noisy, t)), (_, (again, _)) = found
        assert torch.equal(again, noisy)
        # The step is drawn after the first one, so that on the student's own path they are others.
        assert int(t) < 500
        students, _ = real(generator_of(0, "esd", 0), *first[1:])
        assert not torch.equal(students, noisy)


def loss_at_start(model: Model, folder: Path, form: str, eta: float, safe: str = SAFE) -> float:
    options: dict[str, object] = {"form": form, "eta": eta, "sampling_steps": 2, "batch": 2}
    make = ERASERS.get("esd-x").course
    assert make is not None
    with make(context_of("esd-x", model, folder, options, safe=safe)) as course:
        return float(course.descent.loss(0).detach())
